"""How the house spells things: where it imports a name from, and how it writes the names of its own definitions.

Counted over the base of the change, so that a new file cannot make its own spelling usual.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from inhouse_retrieval.defined_names import DefinedName
from inhouse_retrieval.defined_names import defined_names as names_in
from inhouse_server.review.imports import Import, import_language, imports, is_defined_by, is_same_module

IMPORTED = 5
"""Imports of a name that make a spelling usual …"""
IMPORT_SHARE = 0.9
"""… when they are this share of all imports of that name."""
NAMES = 40
NAME_SHARE = 0.97
PLACES = 3

_SNAKE = re.compile(r"_*[a-z][a-z0-9]*(_[a-z0-9]+)+_*")
_CAMEL = re.compile(r"_*[a-z]+[a-z0-9]*([A-Z][a-z0-9]*)+")


@dataclass(frozen=True, slots=True)
class Usual:
    """The house's spelling, how often it stands, and where."""

    spelling: str
    count: int
    of: int
    places: tuple[tuple[str, int], ...]


@dataclass(slots=True)
class _Spellings:
    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, spelling: str, path: str, line: int) -> None:
        self.counts[spelling] += 1
        if len(self.places[spelling]) < PLACES:
            self.places[spelling].append((path, line))

    def usual(self, least: int, share: float) -> Usual | None:
        total = self.counts.total()
        spelling, count = max(self.counts.items(), key=lambda item: (item[1], item[0]), default=("", 0))
        if count < least or count < share * total:
            return None
        return Usual(spelling, count, total, tuple(self.places[spelling]))


class Conventions:
    """The spellings of one snapshot.

    Args:
        texts: ``(path, text)`` of every file of the base.
    """

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        self._imports: dict[tuple[str, str], _Spellings] = defaultdict(_Spellings)
        self._modules: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
        self._names: dict[str, _Spellings] = defaultdict(_Spellings)
        self._methods: set[tuple[str, str]] = set()
        for path, text in texts:
            language = import_language(path)
            for found in imports(path, text):
                self._imports[language, found.name].add(found.target, path, found.line)
                self._modules[language, found.name, found.target][found.module] += 1
            for defined in defined_names(path, text):
                if defined.kind == "method":
                    self._methods.add((_kind(path), defined.name))
                if style := name_style(defined.name):
                    self._names[_kind(path)].add(style, path, defined.line)

    def usual_import(self, path: str, found: Import) -> tuple[Usual, str | None] | None:
        """Where the house imports this name from instead, and how that is written; ``None`` when as here, or anyhow.

        A relative spelling depends on the file that it stands in, so it is not offered for another.
        """
        language = import_language(path)
        spellings = self._imports.get((language, found.name))
        usual = spellings.usual(IMPORTED, IMPORT_SHARE) if spellings is not None else None
        if usual is None or is_same_module(usual.spelling, found.target) or is_defined_by(path, usual.spelling):
            return None
        written, _ = self._modules[language, found.name, usual.spelling].most_common(1)[0]
        return usual, None if written.startswith(".") else written

    def usual_style(self, path: str, name: str) -> Usual | None:
        """How the house writes names in files of this kind, when this one is written otherwise."""
        style = name_style(name)
        usual = self._names[_kind(path)].usual(NAMES, NAME_SHARE) if style and _kind(path) in self._names else None
        return usual if usual is not None and usual.spelling != style else None

    def is_method(self, path: str, name: str) -> bool:
        """Whether the base has a method of this name in a file of this kind: then others call it so."""
        return (_kind(path), name) in self._methods


class DictatedNames:
    """Which methods of a change are named by others: by a base of their class that the change does not hold.

    Args:
        names: what each file of the change defines.
    """

    def __init__(self, names: Iterable[DefinedName]) -> None:
        self._bases: dict[str, set[str]] = defaultdict(set)
        for defined in names:
            if defined.kind == "class":
                # A base of the same name is another class, from elsewhere.
                self._bases[defined.name].update("" if base == defined.name else base for base in defined.bases)

    def __contains__(self, defined: object) -> bool:
        if not isinstance(defined, DefinedName) or defined.kind != "method":
            return False
        waiting, seen = list(defined.bases), set[str]()
        while waiting:
            base = waiting.pop()
            if base not in self._bases:
                return True
            if base not in seen:
                seen.add(base)
                waiting += self._bases[base]
        return False


def defined_names(path: str, text: str) -> Iterator[DefinedName]:
    """What a file of code defines, by the last part of its name."""
    if not _is_code(path):
        return
    for defined in names_in(path, text):
        last = re.split(r"\.|::|#", defined.name)[-1]
        if last.isidentifier():
            yield replace(defined, name=last)


def name_style(name: str) -> str | None:
    """``"snake_case"`` or ``"camelCase"``; ``None`` for a single word, a class or a constant, which say nothing."""
    if _SNAKE.fullmatch(name):
        return "snake_case"
    return "camelCase" if _CAMEL.fullmatch(name) else None


def _kind(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _is_code(path: str) -> bool:
    return _kind(path) in {
        ".py", ".js", ".jsx", ".ts", ".tsx", ".java", ".kt", ".go", ".rs", ".rb", ".php", ".scala", ".swift", ".cs",
    }  # fmt: skip
