"""Edits: the lines that a past change added to a file, asked for in the words and the prompt of the product.

A pull request is a natural pair of an instruction and its answer (OctoPack, Muennighoff et al., 2023). Three quarters
are asked with the code as it was before the change, the rest without, so that the model learns both to use what it is
shown and to do without. What is shown is the edited file, whole or around the change, and places that the same change
edited elsewhere; half of the time those come first, since a search does not always rank the right file first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inhouse_retrieval import ChangedFile, Passage, PullRequest, Repository, redact

from .documents import added_lines, shorten
from .engine import Message
from .prompts import build_answer_prompt, chat_row, edit_question, literal_ids, without_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_AROUND_LINES = 12
"""Shown before and after the place that changed; a function's head is usually among them."""
_WINDOW_LINES = 40
_COMPANIONS = 3
_LEAST_ANSWER = 4
_CHARACTERS_A_TOKEN = 8
"""More than code has; a file beyond it cannot fit and is not tokenised."""
_MARGIN = 16
_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? ", re.M)


@dataclass(frozen=True, slots=True)
class Edit:
    """What one change added to one file.

    Attributes:
        complete: ``False`` when the end of a very long change is not in ``added``.
        whole: the file before the change; ``None`` for a new one.
        windows: the places in it that changed, as they were.
        companions: places of other files that changed with it, as they were.
    """

    commit: str
    title: str
    path: str
    added: str
    complete: bool
    whole: Passage | None
    windows: tuple[Passage, ...]
    companions: tuple[Passage, ...]

    @property
    def name(self) -> str:
        """``COMMIT:PATH``, as rows and the list of what was left out name it."""
        return f"{self.commit}:{self.path}"


@dataclass(frozen=True, slots=True)
class EditRow:
    """A tokenised edit.

    Attributes:
        answer_tokens: of all added lines.
        learned_tokens: of those that fit the row, from the first line on.
        messages: the conversation that the tokens render.
    """

    input_ids: list[int]
    labels: list[int]
    answer_tokens: int
    learned_tokens: int
    messages: tuple[Message, ...]


def read_edits(repository: Repository, changes: Sequence[PullRequest]) -> Iterator[Edit]:
    """The edits of each change, in order. Files that are not read (lock files, vendored code, binaries) have none."""
    for change in changes:
        patches = [file for file in change.files if file.patch]
        places = [(change.parent, file.former or file.path) for file in patches]
        before = dict(zip((file.path for file in patches), repository.iter_texts_at(places), strict=True))
        windows = {file.path: _windows(change.parent, file, before[file.path]) for file in patches}
        for file in patches:
            added = added_lines(file.patch)
            text = before[file.path]
            if not added.strip() or (text is None and file.status != "added") or "\ufffd" in added:
                continue
            yield Edit(
                change.commit,
                redact(shorten(change.title))[0],
                file.path,
                redact(added)[0],
                file.omitted_lines == 0,
                None if text is None else _passage(change.parent, file.path, text.split("\n"), 1, text.count("\n") + 1),
                tuple(windows[file.path]),
                tuple(w[0] for path, w in windows.items() if path != file.path and w)[:_COMPANIONS],
            )


def _windows(commit: str, file: ChangedFile, text: str | None) -> list[Passage]:
    if text is None:
        return []
    lines = text.split("\n")
    found: list[Passage] = []
    for match in _HUNK.finditer(file.patch):
        start, count = int(match[1]), int(match[2] or 1)
        first = max(1, start - _AROUND_LINES, found[-1].end_line + 1 if found else 1)
        last = min(len(lines), start + count + _AROUND_LINES, first + _WINDOW_LINES - 1)
        if first <= last:
            found.append(_passage(commit, file.path, lines, first, last))
    return found


def _passage(commit: str, path: str, lines: Sequence[str], first: int, last: int) -> Passage:
    return Passage(path, first, last, "\n".join(lines[first - 1 : last]), "code", "", commit, 0.0, ())


def edit_row(
    tokenizer: PreTrainedTokenizerBase,
    count_tokens: Callable[[Sequence[Message]], int],
    edit: Edit,
    max_tokens: int,
    seed: int,
) -> EditRow | None:
    """The edit as a conversation of at most ``max_tokens`` tokens; ``None`` when there is no room for it.

    The answer takes at most half of them and loses its end first, and then the model does not learn to stop there.
    """
    draw = hashlib.sha256(f"{seed}\0{edit.name}".encode("utf-8", "surrogateescape")).digest()
    question = edit_question(edit.title, edit.path)
    bare = build_answer_prompt(question, (), count_tokens, 1 << 30).messages
    room = min(max_tokens // 2, max_tokens - count_tokens(bare) - _MARGIN)
    if room < _LEAST_ANSWER:
        return None
    # As the chat template would strip it, so that what is counted is what is learned.
    answer, whole, tokens = _fitting(tokenizer, edit.added.lstrip(), room)
    learned = tokens if whole else len(_ids(tokenizer, answer))
    budget = max_tokens - learned - _MARGIN
    own = edit.windows
    if edit.whole is not None and draw[2] < 128 and len(edit.whole.text) < budget * _CHARACTERS_A_TOKEN:
        alone = build_answer_prompt(question, [edit.whole], count_tokens, budget)
        own = alone.included or own
    passages = [*own, *edit.companions] if draw[1] < 128 else [*edit.companions, *own]
    prompt = build_answer_prompt(question, passages if draw[0] >= 64 else (), count_tokens, budget)
    messages = (*prompt.messages, Message("assistant", answer))
    ids, labels = chat_row(tokenizer, messages)
    if not whole or not edit.complete:
        ids, labels = without_end(tokenizer, ids, labels)
    return EditRow(ids, labels, tokens, learned, messages) if len(ids) <= max_tokens else None


def _fitting(tokenizer: Any, text: str, room: int) -> tuple[str, bool, int]:
    """As many whole lines as fit ``room`` tokens, or the first one cut; whether that is all; the tokens of all."""
    ids = _ids(tokenizer, text)
    if len(ids) <= room:
        return text, True, len(ids)
    cut = tokenizer.decode(ids[:room])
    end = cut.rfind("\n")
    return (cut[:end] if end > 0 else cut), False, len(ids)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return literal_ids(tokenizer, text)
