"""What programs read off the code: a value, the file that defines a name, a list of parameters.

Questions are made of such facts where no model is to write or to grade: for rows
(:mod:`~inhouse_training.synthesis.lookup`) and for what is measured (:mod:`~inhouse_training.measures.spans`). So that
nothing is asked that was trained on, one file in four is kept for asking.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from inhouse_retrieval import redact, redactions_in
from inhouse_retrieval.syntax import parse

from .synthesis.sources import name_words
from .values import LEAST_VALUE, says, value_given

VALUE = "value"
PLACE = "place"
PARAMETERS = "parameters"
KINDS = (VALUE, PLACE, PARAMETERS)

_LONGEST_PARAMETERS = 120
_HEAD_ROWS = 4
"""A definition may begin with decorators."""
_PROSE = frozenset({".adoc", ".markdown", ".md", ".mdx", ".org", ".rst", ".txt"})
_TYPE = re.compile(r"\b(?:class|enum|impl|interface|record|struct|trait|type)\s*$")
"""Before a name: what follows in parentheses are its bases."""
_BEFORE_PARAMETERS = r"\s{0,9}(?:<[^<>()]*>\s{0,9})?(=\s{0,9}(?:async\s{0,9})?(?:<[^<>()]*>\s{0,9})?)?"
"""Type parameters, and what makes a name an arrow function's."""
_HERE = re.compile(r"(?<![\w.])\./")
_ASKED_OF_256 = 64


@dataclass(frozen=True, slots=True)
class Fact:
    """What a line (1-based) of a file says of a name."""

    kind: str
    name: str
    path: str
    line: int
    span: str


def is_kept_for_asking(subject: str) -> bool:
    """Whether a file (by its path) or a made-up name (in small letters) is asked about in an evaluation, and never
    trained on: one in four, by a hash."""
    digest = hashlib.sha256(f"asked\0{subject}".encode("utf-8", "surrogateescape")).digest()
    return digest[0] < _ASKED_OF_256


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
        if times[name] == 1 and constant and len(value) >= LEAST_VALUE and not _holds_secret(line):
            yield Fact(VALUE, name, path, at, value)
    syntax = parse(path, text) if text else None
    definitions = syntax.definitions if syntax is not None else ()
    often = Counter(each.name for each in definitions)
    for each in definitions:
        # A name of one plain word says too little about which one is meant.
        if often[each.name] > 1 or len(name_words(each.name)) < 2 or not re.fullmatch(r"[\w$]+", each.name):
            continue
        head = range(each.first, min(each.first + _HEAD_ROWS, each.last + 1))
        named = re.compile(rf"(?<![\w$]){re.escape(each.name)}(?![\w$])")
        for row in head:
            if named.search(lines[row]):
                yield Fact(PLACE, each.name, path, row + 1, path)
                break
        for row in head:
            if (parameters := _parameters(each.name, lines[row])) and not _holds_secret(lines[row]):
                yield Fact(PARAMETERS, each.name, path, row + 1, parameters)
                break


def _holds_secret(line: str) -> bool:
    """Whether a secret stands in ``line``, or the mark of one that was taken out: neither is to be learned or asked."""
    return redact(line)[0] != line or bool(redactions_in(line))


def _parameters(name: str, line: str) -> str:
    """What stands between the parentheses after ``name``, also of an arrow function (``const name = (a, b) =>``); empty
    when that is not two parameters on one line."""
    match = re.search(rf"(?<![\w$.]){re.escape(name)}{_BEFORE_PARAMETERS}\(([^()]*)\)(\s*(?::[^=]+)?=>)?", line)
    if match is None or (match[1] and not match[3]) or _TYPE.search(line[: match.start()]):
        return ""
    inner = match[2].strip()
    return inner if "," in inner.rstrip(",") and len(inner) <= _LONGEST_PARAMETERS else ""


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
