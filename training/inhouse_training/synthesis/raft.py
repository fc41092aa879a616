"""Questions with retrieved passages, of which one answers: RAFT (Zhang et al., arXiv 2403.10131).

The prompt is the one that the product serves. The passages beside the true one are the search's own best wrong ones at
the training snapshot, and the answer quotes its evidence first, under the place that stands above the passage: a model
can copy that, where it would have to count to say the line. In a share of the rows the true passage is not there,
and the answer is that of the product: :data:`~inhouse_training.prompts.NOT_HERE`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inhouse_retrieval import Passage

from ..engine import Message
from ..prompts import NOT_HERE, AnswerPrompt, build_answer_prompt
from ..snapshot_search import WINDOW_LINES, Retriever
from .absent import AbsentName
from .grounding import Evidence, Item, locate
from .sources import Section

PASSAGES = 6
"""As many as the product offers by default (``answer.passages``)."""
WITHOUT_TRUE_PASSAGE = 0.2
"""Share of the rows whose passages do not answer."""
_MARGIN = 16
_LEAST_CONTEXT = 2

CountTokens = Callable[[Sequence[Message]], int]


@dataclass(frozen=True, slots=True)
class Room:
    """How much a row may take.

    Attributes:
        count_tokens: of messages, with the generation prompt.
        max_tokens: of the row.
    """

    count_tokens: CountTokens
    max_tokens: int

    def beside(self, answer: str) -> int:
        """Tokens that are left for the question and its passages."""
        return self.max_tokens - self.count_tokens([Message("user", answer)]) - _MARGIN


def raft_messages(
    item: Item, search: Retriever, commit: str, room: Room, seed: int
) -> tuple[tuple[Message, ...], bool] | None:
    """The conversation, and whether its passages answer; ``None`` when the row cannot hold the true passage."""
    [evidence] = item.evidence
    true = _passage(evidence, commit)
    distractors = _distractors(item.question, evidence, true, search)
    draw = hashlib.sha256(f"{seed}\0{item.question}\0{evidence.section.path}".encode()).digest()
    # Another part of the same file, or its name alone, may answer as well.
    elsewhere = [passage for passage in distractors if passage.path != true.path]
    if draw[0] < WITHOUT_TRUE_PASSAGE * 256 and elsewhere:
        prompt = _prompt(item.question, elsewhere, room, NOT_HERE)
        return ((*prompt.messages, Message("assistant", NOT_HERE)), False) if prompt and prompt.included else None
    answer = f"{_cited(evidence, true)}\n\n{item.answer}"
    prompt = _prompt(item.question, [true, *distractors], room, answer)
    if prompt is None or true not in prompt.included:
        return None
    others = [passage for passage in prompt.included if passage != true]
    place = draw[1] % (len(others) + 1)
    messages = _unbounded(item.question, [*others[:place], true, *others[place:]])
    if room.count_tokens(messages) > room.beside(answer):  # in another order they may take a token more
        return None
    return (*messages, Message("assistant", answer)), True


def absent_messages(absent: AbsentName, search: Retriever, room: Room) -> tuple[Message, ...] | None:
    """A question about a name that there is not, with what the search finds for it; ``None`` when nothing fits."""
    section = absent.section
    nearest = f" `{absent.real}` in `{section.path}` has a similar name."
    prompt = _prompt(absent.question, search(absent.question, PASSAGES), room, NOT_HERE + nearest)
    if prompt is None:
        return None
    shown = any(passage.path == section.path and absent.real in passage.text for passage in prompt.included)
    return *prompt.messages, Message("assistant", NOT_HERE + nearest * shown)


def _prompt(question: str, passages: Sequence[Passage], room: Room, answer: str) -> AnswerPrompt | None:
    budget = room.beside(answer)
    if room.count_tokens(_unbounded(question, ())) > budget:
        return None
    return build_answer_prompt(question, passages, room.count_tokens, budget)


def _unbounded(question: str, passages: Sequence[Passage]) -> tuple[Message, ...]:
    """The prompt with all of the passages, however long it is."""
    return build_answer_prompt(question, passages, lambda messages: 0, 0).messages


def _distractors(question: str, evidence: Evidence, true: Passage, search: Retriever) -> list[Passage]:
    """The best passages that do not answer: none of the true one's lines, and nowhere the quotation."""
    found = [
        passage
        for passage in search(question, 3 * PASSAGES)
        if (passage.path != true.path or passage.start_line > true.end_line or passage.end_line < true.start_line)
        and locate(evidence.text, _as_section(passage)) is None
    ]
    return found[: PASSAGES - 1]


def _passage(evidence: Evidence, commit: str) -> Passage:
    """The quotation with the lines around it, about as many as a passage has."""
    section = evidence.section
    spare = max(WINDOW_LINES - (evidence.last_line - evidence.first_line + 1), 2 * _LEAST_CONTEXT)
    first = max(section.first_line, evidence.first_line - spare // 2)
    last = min(section.last_line, evidence.last_line + spare - spare // 2)
    lines = section.text.split("\n")[first - section.first_line : last - section.first_line + 1]
    source = "wiki" if section.is_page else "code"
    return Passage(section.path, first, last, "\n".join(lines), source, section.blob_id, commit, 0.0, ())


def _cited(evidence: Evidence, true: Passage) -> str:
    place = f"{true.path}:{true.start_line}-{true.end_line}"
    return f"{place}\n" + "\n".join(f"> {line}" for line in evidence.text.split("\n"))


def _as_section(passage: Passage) -> Section:
    return Section(passage.path, passage.blob_id, passage.start_line, passage.end_line, passage.text, False, ())
