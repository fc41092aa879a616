"""Later files and later pull requests as rows: raw text in the words in which such text is learned.

What is known beforehand stands before the scored text: the path of a file, the title of a change. With retrieval,
passages of the past stand before that. The same tokens are scored either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inhouse_retrieval import PullRequest, redact

from ..documents import added_lines, change_document, file_document, shorten
from ..engine import ScoredRow
from ..prompts import IGNORED, code_block, literal_ids, passage_remark, raw_row
from ..recipe import EvaluationSettings
from ..snapshot_search import Retriever

MOST_FILES = 200
"""Scored at most; a change that brings a whole library in would otherwise take hours."""
_PASSAGES = 8
_CHARACTERS_A_TOKEN = 32
"""A token is rarely longer, so a text that is cut there still fills the cap."""


@dataclass(frozen=True, slots=True)
class LaterText:
    """A text that came after the snapshot.

    Attributes:
        query: what a search for it would ask.
        header: what is known beforehand; it is read and not scored.
        text: what is scored.
    """

    name: str
    query: str
    header: str
    text: str


def later_files(changes: Sequence[PullRequest]) -> list[LaterText]:
    """The files that later changes added, once each, in the order of the changes; of more than :data:`MOST_FILES`, that
    many at equal distances."""
    found: dict[str, LaterText] = {}
    for change in changes:
        for file in change.files:
            text = redact(added_lines(file.patch))[0]
            if file.status == "added" and text.strip():
                query = f"{redact(shorten(change.title))[0]} {file.path}"
                found.setdefault(file.path, LaterText(file.path, query, file_document(file.path, "").header, text))
    files = list(found.values())
    count = min(len(files), MOST_FILES)
    return [files[len(files) * at // count] for at in range(count)]


def later_changes(changes: Sequence[PullRequest]) -> list[LaterText]:
    """Later changes as they would be learned: description, dates, patches. Their titles are given."""
    found = []
    for change in changes:
        document = change_document(change)
        whole = redact(document.header + "".join(section.header + section.body for section in document.sections))[0]
        title, _, rest = whole.partition("\n")
        if rest.strip():
            found.append(LaterText(change.commit, redact(shorten(change.title))[0], title + "\n", rest))
    return found


def later_row(
    tokenizer: Any, item: LaterText, retriever: Retriever | None, settings: EvaluationSettings
) -> tuple[ScoredRow, int]:
    """A row of at most ``settings.prompt_tokens + settings.scored_tokens`` tokens, and the bytes of what it scores.

    Passages are put in best first, as long as they fit.
    """
    header, _ = raw_row(tokenizer, item.header, ends=False)
    header = header[-settings.prompt_tokens :]
    context: list[int] = []
    for passage in retriever(item.query, _PASSAGES) if retriever is not None else ():
        block = code_block(passage.path, passage.start_line, passage.end_line, passage.text, passage_remark(passage))
        ids = literal_ids(tokenizer, block + "\n")
        if len(context) + len(ids) + len(header) <= settings.prompt_tokens:
            context += ids
    text = literal_ids(tokenizer, item.text[: settings.scored_tokens * _CHARACTERS_A_TOKEN])[: settings.scored_tokens]
    row = ScoredRow((*context, *header, *text), (*[IGNORED] * (len(context) + len(header)), *text))
    return row, scored_bytes(tokenizer, row)


def scored_bytes(tokenizer: Any, row: ScoredRow) -> int:
    """UTF-8 bytes of the text that a row scores; a character that the cap cut in two does not count."""
    labels = [label for label in row.labels if label != IGNORED]
    text = str(tokenizer.decode(labels, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return max(1, len(text.rstrip("\ufffd").encode("utf-8", "surrogatepass")))
