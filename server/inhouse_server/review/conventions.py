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
from inhouse_retrieval.reading import is_test
from inhouse_server.review.import_forms import (
    ImportForm,
    RepositoryFiles,
    WrittenImport,
    import_form,
    in_form,
    written_imports,
)
from inhouse_server.review.imports import Import, import_language, imports, is_defined_by, is_same_module, is_used
from inhouse_server.review.raised import raised_errors

IMPORTED = 5
"""Imports of a name that make a spelling usual …"""
IMPORT_SHARE = 0.9
"""… when they are this share of all imports of that name."""
NAMES = 40
NAME_SHARE = 0.97
RAISED = 30
"""Errors raised outside of tests that show a habit …"""
RAISED_SHARE = 0.95
"""… when this share of them is not of the language's general kind."""
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
        self._own: Counter[tuple[str, str, str]] = Counter()
        self._aliases: dict[tuple[str, str, str], _Spellings] = defaultdict(_Spellings)
        self._raised: dict[str, _Spellings] = defaultdict(_Spellings)
        self._general: Counter[str] = Counter()
        self._classes: set[tuple[str, str]] = set()
        written: list[tuple[str, WrittenImport]] = []
        paths: list[str] = []
        for path, text in texts:
            language = import_language(path)
            paths.append(path)
            written += ((path, found) for found in written_imports(path, text))
            for found in imports(path, text):
                if found.name:
                    self._imports[language, found.name].add(found.target, path, found.line)
                    self._modules[language, found.name, found.target][found.module] += 1
                if found.alias:
                    self._aliases[language, *found.subject].add(found.alias, path, found.line)
                else:
                    self._own[language, *found.subject] += 1
            for raised in () if is_test(path) else raised_errors(path, text):
                if raised.is_general:
                    self._general[language] += 1
                else:
                    self._raised[language].add(raised.name, path, raised.line)
            for defined in defined_names(path, text):
                if defined.kind == "class":
                    self._classes.add((language, defined.name))
                if defined.kind == "method":
                    self._methods.add((_kind(path), defined.name))
                if style := name_style(defined.name):
                    self._names[_kind(path)].add(style, path, defined.line)
        self._files = RepositoryFiles(paths)
        self._forms: dict[tuple[str, tuple[str, ...]], _Spellings] = defaultdict(_Spellings)
        self._written: dict[tuple[str, str], str] = {}
        counted: set[tuple[str, str, str]] = set()
        for path, each in written:
            form = import_form(path, each, self._files)
            if form is not None and (path, form.subject, form.form) not in counted:
                counted.add((path, form.subject, form.form))
                self._forms[form.subject, form.scope].add(form.form, path, each.line)
                self._written.setdefault((form.subject, form.form), each.written)

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

    def usual_alias(self, path: str, found: Import, text: str) -> Usual | None:
        """What the house calls what is imported here, ``""`` where by its own name; ``None`` when it does so here.

        ``None`` also where that name already means something in the file, which is what aliases are for.
        """
        usual = self._usual_alias(path, found)
        if usual is None or usual.spelling == found.alias or found.own == "default" or found.alias == "_":
            return None
        name = usual.spelling or found.own
        if usual.spelling not in ("_", ".") and (not name or is_used(path, text, name, found.named)):
            return None
        if usual.spelling:
            return usual
        aliased = self._aliases.get((import_language(path), *found.subject), _Spellings()).places.values()
        named = self._imports.get((import_language(path), found.own), _Spellings()).places.get(found.target, ())
        return replace(usual, places=tuple(place for place in named if not any(place in places for places in aliased)))

    def _usual_alias(self, path: str, found: Import) -> Usual | None:
        key = (import_language(path), *found.subject)
        aliases = self._aliases.get(key, _Spellings())
        return replace(aliases, counts=aliases.counts + Counter({"": self._own[key]})).usual(IMPORTED, IMPORT_SHARE)

    def form(self, path: str, written: WrittenImport) -> ImportForm | None:
        """What an import means, and in which form; ``None`` where that cannot be told."""
        return import_form(path, written, self._files)

    def usual_form(
        self, path: str, text: str, written: WrittenImport, form: ImportForm
    ) -> tuple[Usual, str | None] | None:
        """The form in which the house names this instead, and this import in it; ``None`` when it is that one.

        ``None`` also where the name that it would get already means something in the file.
        """
        usual = self._usual_form(form)
        if usual is None or usual.spelling == form.form:
            return None
        as_elsewhere = self._written[form.subject, usual.spelling]
        instead = in_form(path, text, written, form.subject, usual.spelling, as_elsewhere)
        is_taken = instead is None and written.is_class and is_used(path, text, form.subject.rpartition("\\")[2], 0)
        return None if is_taken else (usual, instead)

    def is_usual_form(self, form: ImportForm) -> bool:
        """Whether the house names this in this form."""
        usual = self._usual_form(form)
        return usual is not None and usual.spelling == form.form

    def _usual_form(self, form: ImportForm) -> Usual | None:
        spellings = self._forms.get((form.subject, form.scope))
        return spellings.usual(IMPORTED, IMPORT_SHARE) if spellings is not None else None

    def usual_style(self, path: str, name: str) -> Usual | None:
        """How the house writes names in files of this kind, when this one is written otherwise."""
        style = name_style(name)
        usual = self._names[_kind(path)].usual(NAMES, NAME_SHARE) if style and _kind(path) in self._names else None
        return usual if usual is not None and usual.spelling != style else None

    def usual_error(self, path: str) -> Usual | None:
        """The error that is raised most in files of this language, of the house's own if it has any, with how many are
        as specific as it, where few are of the general kind; ``None`` in tests."""
        language = import_language(path)
        if is_test(path) or language not in self._raised:
            return None
        spellings, general = self._raised[language], self._general[language]
        specific = spellings.counts.total()
        if specific + general < RAISED or specific < RAISED_SHARE * (specific + general):
            return None
        name = max(spellings.counts, key=lambda each: ((language, each) in self._classes, spellings.counts[each], each))
        return Usual(name, specific, specific + general, tuple(spellings.places[name]))

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
