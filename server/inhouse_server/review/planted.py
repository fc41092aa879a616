"""Planted convention breaks: lines of past changes with one thing spelled as anyone would, not as the house does.

Five kinds. A helper of the house is replaced by the generic call; a name is imported from a module with a generic path;
an import is written in another form; a new name is written in the other style; an error of the
house is raised as the language's general one. Only what the code before those changes shows to be a habit is replaced,
and only where the file still parses.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inhouse_retrieval import syntax_errors
from inhouse_retrieval.convention_spans import convention_spans
from inhouse_retrieval.syntax import language
from inhouse_server.review.calibration import LINES_PER_ALARM
from inhouse_server.review.conventions import Conventions, defined_names, name_style
from inhouse_server.review.import_forms import WrittenImport, written_imports
from inhouse_server.review.imports import Import, imports, with_module
from inhouse_server.review.line_evaluation import Interval, interval_of
from inhouse_server.review.line_scores import Floats
from inhouse_server.review.wanting import JudgedChange

PlantedKind = Literal["helper", "import path", "import form", "naming", "error type"]
USED = 3
"""Uses before the change that make a helper or an error the house's."""
_RESAMPLES = 1_000

_LOGS, _ASKS, _READS, _SHOWS = "log|warn|debug|trace|report", "fetch|request|http|load|get|find", "parse|decode|read", (
    "format|render|show|display|print|string|str|text"
)  # fmt: skip
_FUNCTIONS: dict[str, dict[str, str]] = {
    "python": {_LOGS: "print", _READS: "json.loads", _SHOWS: "str", _ASKS: "getattr"},
    "typescript": {_LOGS: "console.log", _READS: "JSON.parse", _SHOWS: "String", _ASKS: "fetch"},
    "go": {_LOGS: "log.Println", _READS: "json.Unmarshal", _SHOWS: "fmt.Sprint", _ASKS: "http.Get"},
    "rust": {_LOGS: "println!", _READS: "serde_json::from_str", _SHOWS: "format!", _ASKS: "reqwest::get"},
    "java": {_LOGS: "System.out.println", _READS: "Integer.parseInt", _SHOWS: "String.valueOf", _ASKS: "Objects.get"},
    "ruby": {_LOGS: "puts", _READS: "JSON.parse", _SHOWS: "String", _ASKS: "Hash.fetch"},
}
_METHODS = {
    _LOGS: "log", _READS: "parse", _SHOWS: "format", _ASKS: "get", "set|update|write|save|store": "set",
    "create|make|build|new": "create", "add|append|push|insert|register": "add", "remove|delete|clear|drop": "remove",
    "check|assert|validate|verify|is|has": "check",
}  # fmt: skip
"""What a helper is about, by a word of its name -> what anyone would call."""
_MODULES = {
    "python": "utils.{}", "typescript": "../utils/{}", "java": "com.utils.{}", "rust": "crate::utils::{}",
    "go": "example.com/utils/{}", "php": r"Utils\{}", "c_sharp": "Utils.{}", "swift": "Utils{}",
}  # fmt: skip
_RAISES: dict[str, tuple[re.Pattern[str], str]] = {
    "python": (re.compile(r"\braise\s+(?P<error>[A-Z]\w*)\s*\("), "Exception"),
    "typescript": (re.compile(r"\bthrow\s+new\s+(?P<error>[A-Z]\w*)\s*\("), "Error"),
    "java": (re.compile(r"\bthrow\s+new\s+(?P<error>[A-Z]\w*)\s*\("), "RuntimeException"),
    "ruby": (re.compile(r"\braise\s+(?P<error>[A-Z][\w:]*)"), "StandardError"),
}
_LANGUAGES = _FUNCTIONS.keys() | _MODULES.keys() | {"cpp"}
"""Languages that breaks are planted into, each kind where it means something."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True, slots=True)
class PlantedBreak:
    """A file with one line of a change broken.

    Attributes:
        lines: the whole file, line ends and secrets left out.
        number: 1-based, of the broken line.
        was: that line before.
    """

    path: str
    lines: tuple[str, ...]
    number: int
    was: str
    kind: PlantedKind


class HouseNames:
    """What the code before a change calls, defines and raises.

    Args:
        texts: ``(path, text)`` of every file.
    """

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        held = [(path, text) for path, text in texts if language(path) in _LANGUAGES]
        self.conventions = Conventions(held)
        self._defined: set[tuple[str, str]] = set()
        self._called: Counter[tuple[str, str]] = Counter()
        self._raised: Counter[tuple[str, str]] = Counter()
        for path, text in held:
            tongue = language(path)
            self._defined.update((tongue, defined.name) for defined in defined_names(path, text))
            spans = convention_spans(path, text) or ()
            self._called.update((tongue, text[span.start : span.end]) for span in spans if span.kind == "callee")
            if tongue in _RAISES:
                self._raised.update((tongue, found["error"]) for found in _RAISES[tongue][0].finditer(text))

    def is_helper(self, tongue: str, name: str) -> bool:
        """Whether the house defines this and calls it in several places."""
        return (tongue, name) in self._defined and self._called[tongue, name] >= USED

    def is_error(self, tongue: str, name: str) -> bool:
        """Whether the house raises this in several places."""
        return self._raised[tongue, name] >= USED


def planted_breaks(judged: JudgedChange, house: HouseNames) -> list[PlantedBreak]:
    """At most one break of each kind for each file of a change; which of several is settled by their text."""
    found: list[PlantedBreak] = []
    for file in judged.change.files:
        added = set(judged.lines.get(file.path, ()))
        if not added or language(file.path) not in _LANGUAGES:
            continue
        lines = file.shown_lines
        errors = syntax_errors(file.path, "\n".join(lines)) or 0
        candidates: dict[PlantedKind, list[tuple[int, str]]] = {}
        for kind, number, broken in _candidates(file.path, lines, added, house):
            if broken != lines[number - 1]:
                candidates.setdefault(kind, []).append((number, broken))
        for kind, of_kind in candidates.items():
            for number, broken in sorted(of_kind, key=lambda each: hashlib.sha256(repr(each).encode()).digest()):
                after = (*lines[: number - 1], broken, *lines[number:])
                if (syntax_errors(file.path, "\n".join(after)) or 0) <= errors:
                    found.append(PlantedBreak(file.path, after, number, lines[number - 1], kind))
                    break
    return found


def _candidates(
    path: str, lines: Sequence[str], added: set[int], house: HouseNames
) -> Iterator[tuple[PlantedKind, int, str]]:
    """``(kind, number, the line when broken)``."""
    text, tongue = "\n".join(lines), language(path)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)

    def exchanged(number: int, begin: int, end: int, other: str) -> str:
        line, offset = lines[number - 1], starts[number - 1]
        return line[: begin - offset] + other + line[end - offset :]

    for span in convention_spans(path, text) or ():
        number = text.count("\n", 0, span.start) + 1
        name = text[span.start : span.end]
        if span.kind == "callee" and number in added and house.is_helper(tongue, name):
            method = text[: span.start].endswith((".", "::", "->"))
            generic = _generic(name, _METHODS if method else _FUNCTIONS.get(tongue, {}))
            if generic is not None and generic != name and text[span.end : span.end + 1] != "!":
                yield "helper", number, exchanged(number, span.start, span.end, generic)
    for found in imports(path, text):
        at = text.count("\n", 0, found.at) + 1
        if tongue in _MODULES and at in added and _is_usual(house.conventions, path, found):
            last = re.split(r"[./:\\]+", found.module.rstrip("/"))[-1]
            yield "import path", at, with_module(path, text, found, _MODULES[tongue].format(last)).split("\n")[at - 1]
    for written in written_imports(path, text):
        form = house.conventions.form(path, written)
        if form is None or not house.conventions.is_usual_form(form):
            continue
        if written.word == "use":
            yield from _written_out(written, lines, added)
        elif written.line in added and (other := _other_form(path, written, form.subject)) is not None:
            end = written.at + len(written.written)
            yield "import form", written.line, exchanged(written.line, written.at, end, other)
    for defined in defined_names(path, text):
        number, other = defined.line, _other_style(defined.name)
        if number in added and other is not None and house.conventions.usual_style(path, other) is not None:
            yield "naming", number, re.sub(rf"\b{re.escape(defined.name)}\b", other, lines[number - 1])
    if tongue in _RAISES:
        pattern, general = _RAISES[tongue]
        for number in added:
            raised = pattern.search(lines[number - 1])
            if raised is not None and raised["error"] != general and house.is_error(tongue, raised["error"]):
                begin, end = raised.span("error")
                line = lines[number - 1]
                yield "error type", number, line[:begin] + general + line[end:]


def _other_form(path: str, written: WrittenImport, subject: str) -> str | None:
    """An import as it is written elsewhere; ``None`` where there is no other way to write it."""
    module, folder = written.module, posixpath.dirname(path)
    match written.word:
        case "<":
            return f'"{module}"'
        case '"' if "/" in module and not module.startswith("."):
            return f"<{module}>"
        case '"':
            parent = posixpath.basename(posixpath.dirname(subject))
            return f'"{parent}/{posixpath.basename(subject)}"' if parent else None
        case "require":
            relative = posixpath.relpath(subject, folder or ".").removesuffix(".rb")
            return written.written.replace(module, relative).replace("require", "require_relative", 1)
        case "require_relative":
            root, found, below = subject.removesuffix(".rb").rpartition("lib/")
            other = written.written.replace(module, below).replace("require_relative", "require", 1)
            return other if found and (not root or root.endswith("/")) else None
        case "@testable":
            return f"import {module}"
        case "" if written.written.startswith("import"):
            return f"@testable import {module}"
    return None


def _written_out(used: WrittenImport, lines: Sequence[str], added: set[int]) -> Iterator[tuple[PlantedKind, int, str]]:
    """Added lines that name a class of PHP, with its namespace written out."""
    name = re.escape(used.module.rpartition("\\")[2])
    named = re.compile(rf"(?<=\bnew ){name}(?=\()|(?<![\\\w$>]){name}(?=::)")
    if " as " not in used.written:
        for number in sorted(added):
            line = lines[number - 1]
            yield "import form", number, named.sub(lambda _: f"\\{used.module}", line, count=1)


def _is_usual(conventions: Conventions, path: str, found: Import) -> bool:
    """Whether the house imports this name from there in so many places that it is a habit."""
    usual = conventions.usual_import(path, Import(found.line, found.name, "elsewhere", "elsewhere"))
    return usual is not None and usual[0].spelling == found.target


def _generic(name: str, table: dict[str, str]) -> str | None:
    words = {word.lower() for word in _WORD.findall(name)}
    return next((generic for about, generic in table.items() if words & set(about.split("|"))), None)


def _other_style(name: str) -> str | None:
    style = name_style(name)
    if style == "snake_case":
        first, *rest = name.split("_")
        return first + "".join(word.capitalize() for word in rest)
    if style == "camelCase":
        return "_".join(word.lower() for word in _WORD.findall(name))
    return None


@dataclass(frozen=True, slots=True)
class FoundShare:
    """Share of planted breaks above the threshold that one in so many untouched lines is above.

    Attributes:
        share: of the breaks.
        gain: over base surprisal, on the same draws.
    """

    score: str
    share: Interval
    gain: Interval


def found_shares(
    untouched: dict[str, Floats],
    requests: NDArray[np.int64],
    planted: dict[str, Floats],
    planted_requests: NDArray[np.int64],
    reference: str,
    lines_per_alarm: int = LINES_PER_ALARM,
) -> list[FoundShare]:
    """How many breaks each score finds at one false alarm in ``lines_per_alarm`` lines, with 95 % intervals from a
    bootstrap over pull requests, in which the threshold is found anew for each draw.

    Args:
        untouched, planted: score -> values of the lines as they were, and of the broken ones.
        reference: the score that the others are compared with.
    """
    count = int(max(requests.max(initial=-1), planted_requests.max(initial=-1))) + 1
    random = np.random.default_rng(3407)
    draws = np.vstack([np.ones(count), random.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)])
    found: dict[str, Floats] = {}
    for name, values in untouched.items():
        order = np.argsort(-values, kind="stable")
        shares = np.full(len(draws), np.nan)
        for number, counts in enumerate(draws):
            lines, breaks = counts[requests[order]], counts[planted_requests]
            if not lines.sum() or not breaks.sum():
                continue
            place = np.searchsorted(np.cumsum(lines), np.floor(lines.sum() / lines_per_alarm), side="right")
            limit = values[order][min(int(place), len(order) - 1)]
            shares[number] = float((breaks * (planted[name] > limit)).sum() / breaks.sum())
        found[name] = shares
    return [
        FoundShare(name, interval_of(shares), interval_of(shares - found[reference])) for name, shares in found.items()
    ]


def found_table(found: Sequence[FoundShare]) -> list[list[str]]:
    """The rows to print, a heading first."""
    rows = [["score", "planted breaks found", "over base surprisal"]]
    for each in found:
        share, gain = each.share, each.gain
        told = f"{gain.mean:+.1%} ({gain.low:+.1%} to {gain.high:+.1%})"
        rows.append([each.score, f"{share.mean:.1%} ({share.low:.1%} to {share.high:.1%})", told])
    return rows
