"""Conversations for the dataset, made of what a generator said and what of it is grounded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inhouse_retrieval import Progress, Repository

from ..engine import Message
from ..kinds import Kind
from ..probes.answers import read_house
from ..prompts import SYSTEM, chat_ids
from ..provenance import origin
from ..recipe import DataSettings
from ..snapshot_search import SnapshotSearch
from .absent import absent_names
from .cache import Replies
from .grounding import DroppedItem, Item, ground
from .lookup import lookup_items
from .raft import Room, absent_messages, raft_messages
from .sources import Section, read_sections
from .tasks import TOPICS, Task, plan_tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..cut import Cut

SYNTHETIC: tuple[Kind, ...] = (*TOPICS, "absent", "lookup")
"""Kinds of rows that nobody of the house wrote."""

NOT_GENERATED = "not generated yet"
ASKED_BEFORE = "the same question was asked before"
NO_ROOM = "its question and its passage do not fit a row"


@dataclass(frozen=True, slots=True)
class SyntheticRow:
    """One conversation.

    Attributes:
        name: the place that it was written from, and its number there.
        sources: all sections that it quotes or was written from.
        generator: the model that wrote it; empty when no model did.
    """

    kind: Kind
    name: str
    messages: tuple[Message, ...]
    sources: tuple[Section, ...]
    generator: str

    @property
    def text(self) -> str:
        """What it teaches."""
        return self.messages[-1].content

    @property
    def origin(self) -> str:
        """Who wrote it and from what, as JSON."""
        return origin(({"place": section.place, "blob": section.blob_id} for section in self.sources), self.generator)


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """One that is not used; ``text`` is what it would have taught, where there is something."""

    kind: Kind
    name: str
    reason: str
    text: str


def wanted_kinds(data: DataSettings) -> tuple[Kind, ...]:
    """The synthetic kinds that a recipe has a share for."""
    return tuple(kind for kind in SYNTHETIC if data.shares[kind])


def wanted_topics(data: DataSettings) -> frozenset[str]:
    """What a generator must have been asked for them."""
    return frozenset(TOPICS[kind] for kind in wanted_kinds(data) if kind in TOPICS)


def over_share(rows: Sequence[tuple[Kind, int]], shares: Mapping[Kind, float]) -> frozenset[int]:
    """Which synthetic rows, by their place, would take more than their kind's share of all learned tokens.

    Args:
        rows: kind and learned tokens of each row, those that go first in front.
        shares: kind of row -> its share.
    """
    synthetic = sum(shares[kind] for kind in SYNTHETIC)
    others = sum(tokens for kind, tokens in rows if kind not in SYNTHETIC)
    if not others or synthetic >= 1:
        return frozenset()
    left = {kind: shares[kind] * others / (1 - synthetic) for kind in SYNTHETIC}
    over: set[int] = set()
    for at, (kind, tokens) in enumerate(rows):
        if kind in left and tokens > left[kind]:
            over.add(at)
        elif kind in left:
            left[kind] -= tokens
    return frozenset(over)


class RowWriter:
    """Makes the synthetic rows of one dataset, and keeps the account of them."""

    def __init__(
        self,
        repository: Repository,
        cut: Cut,
        tokenizer: PreTrainedTokenizerBase,
        data: DataSettings,
        seed: int,
        repository_name: str,
        replies: Replies,
    ) -> None:
        self._repository = repository
        self._cut = cut
        self._kinds = wanted_kinds(data)
        self._seed = seed
        self._name = repository_name
        self._replies = replies
        self._room = Room(
            lambda messages: len(chat_ids(tokenizer, messages, add_generation_prompt=True)), data.max_tokens
        )
        self._asked: set[tuple[Kind, str]] = set()
        self._unused = 0
        self._rows: Counter[Kind] = Counter()
        self._dropped: dict[Kind, Counter[str]] = {kind: Counter() for kind in self._kinds}

    def rows(self, progress: Progress) -> Iterator[SyntheticRow | DroppedRow]:
        """All rows and all that is dropped, in a fixed order."""
        progress("reading what was generated", 0, None)
        sections = read_sections(self._repository, self._cut)
        tasks = plan_tasks(sections, self._kinds, self._name)
        known = {task.key(self._replies.generator) for task in plan_tasks(sections, SYNTHETIC, self._name)}
        self._unused = sum(key not in known for key in self._replies.by_key)
        with closing(SnapshotSearch(self._repository, self._cut.snapshot)) as search:
            for done, task in enumerate(tasks):
                progress("writing synthetic rows", done, len(tasks))
                yield from self._of_task(task, search)
            if "absent" in self._kinds:
                yield from self._absent(sections, search)
            if "lookup" in self._kinds:
                yield from self._lookups(sections, search, progress)

    def count(self, row: SyntheticRow | DroppedRow, reason: str) -> None:
        """Note what became of a row: ``reason`` is empty where it is learned."""
        if reason:
            self._dropped[row.kind][reason] += 1
        else:
            self._rows[row.kind] += 1

    def account(self) -> dict[str, Any]:
        """For the manifest: rows by kind, what was dropped by reason, and the replies that belong to no section of the
        training snapshot, since their source is held out or has changed."""
        return {
            "generator": self._replies.generator,
            "rows": dict(self._rows),
            "dropped": {kind: dict(sorted(reasons.items())) for kind, reasons in self._dropped.items()},
            "unused_replies": self._unused,
        }

    def _of_task(self, task: Task, search: SnapshotSearch) -> Iterator[SyntheticRow | DroppedRow]:
        kinds = [kind for kind in self._kinds if TOPICS.get(kind) == task.topic]
        if not task.sections[0].is_page and "qa" in kinds:
            kinds.remove("qa")
        place = task.sections[0].place
        reply = self._replies.by_key.get(task.key(self._replies.generator))
        found = [] if reply is None else ground(task, reply)
        for kind in kinds:
            if reply is None:
                yield DroppedRow(kind, place, NOT_GENERATED, "")
            for number, item in enumerate(found):
                if isinstance(item, DroppedItem):
                    yield DroppedRow(kind, f"{place}#{number}", item.reason, item.text)
            items = [(number, item) for number, item in enumerate(found) if isinstance(item, Item)]
            if task.topic == "questions":
                for number, item in items:
                    yield self._answered(kind, f"{place}#{number}", item, search)
            elif items:
                yield self._explained(kind, place, task, [item for _, item in items])

    def _answered(self, kind: Kind, name: str, item: Item, search: SnapshotSearch) -> SyntheticRow | DroppedRow:
        asked = " ".join(re.findall(r"\w+", item.question.lower()))
        if (kind, asked) in self._asked:
            return DroppedRow(kind, name, ASKED_BEFORE, item.answer)
        self._asked.add((kind, asked))
        messages = _conversation(item.question, item.answer)
        if kind == "raft":
            made = raft_messages(item, search, self._cut.snapshot, self._room, self._seed)
            if made is None:
                return DroppedRow(kind, name, NO_ROOM, item.answer)
            messages, _ = made
        sources = tuple(evidence.section for evidence in item.evidence)
        return SyntheticRow(kind, name, messages, sources, self._replies.generator)

    def _explained(self, kind: Kind, name: str, task: Task, items: Sequence[Item]) -> SyntheticRow:
        first, *others = dict.fromkeys(section.path for section in task.sections)
        question = f"What is `{first}` for, and how does it work?"
        if others:
            question = f"How do `{first}` and `{others[0]}` work together?"
        answer = "\n\n".join(dict.fromkeys(item.answer for item in items))
        return SyntheticRow(kind, name, _conversation(question, answer), task.sections, self._replies.generator)

    def _absent(self, sections: Sequence[Section], search: SnapshotSearch) -> Iterator[SyntheticRow | DroppedRow]:
        for absent in absent_names(self._repository, self._cut.snapshot, sections, self._seed):
            messages = absent_messages(absent, search, self._room)
            if messages is None:
                yield DroppedRow("absent", absent.name, NO_ROOM, "")
            else:
                yield SyntheticRow("absent", absent.name, messages, (absent.section,), "")

    def _lookups(
        self, sections: Sequence[Section], search: SnapshotSearch, progress: Progress
    ) -> Iterator[SyntheticRow | DroppedRow]:
        house = read_house(self._repository, self._cut.snapshot, ())
        items = lookup_items(sections, Counter(name for _, name in house.definitions), self._seed)
        for done, item in enumerate(items):
            progress("writing questions about the code", done, len(items))
            [evidence] = item.evidence
            name = f"{evidence.section.path}:{evidence.first_line}#{item.question}"
            made = raft_messages(item, search, self._cut.snapshot, self._room, self._seed)
            if made is None:
                yield DroppedRow("lookup", name, NO_ROOM, item.answer)
            else:
                yield SyntheticRow("lookup", name, made[0], (evidence.section,), "")


def _conversation(question: str, answer: str) -> tuple[Message, ...]:
    return Message("system", SYSTEM), Message("user", question), Message("assistant", answer)
