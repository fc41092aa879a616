"""Questions whose answer must hold a span of the code: a value, the file that defines a name, a list of parameters.

Questions and spans are read off the code by programs, and an answer is right when the span stands in it. No model
grades. There are two sets:

- **known**: files of the training snapshot, of those that no row asks about. Without passages the answer comes from
  memory; with them, from what a search over the snapshot finds, which may miss the place.
- **later**: what lines that later changes added say, and the snapshot did not. Nobody can know it, so without passages
  this is what guessing yields. With passages the right place is shown between two others: can the adapter still read
  what it never saw?
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from inhouse_retrieval import Passage, PullRequest, Repository, redact

from ..facts import KINDS, PARAMETERS, PLACE, VALUE, Fact, file_facts, holds_span, is_kept_for_asking
from ..probes.answers import House
from .completion import added_line_numbers

_WINDOW_LINES = 16
"""As long as what the search finds."""
_LONGEST_PATH = 80
_TRIED = 400
"""Files that are looked at for questions; more take long and add little."""


@dataclass(frozen=True, slots=True)
class SpanQuestion:
    """A question about code.

    Attributes:
        kind: one of :data:`~inhouse_training.facts.KINDS`.
        span: what the answer must hold.
        query: what to search for with it.
        passages: the place beside two wrong ones, where a search cannot find it.
    """

    kind: str
    question: str
    span: str
    query: str
    passages: tuple[Passage, ...] = ()


def known_questions(repository: Repository, snapshot: str, house: House, most: int) -> list[SpanQuestion]:
    """At most ``most`` of each kind about the files of ``snapshot``, drawn by a hash."""
    defined = Counter(name for _, name in house.definitions)
    listed = (file.path for file in repository.snapshot(snapshot).files)
    paths = sorted((path for path in listed if len(path) <= _LONGEST_PATH and is_kept_for_asking(path)), key=_draw)
    paths = paths[:_TRIED]
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
    found = []
    for at, fact in enumerate(chosen):
        # Of other files where there are any: else the path that is asked for stands above each of them.
        others = [windows[each] for each in (*chosen[at + 1 :], *chosen[:at])]
        others.sort(key=lambda passage: passage.path == fact.path)
        found.append(replace(_asked(fact), passages=_among_others([windows[fact], *_of_unlike_files(others)])))
    return found


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


def _asked(fact: Fact) -> SpanQuestion:
    question = {
        VALUE: f"What is the value of `{fact.name}` in {fact.path}?",
        PLACE: f"Which file defines `{fact.name}`? Answer with its path.",
        PARAMETERS: f"Quote the parameter list of `{fact.name}` in {fact.path} as it stands in the code.",
    }[fact.kind]
    query = fact.name if fact.kind == PLACE else f"{fact.name} {fact.path}"
    return SpanQuestion(fact.kind, question, fact.span, query)


def _of_unlike_files(passages: Sequence[Passage], most: int = 2) -> list[Passage]:
    """The first passages, each of another file as long as there are such."""
    first: dict[str, Passage] = {}
    for passage in passages:
        first.setdefault(passage.path, passage)
    rest = [passage for passage in passages if first[passage.path] is not passage]
    return [*first.values(), *rest][:most]


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
