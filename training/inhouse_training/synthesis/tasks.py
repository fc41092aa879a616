"""Which requests the wanted kinds of rows need."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from ..engine import Message
from ..kinds import Kind
from . import prompts
from .prompts import Topic
from .sources import Section, name_words

TOPICS: dict[Kind, Topic] = {
    "qa": "questions", "raft": "questions", "explanation": "explanation", "relation": "relation",
}  # fmt: skip
"""Kinds that a generator writes, and what it is asked for them."""

BYTES_A_TOKEN = 3
"""Code takes 3 to 4 bytes a token with current tokenizers: the estimate errs towards too many."""
_MESSAGE_TOKENS = 8
_REPLY_TOKENS: dict[Topic, int] = {"questions": 220, "explanation": 700, "relation": 600}
"""At most; for ``questions``, for each of them."""
_EXPLAINED_SECTIONS = 3
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Task:
    """One request. Every section is of the training snapshot, and so is all that comes of it."""

    topic: Topic
    sections: tuple[Section, ...]
    repository: str

    @property
    def messages(self) -> tuple[Message, ...]:
        """What is asked."""
        match self.topic:
            case "questions":
                return prompts.question_messages(self.sections[0], self.repository)
            case "explanation":
                return prompts.explanation_messages(self.sections, self.repository)
            case "relation":
                return prompts.relation_messages(self.sections, self.repository)

    def schema(self, with_lengths: bool) -> str:
        """The form of the reply."""
        return prompts.schema(self.topic, self.sections[0], with_lengths)

    @property
    def reply_tokens(self) -> int:
        """The longest reply."""
        many = prompts.question_count(self.sections[0]) if self.topic == "questions" else 1
        return many * _REPLY_TOKENS[self.topic]

    @property
    def prompt_tokens(self) -> int:
        """An estimate on the high side."""
        return sum(_MESSAGE_TOKENS + -(-len(each.content.encode()) // BYTES_A_TOKEN) for each in self.messages)

    def key(self, generator: str) -> str:
        """Names the reply of one generator: a hash of the source texts in their prompt, its version and the model."""
        asked = [self.topic, prompts.VERSIONS[self.topic], generator, *(each.content for each in self.messages)]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def plan_tasks(sections: Sequence[Section], kinds: Collection[Kind], repository: str) -> list[Task]:
    """The requests for ``kinds``, in a fixed order; kinds that need the same reply share it.

    Nothing is asked about prose and data that is no wiki page.
    """
    kinds = frozenset(kinds)
    tasks: list[Task] = []
    for section in sections:
        if ("raft" in kinds and section.names) or (not kinds.isdisjoint(("qa", "raft")) and section.is_page):
            tasks.append(Task("questions", (section,), repository))
    files = [tuple(of) for _, of in groupby(sections, key=lambda each: each.path)]
    files = [of for of in files if any(section.names for section in of)]
    if "explanation" in kinds:
        tasks += [Task("explanation", of[:_EXPLAINED_SECTIONS], repository) for of in files]
    if "relation" in kinds:
        tasks += [Task("relation", pair, repository) for pair in _related(files)]
    return tasks


def _related(files: Sequence[tuple[Section, ...]]) -> Iterator[tuple[Section, Section]]:
    """For each file, the other file of whose names it uses most: where it uses one, and where that is defined.

    A name counts when exactly one file defines it and it has several words, so that it is not met by chance.
    """
    defined: dict[str, list[Section]] = defaultdict(list)
    for of in files:
        for section in of:
            for name in section.names:
                if len(name_words(name)) > 1:
                    defined[name].append(section)
    homes = {name: found[0] for name, found in defined.items() if len({each.path for each in found}) == 1}
    for of in files:
        uses = {
            name: section
            for section in reversed(of)
            for name in _WORD.findall(section.text)
            if name in homes and homes[name].path != section.path
        }
        most = Counter(homes[name].path for name in uses)
        if most:
            partner = min(most, key=lambda path: (-most[path], path))
            name = min(name for name in uses if homes[name].path == partner)
            yield uses[name], homes[name]
