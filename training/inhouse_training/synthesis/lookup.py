"""Questions that a program reads off the code, in the prompt of the product: RAFT without a model that writes.

Which file defines a name, which parameters it takes, what a constant is set to: the answer is a line of the snapshot,
so question, evidence and answer are right by the way they are made. What the rows teach is less these facts, which
change, than to read: to find the passage that answers among the search's best wrong ones, quote it with its place, and
say so when none does (:mod:`~inhouse_training.synthesis.raft`).

The wordings differ from those of :mod:`~inhouse_training.measures.spans`, and the files that are asked about there are
no sources here.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, groupby, islice, zip_longest

from ..facts import KINDS, PARAMETERS, PLACE, VALUE, Fact, file_facts, holds_span, is_kept_for_asking
from .grounding import Evidence, Item
from .sources import Section

MOST = 600
"""Questions of one snapshot, of all kinds together."""
_FROM_FILE = 2
"""Of one kind about one file."""
_LONGEST_LINE = 200
"""Characters of a line that is quoted."""
_QUESTIONS = {
    VALUE: ("What is `{name}` set to in {path}?", "Which value does {path} give `{name}`?"),
    PLACE: ("Where is `{name}` defined?", "In which file do I find `{name}`?"),
    PARAMETERS: ("Which parameters does `{name}` in {path} take?", "How do I call `{name}` from {path}?"),
}
_ANSWERS = {
    VALUE: "`{name}` is `{span}`.",
    PLACE: "`{name}` is defined in `{path}`.",
    PARAMETERS: "`{name}` takes `{span}`.",
}


def lookup_items(sections: Sequence[Section], homes: Mapping[str, int], seed: int) -> list[Item]:
    """At most :data:`MOST` questions with their answers and the line that proves each, the same for the same sections
    and seed; as many of each kind as there are, up to a third, and more of those that have more.

    Args:
        sections: of the training snapshot (:func:`~inhouse_training.synthesis.sources.read_sections`).
        homes: name -> how many files of the whole snapshot define it; where more than one does, none is asked for.
    """
    found = [each for path, of in groupby(sections, key=lambda each: each.path) for each in _of_file(path, list(of))]
    found.sort(key=lambda each: _draw(each[0], seed))
    taken: Counter[tuple[str, str]] = Counter()
    kinds: dict[str, list[Item]] = {kind: [] for kind in KINDS}
    for fact, section in found:
        if fact.kind == PLACE and homes.get(fact.name, 0) != 1:
            continue
        taken[fact.kind, fact.path] += 1
        if taken[fact.kind, fact.path] <= _FROM_FILE:
            kinds[fact.kind].append(_item(fact, section, seed))
    in_turn = chain.from_iterable(zip_longest(*kinds.values()))
    return list(islice((item for item in in_turn if item is not None), MOST))


def _of_file(path: str, sections: Sequence[Section]) -> list[tuple[Fact, Section]]:
    """The facts of a file, each with the section that its line stands in."""
    # A name that is not UTF-8 is another one here than where questions for the evaluation are drawn.
    if is_kept_for_asking(path) or "\ufffd" in path or any(section.is_page for section in sections):
        return []
    lines: list[str] = []
    homes: dict[int, Section] = {}
    for section in sections:
        # Parts that are no section leave empty lines: what is given twice must be seen in the whole file.
        lines += [""] * (section.first_line - 1 - len(lines))
        homes |= dict.fromkeys(range(section.first_line, section.last_line + 1), section)
        lines += section.text.split("\n")[: section.last_line - len(lines)]
    found = [fact for fact in file_facts(path, "\n".join(lines)) if len(lines[fact.line - 1]) <= _LONGEST_LINE]
    # What its own question tells is no answer.
    told = [any(holds_span(fact.kind, fact.span, each) for each in _asked(fact)) for fact in found]
    return [(fact, homes[fact.line]) for fact, tells in zip(found, told, strict=True) if not tells]


def _asked(fact: Fact) -> list[str]:
    return [wording.format(name=fact.name, path=fact.path) for wording in _QUESTIONS[fact.kind]]


def _item(fact: Fact, section: Section, seed: int) -> Item:
    wordings = _asked(fact)
    question = wordings[_draw(fact, seed)[-1] % len(wordings)]
    answer = _ANSWERS[fact.kind].format(name=fact.name, path=fact.path, span=fact.span)
    text = section.text.split("\n")[fact.line - section.first_line].rstrip()
    evidence = Evidence(section, fact.line, fact.line, text)
    return Item(question, answer, (evidence,))


def _draw(fact: Fact, seed: int) -> bytes:
    key = f"{seed}\0{fact.kind}\0{fact.path}\0{fact.name}"
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
