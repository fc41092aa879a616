"""Questions whose answer must hold a span of the code: a value, the file that defines a name, a list of parameters.

Questions and spans are read off the code by programs, and an answer is right when the span stands in it. No model
grades. There are two sets:

- **known**: files of the training snapshot. Without passages the answer comes from memory; with them, from what a
  search over the snapshot finds, which may miss the place.
- **later**: what lines that later changes added say, and the snapshot did not. Nobody can know it, so without passages
  this is what guessing yields. With passages the right place is shown between two others: can the adapter still read
  what it never saw?
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from inhouse_retrieval import Passage, PullRequest, Repository, redact
from inhouse_retrieval.syntax import parse

from ..probes.answers import House
from ..synthesis.sources import name_words
from .completion import added_line_numbers
from .values import LEAST_VALUE, says, value_given

VALUE = "value"
PLACE = "place"
PARAMETERS = "parameters"
KINDS = (VALUE, PLACE, PARAMETERS)

_WINDOW_LINES = 16
"""As long as what the search finds."""
_LONGEST_PATH = 80
_LONGEST_PARAMETERS = 120
_HEAD_ROWS = 4
"""A definition may begin with decorators."""
_PROSE = frozenset({".adoc", ".markdown", ".md", ".mdx", ".org", ".rst", ".txt"})
_TYPE = re.compile(r"\b(?:class|enum|impl|interface|record|struct|trait|type)\s*$")
"""Before a name: what follows in parentheses are its bases."""
_HERE = re.compile(r"(?<![\w.])\./")
_TRIED = 400
"""Files that are looked at for questions; more take long and add little."""


@dataclass(frozen=True, slots=True)
class SpanQuestion:
    """A question about code.

    Attributes:
        kind: one of :data:`KINDS`.
        span: what the answer must hold.
        query: what to search for with it.
        passages: the place beside two wrong ones, where a search cannot find it.
    """

    kind: str
    question: str
    span: str
    query: str
    passages: tuple[Passage, ...] = ()


@dataclass(frozen=True, slots=True)
class Fact:
    """What a line (1-based) of a file says of a name."""

    kind: str
    name: str
    path: str
    line: int
    span: str


def known_questions(repository: Repository, snapshot: str, house: House, most: int) -> list[SpanQuestion]:
    """At most ``most`` of each kind about the files of ``snapshot``, drawn by a hash."""
    defined = Counter(name for _, name in house.definitions)
    files = [file for file in repository.snapshot(snapshot).files if len(file.path) <= _LONGEST_PATH]
    paths = sorted((file.path for file in files), key=_draw)[:_TRIED]
    texts = repository.iter_texts_at([(snapshot, path) for path in paths])
    facts = (fact for path, text in zip(paths, texts, strict=True) for fact in file_facts(path, text or ""))
    return [_asked(fact) for fact in _some_of_each(facts, defined, most, 1)]


def later_questions(
    repository: Repository, snapshot: str, changes: Sequence[PullRequest], house: House, most: int
) -> list[SpanQuestion]:
    """At most ``most`` of each kind about lines that ``changes`` added, each with three passages.

    Args:
        snapshot: the commit before them. What it says already is not asked, also where a change touched its line.
        house: what it defines.
    """
    known = {name for _, name in house.definitions}
    places = [
        (change.commit, file)
        for change in changes
        for file in change.files
        if file.patch and file.omitted_lines == 0 and len(file.path) <= _LONGEST_PATH
    ]
    texts = repository.iter_texts_at([(commit, file.path) for commit, file in places])
    before = repository.iter_texts_at([(snapshot, file.path) for _, file in places])
    windows: dict[Fact, Passage] = {}
    asked: set[tuple[str, str, str]] = set()
    for (commit, file), text, former in zip(places, texts, before, strict=True):
        added = set(added_line_numbers(file.patch))
        said = {(fact.kind, fact.name, fact.span) for fact in file_facts(file.path, former or "")}
        for fact in file_facts(file.path, text or ""):
            about = (fact.kind, fact.path, fact.name)
            # Changes come newest first, so what an older one says of the same name is no longer so.
            is_known = fact.name in known if fact.kind == PLACE else (fact.kind, fact.name, fact.span) in said
            if fact.line in added and about not in asked and not is_known:
                asked.add(about)
                windows[fact] = _window(fact, (text or "").split("\n"), commit)
    defined = Counter(fact.name for fact in windows if fact.kind == PLACE)
    chosen = _some_of_each(windows, defined, most, 3)
    return [
        replace(_asked(fact), passages=_among_others([windows[chosen[(at + step) % len(chosen)]] for step in range(3)]))
        for at, fact in enumerate(chosen)
    ]


def _some_of_each(facts: Iterable[Fact], defined: Counter[str], most: int, from_file: int) -> list[Fact]:
    """The first facts of each kind, ``from_file`` of a kind from one file, that have one right answer."""
    found: dict[str, list[Fact]] = {kind: [] for kind in KINDS}
    asked: Counter[tuple[str, str]] = Counter()
    for fact in facts:
        if fact.kind == PLACE and defined[fact.name] != 1:
            continue
        if holds_span(fact.kind, fact.span, _asked(fact).question):  # who repeats the question would be right
            continue
        if len(found[fact.kind]) < most and asked[fact.kind, fact.path] < from_file:
            asked[fact.kind, fact.path] += 1
            found[fact.kind].append(fact)
        if all(len(each) == most for each in found.values()):
            break
    return [fact for each in found.values() for fact in each]


def file_facts(path: str, text: str) -> Iterator[Fact]:
    """What can be asked about one file.

    A name that is given two values, or defined twice, is left out; so is a value's name that is indented and not in
    capitals, since it is mostly a variable of some function.
    """
    lines = text.split("\n")
    code = [] if PurePosixPath(path).suffix.lower() in _PROSE else lines
    values = [(at, *given) for at, line in enumerate(code, 1) if (given := value_given(line))]
    times = Counter(name for _, name, _ in values)
    for at, name, value in values:
        line = lines[at - 1]
        constant = name.isupper() or not line[0].isspace()
        if times[name] == 1 and constant and len(value) >= LEAST_VALUE and redact(line)[0] == line:
            yield Fact(VALUE, name, path, at, value)
    syntax = parse(path, text) if text else None
    definitions = syntax.definitions if syntax is not None else ()
    often = Counter(each.name for each in definitions)
    for each in definitions:
        # A name of one plain word says too little about which one is meant.
        if often[each.name] > 1 or len(name_words(each.name)) < 2 or not re.fullmatch(r"[\w$]+", each.name):
            continue
        yield Fact(PLACE, each.name, path, each.first + 1, path)
        for row in range(each.first, min(each.first + _HEAD_ROWS, each.last + 1)):
            if parameters := _parameters(each.name, lines[row]):
                yield Fact(PARAMETERS, each.name, path, row + 1, parameters)
                break


def _parameters(name: str, line: str) -> str:
    """What stands between the parentheses after ``name``; empty when that is not two parameters on one line."""
    match = re.search(rf"(?<![\w$.]){re.escape(name)}\s*\(([^()]*)\)", line)
    is_type = match is not None and _TYPE.search(line[: match.start()]) is not None
    inner = match[1].strip() if match and not is_type else ""
    return inner if "," in inner.rstrip(",") and len(inner) <= _LONGEST_PARAMETERS else ""


def _asked(fact: Fact) -> SpanQuestion:
    question = {
        VALUE: f"What is the value of `{fact.name}` in {fact.path}?",
        PLACE: f"Which file defines `{fact.name}`? Answer with its path.",
        PARAMETERS: f"Quote the parameter list of `{fact.name}` in {fact.path} as it stands in the code.",
    }[fact.kind]
    query = fact.name if fact.kind == PLACE else f"{fact.name} {fact.path}"
    return SpanQuestion(fact.kind, question, fact.span, query)


def _window(fact: Fact, lines: Sequence[str], commit: str) -> Passage:
    first = max(1, fact.line - _WINDOW_LINES // 2)
    last = min(len(lines), first + _WINDOW_LINES - 1)
    text = redact("\n".join(lines[first - 1 : last]))[0]
    return Passage(fact.path, first, last, text, "code", "", commit, 0.0, ())


def _among_others(passages: Sequence[Passage]) -> tuple[Passage, ...]:
    """In an order that a hash draws, so that the right one, which comes first, is in no place more often."""
    unlike = {(passage.path, passage.start_line): passage for passage in passages}
    return tuple(sorted(unlike.values(), key=lambda each: _draw(f"{passages[0].path} {each.path}:{each.start_line}")))


def _draw(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def holds_span(kind: str, span: str, text: str) -> bool:
    """Whether ``text`` holds the span: a value or a whole path by itself, parameters however they are spaced."""
    if kind == VALUE:
        return says(text, span)
    if kind == PLACE:
        return re.search(rf"(?<![\w./-]){re.escape(span)}(?![\w/-]|\.\w)", _HERE.sub("", text)) is not None
    return any(_is_whole(text[: found.start()], text[found.end() :]) for found in _spaced(span).finditer(text))


def _spaced(span: str) -> re.Pattern[str]:
    """``span`` with white space wherever there may be some."""
    return re.compile(r"\s*".join(re.escape(token) for token in re.findall(r"\w+|[^\w\s]", span)))


def _is_whole(before: str, after: str) -> bool:
    """Whether a list of parameters begins and ends between these texts, and is no part of a longer one."""
    begins = re.search(r"[\w,]$", before) is None and not before.rstrip().endswith(",")
    return begins and re.match(r"""\s*(?:,\s*)?(?:\)|[`"'.;]|\n|$)""", after) is not None
