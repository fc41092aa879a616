"""What of a reply stands in its source.

A model that writes about a text also writes what is not in it, and what is trained on becomes a fact. So every item
must quote, and is dropped, by reason, when the quotation is not in its source (white space aside), or when the rest
names something or gives a figure that the source does not have. That an answer follows from its quotation is not
checked: no program can.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .cache import Reply
from .sources import Section
from .tasks import Task

LEAST_QUOTE = 16
"""Characters. A shorter quotation stands in any text."""

NOT_AS_ASKED = "the reply has not the form that was asked for"
CUT = "the reply was cut"
INCOMPLETE = "a part of it is missing"
SHORT_QUOTE = "its quotation is too short"
NOT_IN_SOURCE = "its quotation is not in its source"
UNKNOWN_NAMES = "it names what is not in its source"
NOT_ALONE = "its question cannot stand alone"
NO_ANSWER = "its answer only repeats the question"

_NAME = re.compile(r"`([^`\n]+)`|\b([A-Za-z]\w*(?:_\w+|[a-z][A-Z])\w*|\d[\d.,]*\d|\d)\b")
_LIST = re.compile(r'"items"\s*:\s*\[')
_POINTING = re.compile(
    r"\b(?:this|these|the (?:above|given|provided|following|quoted)) "
    r"(?:text|file|code|lines?|snippet|passage|page|section)\b"
    r"|\b(?:text|code|lines?|snippet|passage) (?:above|below)\b",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A quotation, in the source's own characters, and the lines of its file that it stands in."""

    section: Section
    first_line: int
    last_line: int
    text: str


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a generator said and proved.

    Attributes:
        question: empty for a statement.
        answer: the answer, or the statement.
    """

    question: str
    answer: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class DroppedItem:
    """One that is not used, with what it would have taught."""

    reason: str
    text: str


def ground(task: Task, reply: Reply) -> list[Item | DroppedItem]:
    """What a reply says, item by item, in its order."""
    said = list(_items(reply.text))
    found: list[Item | DroppedItem] = [_ground(task, item) for item in said]
    if not reply.whole:
        found.append(DroppedItem(CUT, ""))
    elif not said:
        found.append(DroppedItem(NOT_AS_ASKED, reply.text))
    return found


def locate(quote: str, section: Section) -> Evidence | None:
    """Where ``quote`` stands in the section, whatever the white space."""
    words = quote.split()
    match = re.search(r"\s+".join(map(re.escape, words)), section.text) if words else None
    if match is None:
        return None
    first = section.first_line + section.text.count("\n", 0, match.start())
    return Evidence(section, first, first + match[0].count("\n"), match[0])


def _items(text: str) -> Iterator[dict[str, Any]]:
    """The objects of the list, also of a reply that was cut in the middle of one."""
    decoder = json.JSONDecoder()
    # Some models think aloud first, with brackets of their own.
    lists = list(_LIST.finditer(text)) or list(re.finditer(r"\[", text))[:1]
    at = text.find("{", lists[-1].end()) if lists else -1
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield value
        at = text.find("{", end)


def _ground(task: Task, item: dict[str, Any]) -> Item | DroppedItem:
    wanted = {
        "questions": ("question", "answer", "quote"),
        "explanation": ("statement", "quote"),
        "relation": ("statement", "first_quote", "second_quote"),
    }[task.topic]
    values = {key: item.get(key) for key in wanted}
    texts = {key: _plain(value) for key, value in values.items() if isinstance(value, str)}
    answer = texts.get("answer") or texts.get("statement") or ""
    if len(texts) < len(wanted) or not all(texts.values()):
        return DroppedItem(INCOMPLETE, answer)
    question = texts.get("question", "")
    quotes = [texts[key] for key in wanted if key.endswith("quote")]
    if any(len(quote) < LEAST_QUOTE for quote in quotes):
        return DroppedItem(SHORT_QUOTE, answer)
    evidence = _evidence(task, quotes)
    if evidence is None:
        return DroppedItem(NOT_IN_SOURCE, answer)
    if _POINTING.search(question):
        return DroppedItem(NOT_ALONE, answer)
    if question and _same(answer, question):
        return DroppedItem(NO_ANSWER, answer)
    if not _is_known(f"{question}\n{answer}", task):
        return DroppedItem(UNKNOWN_NAMES, answer)
    return Item(question, answer, evidence)


def _evidence(task: Task, quotes: Sequence[str]) -> tuple[Evidence, ...] | None:
    """A place for each quotation; for a relation the n-th in the n-th section, else each in any."""
    found: list[Evidence] = []
    for number, quote in enumerate(quotes):
        sections = task.sections[number : number + 1] if task.topic == "relation" else task.sections
        place = next((place for section in sections if (place := locate(quote, section))), None)
        if place is None:
            return None
        found.append(place)
    return tuple(found)


def _is_known(text: str, task: Task) -> bool:
    source = "\n".join([task.repository, *(f"{section.path}\n{section.text}" for section in task.sections)])
    return all((match[1] or match[2]).strip().removesuffix("()") in source for match in _NAME.finditer(text))


def _same(first: str, second: str) -> bool:
    return re.findall(r"\w+", first.lower()) == re.findall(r"\w+", second.lower())


def _plain(text: str) -> str:
    # JSON can spell half a surrogate pair, which no tokenizer takes.
    return text.encode("utf-8", "replace").decode().strip()
