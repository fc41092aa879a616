"""The names that a file imports from somewhere, in the languages that say so name by name.

From the syntax tree, so that what only reads like an import, in a string or a comment, is none. A Vue file has
no grammar here, and is read by pattern.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from inhouse_retrieval.syntax import nodes_of

if TYPE_CHECKING:
    from tree_sitter import Node

    _Named = Iterator[tuple[str, int, int, int]]
    """``(name, row that it stands in, first byte of the module, the byte after its last)``."""
    _Language = tuple[str, tuple[str, ...], Callable[[Node], _Named]]
    """Which languages import from each other, the statements that do, and what reads one."""

# Each part is bounded, and no two parts that may be empty touch: hostile text must not make it backtrack.
_SCRIPT = re.compile(
    r"""^[ \t]*(?:import|export)\b(?P<names>(?:(?!\b(?:import|export|from)\b)[^;'"`=(]){0,3000})
        \bfrom[ \t]*(?P<quote>["'])(?P<module>[^"'\n]{1,300})(?P=quote)""",
    re.M | re.X,
)
_NAME_IN_LIST = re.compile(r"(?:type\s+)?(?P<name>[\w$]+)(?:\s+as\s+[\w$]+)?\s*$")


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name.

    Attributes:
        line: 1-based line that the statement begins on.
        module: as it is written.
        target: what it means, whoever writes it: a relative path is resolved.
        at: where ``module`` stands in the text, in characters.
        named: 1-based line that the name stands in; another one where a statement lists its names.
    """

    line: int
    name: str
    module: str
    target: str
    at: int = 0
    named: int = 0


def imports(path: str, text: str) -> Iterator[Import]:
    """What the file imports, from the top. Default imports are left out: whoever imports one calls it as they like."""
    suffix = PurePosixPath(path).suffix.lower().removeprefix(".")
    if suffix == "vue":
        yield from _by_pattern(path, text)
    if suffix not in _LANGUAGES:
        return
    _, kinds, named = _LANGUAGES[suffix]
    data = text.encode("utf-8", "replace")
    for node in nodes_of(path, data, kinds):
        for name, row, start, end in named(node):
            module = data[start:end].decode("utf-8", "replace")
            at = start if len(data) == len(text) else len(data[:start].decode("utf-8", "replace"))
            yield Import(node.start_point[0] + 1, name, module, _target(path, module), at, row + 1)


def import_language(path: str) -> str:
    """Files of the same one import from each other; the suffix where imports are not read."""
    suffix = PurePosixPath(path).suffix.lower().removeprefix(".")
    return "script" if suffix == "vue" else _LANGUAGES[suffix][0] if suffix in _LANGUAGES else suffix


_ALIAS = re.compile(r"^[@~#]/")
"""What build tools of JavaScript let stand for a folder of the repository."""


def is_same_module(one: str, other: str) -> bool:
    """Whether two targets are one module: a path of the repository, and the same by an alias or by a dotted name."""
    if one == other:
        return True
    aliased = any(map(_ALIAS.match, (one, other)))
    if not aliased and "/" not in one + other:
        return False
    paths = (_ALIAS.sub("", each) if "/" in each else each.replace(".", "/") for each in (one, other))
    short, long = sorted((re.sub(r"/index$", "", path) for path in paths), key=len)
    # One word alone may be a package of that name.
    return long == short or (("/" in short or aliased) and long.endswith(f"/{short}"))


def is_defined_by(path: str, target: str) -> bool:
    """Whether ``path`` is the very module that ``target`` means."""
    stem = re.sub(r"(/index|/__init__)?\.\w+$", "", path)
    return stem == target or stem.endswith(f"/{target.replace('.', '/')}") or stem == target.replace(".", "/")


def _of_python(statement: Node) -> _Named:
    module = statement.child_by_field_name("module_name")
    if module is None:
        return
    for imported in statement.children_by_field_name("name"):
        name = imported.child_by_field_name("name") or imported
        yield _text(name), name.start_point[0], module.start_byte, module.end_byte


def _of_script(statement: Node) -> _Named:
    source = statement.child_by_field_name("source")
    module = source.named_children[0] if source is not None and source.named_child_count else None
    if module is None:
        return
    waiting = list(statement.named_children)
    for node in waiting:
        if node.type in ("import_specifier", "export_specifier"):
            name = node.child_by_field_name("name")
            yield _text(name), node.start_point[0], module.start_byte, module.end_byte
        elif node.type in ("import_clause", "named_imports", "export_clause"):
            waiting += node.named_children


def _of_jvm(statement: Node) -> _Named:
    """Java and Kotlin: a dotted name, and no ``*`` after it."""
    if any(child.type in ("asterisk", "*") for child in statement.children):
        return
    dotted = next((child for child in statement.named_children if "identifier" in child.type), None)
    yield from _last_of(dotted, ".")


def _of_scala(statement: Node) -> _Named:
    path = [part for part in statement.children_by_field_name("path") if part.is_named]  # dots are parts, too
    rest = [child for child in statement.named_children if child.type in ("namespace_selectors", "namespace_wildcard")]
    if not path:
        return
    start, end = path[0].start_byte, path[-1].end_byte
    if not rest and len(path) > 1:
        yield _text(path[-1]), path[-1].start_point[0], start, path[-2].end_byte
    for selectors in rest:
        for selected in selectors.named_children:
            yield _text(selected.child_by_field_name("name") or selected), selected.start_point[0], start, end


def _of_rust(statement: Node) -> _Named:
    used = statement.child_by_field_name("argument")
    if used is None:
        return
    if used.type == "use_as_clause":
        used = used.child_by_field_name("path")
    listed = used.child_by_field_name("list") if used is not None else None
    if used is None or listed is None:
        yield from _last_of(used, "::")
        return
    module = used.child_by_field_name("path")
    if module is None:
        return
    for each in listed.named_children:
        name = each.child_by_field_name("path") if each.type == "use_as_clause" else each
        if name is not None and name.type == "identifier":
            yield _text(name), name.start_point[0], module.start_byte, module.end_byte


def _last_of(dotted: Node | None, separator: str) -> _Named:
    """The last part of a dotted name, imported from what stands before it."""
    if dotted is None:
        return
    module, found, name = _text(dotted).rpartition(separator)
    if found and re.fullmatch(r"\w+", name):
        yield name, dotted.end_point[0], dotted.start_byte, dotted.start_byte + len(module.encode())


def _by_pattern(path: str, text: str) -> Iterator[Import]:
    for match in _SCRIPT.finditer(text):
        named = match["names"].partition("{")[2].partition("}")[0]
        line, module = text.count("\n", 0, match.start()) + 1, match["module"]
        for part in map(_NAME_IN_LIST.match, map(str.strip, named.split(","))):
            if part is not None:
                yield Import(line, part["name"], module, _target(path, module), match.start("module"), line)


def _text(node: Node | None) -> str:
    return (node.text or b"").decode("utf-8", "replace") if node is not None else ""


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


_SCRIPTS: _Language = "script", ("import_statement", "export_statement"), _of_script
_PYTHON: _Language = "Python", ("import_from_statement",), _of_python
_LANGUAGES: dict[str, _Language] = {
    **dict.fromkeys(("py", "pyi"), _PYTHON),
    **dict.fromkeys(("js", "jsx", "mjs", "cjs", "ts", "tsx"), _SCRIPTS),
    "java": ("JVM", ("import_declaration",), _of_jvm),
    "kt": ("JVM", ("import",), _of_jvm),
    "scala": ("JVM", ("import_declaration",), _of_scala),
    "rs": ("Rust", ("use_declaration",), _of_rust),
}
