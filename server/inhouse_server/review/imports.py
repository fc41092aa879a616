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
from typing import TYPE_CHECKING, NamedTuple

from inhouse_retrieval.syntax import Tokens, nodes_of

if TYPE_CHECKING:
    from tree_sitter import Node

    _Language = tuple[str, tuple[str, ...], Callable[[Node], Iterator["_Named"]]]
    """Which languages import from each other, the statements that do, and what reads one."""

# Each part is bounded, and no two parts that may be empty touch: hostile text must not make it backtrack.
_SCRIPT = re.compile(
    r"""^[ \t]*(?:import|export)\b(?P<names>(?:(?!\b(?:import|export|from)\b)[^;'"`=(]){0,3000})
        \bfrom[ \t]*(?P<quote>["'])(?P<module>[^"'\n]{1,300})(?P=quote)""",
    re.M | re.X,
)
_NAME_IN_LIST = re.compile(r"(?:type\s+)?(?P<name>[\w$]+)(?:\s+as\s+(?P<alias>[\w$]+))?\s*$")


class _Named(NamedTuple):
    """One name of a statement.

    Attributes:
        start, end: bytes of the module.
        own: what the module itself is called where no alias is given; ``None`` where ``name`` is one of its names.
    """

    name: str
    row: int
    start: int
    end: int
    alias: str = ""
    own: str | None = None


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name.

    Attributes:
        line: 1-based line that the statement begins on.
        name: of a package of Go, what this file calls it; ``""`` where it gives all its names to the file.
        module: as it is written.
        target: what it means, whoever writes it: a relative path is resolved.
        at: where ``module`` stands in the text, in characters.
        named: 1-based line that the name stands in; another one where a statement lists its names.
        alias: what this file calls it instead of by its own name; ``""`` where by that.
        own: what it is called without an alias; ``""`` where it has no name then.
        of_module: whether the module itself is imported, and ``name`` is what this file calls it.
    """

    line: int
    name: str
    module: str
    target: str
    at: int = 0
    named: int = 0
    alias: str = ""
    own: str = ""
    of_module: bool = False

    @property
    def subject(self) -> tuple[str, str]:
        """What is imported, whatever this file calls it: the module, and which of its names."""
        return self.target, "" if self.of_module else self.name


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
        for name, row, start, end, alias, module_name in named(node):
            module = data[start:end].decode("utf-8", "replace")
            at = start if len(data) == len(text) else len(data[:start].decode("utf-8", "replace"))
            own = name if module_name is None else module_name
            yield Import(
                node.start_point[0] + 1, name, module, _target(path, module), at, row + 1,
                "" if alias == own else alias, own, module_name is not None,
            )  # fmt: skip


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


def with_module(path: str, text: str, found: Import, module: str) -> str:
    """``text`` with the import from ``module`` instead, under the same name: a package of Go that is called otherwise
    gets an alias."""
    before, after = text[: found.at], text[found.at + len(found.module) :]
    if import_language(path) == "Go":
        begin = before.rpartition("\n")[2]
        has_alias = re.fullmatch(r"\s*(?:import\s+)?\w+\s+[\"`]", begin) and not re.match(r"\s*import\s+[\"`]", begin)
        if not has_alias and package_name(module) != found.name:
            before = f"{before[:-1]}{found.name} {before[-1]}"
    return before + module + after


def package_name(path: str) -> str:
    """What a package of Go is called by its path, as far as that tells; ``""`` where it does not."""
    last = re.sub(r"/v\d+$", "", path).rpartition("/")[2]
    name = re.sub(r"\.v\d+$|^go-|[.-]go$", "", last)
    return name if name.isidentifier() else ""


def is_used(path: str, text: str, name: str, besides: int) -> bool:
    """Whether a name means something in a file already, comments and strings and what follows a backslash left out.

    Args:
        besides: 1-based line that does not count.
    """
    if not re.search(rf"\b{re.escape(name)}\b", text):
        return False
    tokens = Tokens(path, text)
    if any((each.alias or each.own) == name and each.named != besides for each in imports(path, text)):
        return True
    return any(
        tokens.is_name(line, row, found.start(), found.end())
        for row, line in enumerate(text.split("\n"))
        if row != besides - 1
        for found in re.finditer(rf"(?<!\\)\b{re.escape(name)}\b", line)
    )


def is_defined_by(path: str, target: str) -> bool:
    """Whether ``path`` is the very module that ``target`` means, or a file of it where modules are folders."""
    if path.endswith(".go"):
        folder = posixpath.dirname(path)
        return folder != "" and (target == folder or target.endswith(f"/{folder}"))
    if "\\" in target:
        folder, parts = posixpath.dirname(path), target.split("\\")
        return any(f"/{folder}".endswith(f"/{'/'.join(below)}") for below in (parts, parts[1:]) if below)
    stem = re.sub(r"(/index|/__init__)?\.\w+$", "", path)
    return stem == target or stem.endswith(f"/{target.replace('.', '/')}") or stem == target.replace(".", "/")


def _of_python(statement: Node) -> Iterator[_Named]:
    module = statement.child_by_field_name("module_name")
    if module is None:
        return
    for imported in statement.children_by_field_name("name"):
        name = imported.child_by_field_name("name") or imported
        alias = _text(imported.child_by_field_name("alias"))
        yield _Named(_text(name), name.start_point[0], module.start_byte, module.end_byte, alias)


def _of_script(statement: Node) -> Iterator[_Named]:
    source = statement.child_by_field_name("source")
    module = source.named_children[0] if source is not None and source.named_child_count else None
    if module is None:
        return
    waiting = list(statement.named_children)
    for node in waiting:
        if node.type in ("import_specifier", "export_specifier"):
            name, alias = _text(node.child_by_field_name("name")), _text(node.child_by_field_name("alias"))
            if node.type == "export_specifier":
                alias = ""  # what others call it
            yield _Named(name, node.start_point[0], module.start_byte, module.end_byte, alias)
        elif node.type in ("import_clause", "named_imports", "export_clause"):
            waiting += node.named_children


def _of_jvm(statement: Node) -> Iterator[_Named]:
    """Java and Kotlin: a dotted name, and no ``*`` after it."""
    if any(child.type in ("asterisk", "*") for child in statement.children):
        return
    names = [child for child in statement.named_children if "identifier" in child.type]
    yield from _last_of(names[0] if names else None, ".", _text(names[1]) if len(names) > 1 else "")


def _of_scala(statement: Node) -> Iterator[_Named]:
    path = [part for part in statement.children_by_field_name("path") if part.is_named]  # dots are parts, too
    rest = [
        child
        for child in statement.named_children
        if child.type in ("namespace_selectors", "namespace_wildcard") or child.type in _RENAMED
    ]
    if not path:
        return
    start, end = path[0].start_byte, path[-1].end_byte
    if not rest and len(path) > 1:
        yield _Named(_text(path[-1]), path[-1].start_point[0], start, path[-2].end_byte)
    for selectors in rest:
        for selected in (selectors,) if selectors.type in _RENAMED else selectors.named_children:
            name, alias = selected.child_by_field_name("name"), selected.child_by_field_name("alias")
            yield _Named(_text(name or selected), selected.start_point[0], start, end, _text(alias))


_RENAMED = frozenset({"arrow_renamed_identifier", "as_renamed_identifier"})


def _of_rust(statement: Node) -> Iterator[_Named]:
    used, alias = statement.child_by_field_name("argument"), ""
    if used is None:
        return
    if used.type == "use_as_clause":
        alias = _text(used.child_by_field_name("alias"))
        used = used.child_by_field_name("path")
    listed = used.child_by_field_name("list") if used is not None else None
    if used is None or listed is None:
        yield from _last_of(used, "::", alias)
        return
    module = used.child_by_field_name("path")
    if module is None:
        return
    for each in listed.named_children:
        name = each.child_by_field_name("path") if each.type == "use_as_clause" else each
        if name is not None and name.type == "identifier":
            called = _text(each.child_by_field_name("alias"))
            yield _Named(_text(name), name.start_point[0], module.start_byte, module.end_byte, called)


def _of_go(spec: Node) -> Iterator[_Named]:
    """A package, by the name that the file calls it; none that is imported for what it does alone (``_``)."""
    path, alias = spec.child_by_field_name("path"), spec.child_by_field_name("name")
    module = path.named_children[0] if path is not None and path.named_child_count else None
    if module is None or (alias is not None and alias.type == "blank_identifier"):
        return
    own, called = package_name(_text(module)), _text(alias)
    name = "" if called == "." else called or own
    yield _Named(name, module.start_point[0], module.start_byte, module.end_byte, called, own)


def _of_php(clause: Node) -> Iterator[_Named]:
    alias = _text(clause.child_by_field_name("alias"))
    dotted = next((child for child in clause.named_children if child.type in ("qualified_name", "name")), None)
    group = clause.parent
    if dotted is None or group is None:
        return
    if group.type != "namespace_use_group":
        yield from _last_of(dotted, "\\", alias)
        return
    around = group.parent.named_children if group.parent is not None else ()
    module = next((child for child in around if child.type == "namespace_name"), None)
    if module is not None and dotted.type == "name":
        yield _Named(_text(dotted), dotted.start_point[0], module.start_byte, module.end_byte, alias)


def _of_c_sharp(directive: Node) -> Iterator[_Named]:
    """What is given a name; all names of a namespace come without being named."""
    name = directive.child_by_field_name("name")
    target = directive.named_children[-1]
    if name is not None and re.fullmatch(r"[\w.]+", _text(target)):
        yield _Named(_text(name), name.start_point[0], target.start_byte, target.end_byte, _text(name), "")


def _of_swift(declaration: Node) -> Iterator[_Named]:
    """One that names what it takes of a module, as in ``import struct House.Price``."""
    if any(child.type in _SWIFT_KINDS for child in declaration.children):
        yield from _last_of(next((each for each in declaration.named_children if each.type == "identifier"), None), ".")


_SWIFT_KINDS = frozenset({"struct", "class", "enum", "protocol", "typealias", "func", "let", "var"})


def _last_of(dotted: Node | None, separator: str, alias: str = "") -> Iterator[_Named]:
    """The last part of a dotted name, imported from what stands before it."""
    if dotted is None:
        return
    module, found, name = _text(dotted).rpartition(separator)
    if found and module and re.fullmatch(r"\w+", name):
        yield _Named(name, dotted.end_point[0], dotted.start_byte, dotted.start_byte + len(module.encode()), alias)


def _by_pattern(path: str, text: str) -> Iterator[Import]:
    for match in _SCRIPT.finditer(text):
        named = match["names"].partition("{")[2].partition("}")[0]
        line, module = text.count("\n", 0, match.start()) + 1, match["module"]
        for part in map(_NAME_IN_LIST.match, map(str.strip, named.split(","))):
            if part is not None:
                name, alias = part["name"], part["alias"] or ""
                alias = "" if alias == name or match[0].lstrip().startswith("export") else alias
                target, at = _target(path, module), match.start("module")
                yield Import(line, name, module, target, at, line, alias, name)


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
    return module.removeprefix("\\")


_SCRIPTS: _Language = "script", ("import_statement", "export_statement"), _of_script
_PYTHON: _Language = "Python", ("import_from_statement",), _of_python
_LANGUAGES: dict[str, _Language] = {
    **dict.fromkeys(("py", "pyi"), _PYTHON),
    **dict.fromkeys(("js", "jsx", "mjs", "cjs", "ts", "tsx"), _SCRIPTS),
    "java": ("JVM", ("import_declaration",), _of_jvm),
    "kt": ("JVM", ("import",), _of_jvm),
    "scala": ("JVM", ("import_declaration",), _of_scala),
    "rs": ("Rust", ("use_declaration",), _of_rust),
    "go": ("Go", ("import_spec",), _of_go),
    "php": ("PHP", ("namespace_use_clause",), _of_php),
    "cs": ("C#", ("using_directive",), _of_c_sharp),
    "swift": ("Swift", ("import_declaration",), _of_swift),
}
