"""How the house spells things: where it imports a name from, and how it writes the names of its own definitions.

Counted over the base of the change, so that a new file cannot make its own spelling usual.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from inhouse_retrieval.outline import outline

IMPORTED = 5
"""Imports of a name that make a spelling usual …"""
IMPORT_SHARE = 0.9
"""… when they are this share of all imports of that name."""
NAMES = 40
NAME_SHARE = 0.97
PLACES = 3

# Each part is bounded, and no two parts that may be empty touch: hostile text must not make them backtrack.
_PYTHON = re.compile(
    r"^[ \t]*from[ \t]+(?P<module>[\w.]{1,300})[ \t]+import[ \t]+(?P<names>\([^()]{0,5000}\)|[^\n#(]{1,500})", re.M
)
_SCRIPT = re.compile(
    r"""^[ \t]*(?:import|export)\b(?P<names>(?:(?!\b(?:import|export|from)\b)[^;'"`=(]){0,3000})
        \bfrom[ \t]*(?P<quote>["'])(?P<module>[^"'\n]{1,300})(?P=quote)""",
    re.M | re.X,
)
_JVM = re.compile(r"^[ \t]*import[ \t]+(?:static[ \t]+)?(?P<module>[\w.]+)\.(?P<names>\w+)[ \t]*;?[ \t]*$", re.M)
_RUST = re.compile(r"^[ \t]*(?:pub[ \t]+)?use[ \t]+(?P<module>[\w:]+)::(?P<names>\w+)[ \t]*;", re.M)
_LANGUAGES: dict[str, tuple[str, re.Pattern[str]]] = {
    "py": ("Python", _PYTHON), "pyi": ("Python", _PYTHON),
    "js": ("script", _SCRIPT), "jsx": ("script", _SCRIPT), "mjs": ("script", _SCRIPT), "cjs": ("script", _SCRIPT),
    "ts": ("script", _SCRIPT), "tsx": ("script", _SCRIPT), "vue": ("script", _SCRIPT),
    "java": ("JVM", _JVM), "kt": ("JVM", _JVM), "scala": ("JVM", _JVM), "rs": ("Rust", _RUST),
}  # fmt: skip
_SNAKE = re.compile(r"_*[a-z][a-z0-9]*(_[a-z0-9]+)+_*")
_CAMEL = re.compile(r"_*[a-z]+[a-z0-9]*([A-Z][a-z0-9]*)+")
_NAME_IN_LIST = re.compile(r"(?:type\s+)?(?P<name>[\w$]+)(?:\s+as\s+[\w$]+)?\s*$")


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name.

    Attributes:
        line: 1-based line that the statement begins on.
        module: as it is written.
        target: what it means, whoever writes it: a relative path is resolved.
        at: where ``module`` stands in the text, in characters.
    """

    line: int
    name: str
    module: str
    target: str
    at: int = 0


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
        for path, text in texts:
            language = _language(path)
            for found in imports(path, text):
                self._imports[language, found.name].add(found.target, path, found.line)
                self._modules[language, found.name, found.target][found.module] += 1
            for line, name in defined_names(path, text):
                if style := name_style(name):
                    self._names[_kind(path)].add(style, path, line)

    def usual_import(self, path: str, found: Import) -> tuple[Usual, str | None] | None:
        """Where the house imports this name from instead, and how that is written; ``None`` when as here, or anyhow.

        A relative spelling depends on the file that it stands in, so it is not offered for another.
        """
        language = _language(path)
        spellings = self._imports.get((language, found.name))
        usual = spellings.usual(IMPORTED, IMPORT_SHARE) if spellings is not None else None
        if usual is None or usual.spelling == found.target or is_defined_by(path, usual.spelling):
            return None
        written, _ = self._modules[language, found.name, usual.spelling].most_common(1)[0]
        return usual, None if written.startswith(".") else written

    def usual_style(self, path: str, name: str) -> Usual | None:
        """How the house writes names in files of this kind, when this one is written otherwise."""
        style = name_style(name)
        usual = self._names[_kind(path)].usual(NAMES, NAME_SHARE) if style and _kind(path) in self._names else None
        return usual if usual is not None and usual.spelling != style else None


def imports(path: str, text: str) -> Iterator[Import]:
    """The names that a file imports from somewhere, in the languages that say so name by name."""
    suffix = PurePosixPath(path).suffix.lower().removeprefix(".")
    if suffix not in _LANGUAGES:
        return
    for match in _LANGUAGES[suffix][1].finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        module = match["module"]
        named = match["names"] or ""
        if "{" in named:
            named = named.partition("{")[2].partition("}")[0]
        elif _LANGUAGES[suffix][0] == "script":
            named = ""  # a default import has whatever name the importer likes
        parts = (_NAME_IN_LIST.match(part.split("#")[0].strip()) for part in named.strip("()").split(","))
        for name in (part["name"] for part in parts if part is not None):
            yield Import(line, name, module, _target(path, module), match.start("module"))


def defined_names(path: str, text: str) -> Iterator[tuple[int, str]]:
    """``(line, name)`` of what a file of code defines; 1-based."""
    if not _is_code(path):
        return
    for row, name in outline(path, text.split("\n")).definitions.items():
        last = re.split(r"\.|::|#", name)[-1]
        if last.isidentifier():
            yield row + 1, last


def name_style(name: str) -> str | None:
    """``"snake_case"`` or ``"camelCase"``; ``None`` for a single word, a class or a constant, which say nothing."""
    if _SNAKE.fullmatch(name):
        return "snake_case"
    return "camelCase" if _CAMEL.fullmatch(name) else None


def _target(path: str, module: str) -> str:
    if module.startswith((".", "/")) and PurePosixPath(path).suffix.startswith(".py"):
        dots = len(module) - len(module.lstrip("."))
        folder = PurePosixPath(path).parent
        for _ in range(dots - 1):
            folder = folder.parent
        return posixpath.join(str(folder), *module[dots:].split(".")).removesuffix("/")
    if module.startswith("."):
        resolved = posixpath.normpath(posixpath.join(posixpath.dirname(path), module))
        return re.sub(r"(/index)?(\.[cm]?[jt]sx?)?$", "", resolved)
    return module


def is_defined_by(path: str, target: str) -> bool:
    """Whether ``path`` is the very module that ``target`` means."""
    stem = re.sub(r"(/index|/__init__)?\.\w+$", "", path)
    return stem == target or stem.endswith(f"/{target.replace('.', '/')}") or stem == target.replace(".", "/")


def _language(path: str) -> str:
    suffix = PurePosixPath(path).suffix.lower().removeprefix(".")
    return _LANGUAGES[suffix][0] if suffix in _LANGUAGES else suffix


def _kind(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _is_code(path: str) -> bool:
    return _kind(path) in {
        ".py", ".js", ".jsx", ".ts", ".tsx", ".java", ".kt", ".go", ".rs", ".rb", ".php", ".scala", ".swift", ".cs",
    }  # fmt: skip
