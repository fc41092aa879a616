"""In which form a file names another one or a class that it needs, in the languages that have several forms for it.

A header of C and C++ in quotation marks or angle brackets, by one path or another; a file of Ruby by ``require`` or
``require_relative``; a module of Swift that a test imports with ``@testable`` or without; a class of PHP by ``use`` or
written out with its namespace. What is meant is the same in either form, so the forms can be counted.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from inhouse_retrieval.reading import is_test
from inhouse_retrieval.syntax import nodes_of

if TYPE_CHECKING:
    from tree_sitter import Node

    _Written = Iterator[tuple[str, str, Node]]
    """``(word, module, node that another form would stand in place of)``."""


@dataclass(frozen=True, slots=True)
class WrittenImport:
    """One import as it stands in a file.

    Attributes:
        line: 1-based.
        word: what the form is told by, such as ``"<"``, ``"require_relative"`` or ``"use"``.
        module: as it is written.
        at: where what another form would stand in place of begins in the text, in characters.
        written: that part of the text.
    """

    line: int
    word: str
    module: str
    at: int
    written: str

    @property
    def is_class(self) -> bool:
        """Whether it is a class of PHP written out where it is used, and so has no name in the file."""
        return self.word == "\\"


@dataclass(frozen=True, slots=True)
class ImportForm:
    """What an import means, and in which form.

    Attributes:
        subject: what is imported, whoever writes it; a file of the repository by its path.
        form: as a sentence goes on: ``"required by `require`"``.
        scope: only imports with the same one compare: what is reached in which way depends on where a file lies.
    """

    subject: str
    form: str
    scope: tuple[str, ...]


class RepositoryFiles:
    """Headers and files of Ruby in a snapshot, found by how their paths end."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = frozenset(path for path in paths if _suffix(path) in _IMPORTED)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for path in self._paths:
            self._by_name[posixpath.basename(path)].append(path)

    def __contains__(self, path: str) -> bool:
        return path in self._paths

    def only(self, ending: str) -> str | None:
        """The one file whose path ends so; ``None`` where there is none, or several."""
        named = self._by_name.get(posixpath.basename(ending), ())
        found = [path for path in named if path == ending or path.endswith(f"/{ending}")]
        return found[0] if len(found) == 1 else None


def written_imports(path: str, text: str) -> Iterator[WrittenImport]:
    """The imports of a file that have several forms, from the top."""
    language = _LANGUAGES.get(_suffix(path))
    if language is None or language.mark not in text:
        return
    if language.read is _includes:
        text = _as_far_as_includes(text)
    data = text.encode("utf-8", "replace")
    for node in nodes_of(path, data, language.kinds):
        for word, module, part in language.read(path, node):
            at = part.start_byte
            at = at if len(data) == len(text) else len(data[:at].decode("utf-8", "replace"))
            yield WrittenImport(part.start_point[0] + 1, word, module, at, _text(part))


def import_form(path: str, written: WrittenImport, files: RepositoryFiles) -> ImportForm | None:
    """What an import of the file at ``path`` means; ``None`` where that cannot be told."""
    return _LANGUAGES[_suffix(path)].means(path, written, files)


def in_form(path: str, text: str, written: WrittenImport, subject: str, usual: str, as_elsewhere: str) -> str | None:
    """``written`` in the ``usual`` form; ``None`` where more than this part of the file would have to change.

    Args:
        text: of the file.
        as_elsewhere: how the usual form is written in another file.
    """
    if usual == _BY_RELATIVE_PATH:
        return f'"{posixpath.relpath(subject, posixpath.dirname(path) or ".")}"'
    if usual == _REQUIRED.format("require_relative"):
        relative = posixpath.relpath(subject, posixpath.dirname(path) or ".").removesuffix(".rb")
        before, _, after = written.written.rpartition(written.module)
        return before.replace("require", "require_relative", 1) + relative + after
    if usual == _BY_USE:  # one that is there already gives it a name
        uses = (each for each in written_imports(path, text) if each.word == "use" and each.module == subject)
        used = next(uses, None)
        return re.split(r"\\|\s", used.written)[-1] if used is not None else None
    return None if usual == _WRITTEN_OUT else as_elsewhere


_HEADERS = "h hh hpp hxx c cc cpp cxx inl"
_IMPORTED = frozenset(f"{_HEADERS} def inc ipp tpp rb".split())
_BY_RELATIVE_PATH = "included by a path relative to the file"
_REQUIRED = "required by `{}`"
_BY_USE, _WRITTEN_OUT = "imported by `use`", "written out with its namespace"


_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include\b[^\n]*\n?", re.M)
_CONDITION = re.compile(r"^[ \t]*#[ \t]*(?:(if)|endif)", re.M)


def _as_far_as_includes(text: str) -> str:
    """The text to its last header, with what is open closed: files of C are long, and nothing else of them is read."""
    end = max((found.end() for found in _INCLUDE.finditer(text)), default=0)
    opened = sum(1 if found[1] else -1 for found in _CONDITION.finditer(text, 0, end))
    return text[:end] + "\n#endif" * opened + "\n"


def _includes(path: str, include: Node) -> _Written:
    header = include.child_by_field_name("path")
    if header is not None and header.type in ("string_literal", "system_lib_string"):
        yield _text(header)[:1], _text(header)[1:-1], header


def _header(path: str, written: WrittenImport, files: RepositoryFiles) -> ImportForm | None:
    """A path in quotation marks begins at the file's own folder, then, like one in angle brackets, at those that the
    compiler is told."""
    folder, named = posixpath.dirname(path), written.module
    beside = posixpath.normpath(posixpath.join(folder, named))
    form = f"included as `{written.written}`"
    if written.word == '"' and beside in files:
        subject = beside
        if "." in named.split("/") or ".." in named.split("/") or posixpath.dirname(beside) == folder:
            form = _BY_RELATIVE_PATH
    elif ".." in named.split("/"):
        return None
    else:
        found = files.only(named)
        # `<time.h>` is the system's, whatever file of that name lies somewhere.
        own = found is not None and (
            "/" in named or written.word == '"' or posixpath.basename(posixpath.dirname(found)) == "include"
        )
        subject = found if found is not None and own else named
    return ImportForm(subject, form, (*_place(path), str(posixpath.dirname(subject) == folder)))


def _requires(path: str, call: Node) -> _Written:
    method, arguments = call.child_by_field_name("method"), call.child_by_field_name("arguments")
    if _text(method) not in ("require", "require_relative") or call.child_by_field_name("receiver") is not None:
        return
    given = arguments.named_children if arguments is not None else []
    if len(given) == 1 and given[0].type == "string" and [part.type for part in given[0].named_children] == [
        "string_content"
    ]:  # fmt: skip
        yield _text(method), _text(given[0].named_children[0]), call


_LOAD_PATH = re.compile(r"(?:.*/)?(?:lib|spec|test)/")
"""Folders that Ruby is told to look in, as gems and their tests have them."""


def _required_file(path: str, written: WrittenImport, files: RepositoryFiles) -> ImportForm | None:
    named = written.module if written.module.endswith(".rb") else f"{written.module}.rb"
    if written.word == "require_relative":
        subject = posixpath.normpath(posixpath.join(posixpath.dirname(path), named))
        found = subject if subject in files else None
    else:
        found = files.only(named)
        if found is None or not _LOAD_PATH.fullmatch(found.removesuffix(named)):
            return None
    return ImportForm(found, _REQUIRED.format(written.word), _place(path)) if found is not None else None


def _test_imports(path: str, declaration: Node) -> _Written:
    module = next((child for child in declaration.named_children if child.type == "identifier"), None)
    attributes = [_text(child) for child in declaration.named_children if child.type == "modifiers"]
    # Elsewhere than in tests a module's own names cannot be had; a kind names what is taken of it.
    plain = [child.type for child in declaration.children if child.type != "modifiers"] == ["import", "identifier"]
    if is_test(path) and plain and module is not None and attributes in ([], ["@testable"]):
        yield "@testable" if attributes else "", _text(module), declaration


def _module(path: str, written: WrittenImport, files: RepositoryFiles) -> ImportForm:
    return ImportForm(written.module, f"imported {'with' if written.word else 'without'} `@testable`", ())


_CLASS_USES = frozenset(
    {
        "attribute", "base_clause", "class_constant_access_expression", "class_interface_clause", "named_type",
        "object_creation_expression", "scoped_call_expression", "scoped_property_access_expression",
    }
)  # fmt: skip
"""Where a name of PHP is that of a class; elsewhere it may be a function's or a constant's."""


def _classes(path: str, node: Node) -> _Written:
    parent = node.parent
    if node.type == "namespace_use_clause":
        name = next((child for child in node.named_children if child.type in ("qualified_name", "name")), None)
        is_class = (
            parent is not None and parent.type == "namespace_use_declaration" and not node.child_by_field_name("type")
        )
        if name is not None and is_class:
            yield "use", _text(name).removeprefix("\\"), node
    elif _text(node).startswith("\\") and parent is not None:
        is_class = parent.type in _CLASS_USES or _text(parent.child_by_field_name("operator")) == "instanceof"
        if is_class:
            yield "\\", _text(node).removeprefix("\\"), node


def _class(path: str, written: WrittenImport, files: RepositoryFiles) -> ImportForm:
    return ImportForm(written.module, _BY_USE if written.word == "use" else _WRITTEN_OUT, (str(is_test(path)),))


def _place(path: str) -> tuple[str, str]:
    """The folder at the root, which may have ways of its own, and whether the file is a test."""
    return path.partition("/")[0] if "/" in path else "", str(is_test(path))


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower().removeprefix(".")


def _text(node: Node | None) -> str:
    return (node.text or b"").decode("utf-8", "replace") if node is not None else ""


@dataclass(frozen=True, slots=True)
class _Language:
    """How imports of a language are read.

    Attributes:
        mark: a file without it has none.
    """

    mark: str
    kinds: tuple[str, ...]
    read: Callable[[str, Node], _Written]
    means: Callable[[str, WrittenImport, RepositoryFiles], ImportForm | None]


_LANGUAGES = {
    **dict.fromkeys(_HEADERS.split(), _Language("include", ("preproc_include",), _includes, _header)),
    "rb": _Language("require", ("call",), _requires, _required_file),
    "swift": _Language("import", ("import_declaration",), _test_imports, _module),
    "php": _Language("\nnamespace ", ("namespace_use_clause", "qualified_name"), _classes, _class),
}
