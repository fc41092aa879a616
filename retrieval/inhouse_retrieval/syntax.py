"""What a parser sees in a file: its definitions, and how deep inside of them each line lies.

The grammars are wheels of their own, so nothing is fetched at run time. They tolerate errors: a file that is being
edited is read as far as it makes sense.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import zip_longest
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Node, Parser, Query


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_GRAMMARS: dict[str, tuple[str, str]] = {
    suffix: (module, function)
    for module, function, suffixes in (
        ("bash", "language", "sh bash zsh"),
        ("c", "language", "c h"),
        ("c_sharp", "language", "cs"),
        ("cpp", "language", "cc cpp cxx hh hpp hxx inl ino"),
        ("css", "language", "css"),
        ("elixir", "language", "ex exs"),
        ("go", "language", "go"),
        ("html", "language", "html htm"),
        ("java", "language", "java"),
        ("javascript", "language", "js jsx mjs cjs"),
        ("json", "language", "json jsonc webmanifest"),
        ("kotlin", "language", "kt kts"),
        ("lua", "language", "lua"),
        ("markdown", "language", "md markdown mdx"),
        ("php", "language_php", "php"),
        ("python", "language", "py pyi pyw"),
        ("ruby", "language", "rb rake gemspec"),
        ("rust", "language", "rs"),
        ("scala", "language", "scala sbt sc"),
        ("sql", "language", "sql"),
        ("swift", "language", "swift"),
        ("toml", "language", "toml"),
        ("typescript", "language_tsx", "tsx"),
        ("typescript", "language_typescript", "ts mts cts"),
        ("yaml", "language", "yaml yml"),
    )
    for suffix in suffixes.split()
}

_NAMED = _words(
    "abstract_class_declaration annotation_type_declaration class class_declaration class_definition "
    "const_item constructor_declaration delegate_declaration enum_declaration enum_definition enum_item "
    "function_declaration function_definition function_item init_declaration interface_declaration "
    "internal_module local_function_statement macro_definition method method_declaration "
    "method_definition mod_item module namespace_declaration namespace_definition object_declaration "
    "object_definition preproc_function_def protocol_declaration record_declaration singleton_method "
    "static_item struct_declaration struct_item trait_declaration trait_definition trait_item "
    "type_alias_declaration type_item type_spec union_item"
)
"""Nodes that define what their field ``name`` holds."""
_WITH_BODY = frozenset(["class_specifier", "enum_specifier", "struct_specifier", "union_specifier"])
"""The same, unless they only mention what is defined elsewhere."""
_BOUND = _words("field_definition public_field_definition var_spec variable_declarator")
"""Names bound to a value, which count when the value is a function or takes some lines."""
_CREATES = _words("create_function create_index create_schema create_table create_trigger create_type create_view")
_KEYED = _words("block_mapping_pair pair")
_FUNCTIONS = _words("arrow_function func_literal function function_definition function_expression")
SCOPES = _FUNCTIONS | _words(
    "closure_expression constructor_declaration function_declaration function_item generator_function "
    "generator_function_declaration lambda lambda_expression local_function_statement method method_declaration "
    "method_definition"
)
"""Functions: what is defined in one means nothing outside of it."""
_SUITES = _words("context describe it suite test")
"""Calls whose first argument says what a test is about."""
_ELIXIR = _words("def defmacro defmodule defp defprotocol")
_WRAPPERS = _words(
    "const_declaration decorated_definition export_statement expression_statement lexical_declaration "
    "statement template_declaration type_declaration var_declaration variable_declaration"
)
"""Around a definition: looked into even on a single line, and part of the definition when they begin with it."""
_LONGEST_NAME = 60
_NO_CODE = ("comment", "string", "heredoc", "char_literal", "jsx_text", "regex")
_CODE_IN_STRING = ("interpolat", "substitution", "expansion")


@dataclass(frozen=True, slots=True)
class Definition:
    """Rows ``first`` to ``last`` (0-based, inclusive) define ``name``; decorators and the like are part of them."""

    name: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Syntax:
    """What was parsed of one file.

    Attributes:
        definitions: outer ones before those inside of them.
        depths: for each row, how many nodes a cut above it would go through.
    """

    definitions: tuple[Definition, ...]
    depths: tuple[int, ...]


def parse(path: str, text: str) -> Syntax | None:
    """What the grammar for this kind of file sees in ``text``; ``None`` when there is no grammar for it."""
    parser = parser_of(PurePosixPath(path).suffix.lower().removeprefix("."))
    if parser is None:
        return None
    rows = text.count("\n") + 1
    through = [0] * (rows + 1)
    found: list[Definition] = []
    for node, first, seen in _walk(parser.parse(text.encode()).root_node):
        last = _last_row(node)
        if last > node.start_point[0] and not seen:
            through[node.start_point[0] + 1] += 1
            through[min(last, rows - 1) + 1] -= 1
        name = name_of(node)
        if name:
            found.append(Definition(" ".join(name.split())[:_LONGEST_NAME], first, min(last, rows - 1)))
    depths, depth = [], 0
    for row in range(rows):
        depth += through[row]
        depths.append(depth)
    return Syntax(tuple(found), tuple(depths))


def syntax_errors(path: str, text: str) -> int | None:
    """Places of ``text`` that the grammar for this kind of file cannot read; ``None`` when there is no grammar."""
    parser = parser_of(PurePosixPath(path).suffix.lower().removeprefix("."))
    if parser is None:
        return None
    found = 0
    waiting = [parser.parse(text.encode("utf-8", "replace")).root_node]
    while waiting:
        node = waiting.pop()
        found += node.is_error or node.is_missing
        if node.has_error:
            waiting.extend(node.children)
    return found


def is_same_code(path: str, text: str, other: str) -> bool | None:
    """Whether two texts differ in nothing but layout: the same tree of the same words, quotation marks, semicolons and
    commas before a closing bracket aside. ``None`` when there is no grammar for this kind of file."""
    parser = parser_of(PurePosixPath(path).suffix.lower().removeprefix("."))
    if parser is None:
        return None
    return all(one == two for one, two in zip_longest(*(_code_of(parser, each) for each in (text, other))))


def _code_of(parser: Parser, text: str) -> Iterator[tuple[int, str, bytes]]:
    """How deep each node lies, outer ones first, its kind, and the text of it that no node within it has."""
    data = text.encode("utf-8", "replace")
    comma = False  # one counts unless a closing bracket comes next
    waiting = [(0, parser.parse(data).root_node)]
    while waiting:
        depth, node = waiting.pop()
        waiting.extend((depth + 1, child) for child in reversed(node.children))
        ends = [node.start_byte, *(child.end_byte for child in node.children)]
        starts = [*(child.start_byte for child in node.children), node.end_byte]
        parts = [data[end:start] for end, start in zip(ends, starts, strict=True)]
        words = b"".join(part for part in parts if part.strip())
        if comma and words not in (b")", b"]", b"}"):
            yield depth, ",", b","
        comma = words == b","
        if words in (b",", b";"):
            continue
        is_quote = words != b"" and words.strip(b"'\"") == b""
        yield (depth, "quote", words.replace(b"'", b'"')) if is_quote else (depth, node.type, words)


def nodes_of(path: str, data: bytes, kinds: tuple[str, ...]) -> list[Node]:
    """The nodes of these kinds in a text, as UTF-8, in the order in which they begin; none without a grammar for it."""
    from tree_sitter import QueryCursor

    suffix = PurePosixPath(path).suffix.lower().removeprefix(".")
    root = root_of(suffix, data)
    if root is None:
        return []
    found = QueryCursor(_query(suffix, kinds)).captures(root)
    return sorted(found.get("found", ()), key=lambda node: node.start_byte)


@functools.lru_cache(maxsize=1)
def root_of(suffix: str, data: bytes) -> Node | None:
    """The tree of a text, as UTF-8; ``None`` when there is no grammar for files with this ending. The last one is kept,
    since several questions are asked of one file after the other."""
    parser = parser_of(suffix)
    return parser.parse(data).root_node if parser is not None else None


@functools.cache
def _query(suffix: str, kinds: tuple[str, ...]) -> Query:
    from tree_sitter import Query

    parser = parser_of(suffix)
    assert parser is not None and parser.language is not None, "it was just parsed with"
    return Query(parser.language, f"[{' '.join(f'({kind})' for kind in kinds)}] @found")


class Tokens:
    """Tells names from keywords, comments and strings in one text. Without a grammar for it, all words are names."""

    def __init__(self, path: str, text: str) -> None:
        self.has_grammar = has_grammar(path)
        parser = parser_of(PurePosixPath(path).suffix.lower().removeprefix("."))
        self._root = parser.parse(text.encode("utf-8", "replace")).root_node if parser is not None else None

    def is_name(self, line: str, row: int, start: int, end: int) -> bool:
        """Whether characters ``start`` to ``end`` of ``line``, which is row ``row`` (0-based), are a name."""
        if self._root is None:
            return True
        node = self._at(line, row, start, end)
        if node is None or not node.is_named:
            return False
        # Grammars name `this`, `null` and the like after themselves.
        if node.type == line[start:end].lower() and "identifier" not in node.type:
            return False
        inner: Node | None = node
        while inner is not None and not any(kind in inner.type for kind in _CODE_IN_STRING):
            if any(kind in inner.type for kind in _NO_CODE):
                return False
            inner = inner.parent
        return True

    def definition(self, line: str, row: int, start: int, end: int) -> Definition | None:
        """The innermost named definition that the name there is part of: its own, or the one that mentions it."""
        node = self._at(line, row, start, end)
        while node is not None and not (name := name_of(node)):
            node = node.parent
        if node is None:
            return None
        outer = node
        while outer.parent is not None and outer.parent.type in _WRAPPERS:
            outer = outer.parent
        return Definition(" ".join(name.split())[:_LONGEST_NAME], outer.start_point[0], _last_row(node))

    def scope(self, line: str, row: int, start: int, end: int) -> tuple[int, int] | None:
        """First and last row between which the name there means what is defined there; ``None`` when it does anywhere.

        That is the innermost function around the definition. The scope of an object's key is empty: in code, most words
        that read like one are something else.
        """
        node = self._at(line, row, start, end)
        if node is None:
            return None
        owner = node.parent
        if owner is not None and owner.type in _KEYED:
            return row + 1, row
        # The first parent is the definition itself, or the declarator inside of it.
        around = owner.parent if owner is not None else None
        while around is not None and around.type.endswith("declarator"):
            around = around.parent
        if around is not None and around.child_by_field_name("declarator") is not None:
            around = around.parent
        while around is not None:
            if around.type in SCOPES:
                return around.start_point[0], around.end_point[0]
            around = around.parent
        return None

    def _at(self, line: str, row: int, start: int, end: int) -> Node | None:
        """The smallest node over these characters, when it ends with them."""
        if self._root is None:
            return None
        first, last = ((row, len(line[:at].encode("utf-8", "replace"))) for at in (start, end))
        node = self._root.descendant_for_point_range(first, last)
        return node if node is not None and node.end_point == last else None


def language(path: str) -> str:
    """What files of this name are written in: the name of their grammar, else their suffix. JavaScript counts as
    TypeScript and C as C++, since they use each other's definitions."""
    suffix = PurePosixPath(path).suffix.lower().removeprefix(".")
    module, _ = _GRAMMARS.get(suffix, (suffix, ""))
    return {"javascript": "typescript", "c": "cpp"}.get(module, module)


def has_grammar(path: str) -> bool:
    """Whether there is a grammar for files of this name; others are cut by headings and indentation."""
    return PurePosixPath(path).suffix.lower().removeprefix(".") in _GRAMMARS


@functools.cache
def parser_of(suffix: str) -> Parser | None:
    """The parser for files with this ending, without its dot; ``None`` when there is no grammar for them."""
    if suffix not in _GRAMMARS:
        return None
    from tree_sitter import Language, Parser

    module, function = _GRAMMARS[suffix]
    return Parser(Language(getattr(import_module(f"tree_sitter_{module}"), function)()))


def _walk(root: Node) -> Iterator[tuple[Node, int, bool]]:
    """Nodes of several rows and what lies directly in them, outer ones first.

    With each comes the row at which it begins, its wrapper included, and whether its parent has the same rows.
    """
    pending = [(root, root.start_point[0], True)]
    while pending:
        node, first, seen = pending.pop()
        yield node, first, seen
        begins, last = node.start_point[0], _last_row(node)
        wraps = node.type in _WRAPPERS
        for child in reversed(inner_nodes(node)):
            row = child.start_point[0]
            same = row == begins and _last_row(child) == last
            pending.append((child, first if wraps else row, same))


def inner_nodes(node: Node) -> Sequence[Node]:
    """The children that definitions are looked for in: none of a node on a single row, unless it wraps a definition."""
    several_rows = _last_row(node) > node.start_point[0]
    return node.named_children if several_rows or node.type in _WRAPPERS else ()


def _last_row(node: Node) -> int:
    """The last row that holds something of ``node``: many grammars let a node end at the start of the next row."""
    row, column = node.end_point
    return row - 1 if column == 0 and row > node.start_point[0] else row


def name_of(node: Node) -> str:
    """What ``node`` defines; empty when it defines nothing worth a name."""
    kind = node.type
    if kind in _NAMED:
        return _text(node.child_by_field_name("name")) or _declared(node)
    if kind in _WITH_BODY:
        return _text(node.child_by_field_name("name")) if node.child_by_field_name("body") else ""
    if kind in _BOUND:
        return _bound(node)
    rule = _RULES.get(kind)
    if rule is not None:
        return rule(node)
    if kind in _CREATES:
        return _text(_child(node, "object_reference"))
    if kind in _KEYED and node.end_point[0] > node.start_point[0]:
        return _text(node.child_by_field_name("key")).strip("\"'")
    return ""


def _bound(node: Node) -> str:
    value = node.child_by_field_name("value")
    while value is not None and value.type == "expression_list" and value.named_child_count == 1:
        value = value.named_children[0]
    name = node.child_by_field_name("name") or node.child_by_field_name("property")
    if value is None or name is None or name.type not in ("identifier", "property_identifier"):
        return ""
    several_rows = node.end_point[0] > node.start_point[0] and value.type in ("call_expression", "object")
    return _text(name) if value.type in _FUNCTIONS or several_rows else ""


def _declared(node: Node) -> str:
    """The name within a declarator of C or C++."""
    inner: Node | None = node
    while inner is not None and (deeper := inner.child_by_field_name("declarator")) is not None:
        inner = deeper
    return _text(inner) if inner is not None and inner is not node and inner.type != "init_declarator" else ""


def _assigned(node: Node) -> str:
    right = node.child_by_field_name("right")
    return _text(node.child_by_field_name("left")) if right is not None and right.type in _FUNCTIONS else ""


def _called(node: Node) -> str:
    """A test suite of JavaScript, or a definition of Elixir, both of which are calls."""
    arguments = node.child_by_field_name("arguments") or _child(node, "arguments")
    first = arguments.named_children[0] if arguments is not None and arguments.named_child_count else None
    if _text(node.child_by_field_name("function")) in _SUITES:
        return _text(first).strip("\"'`") if first is not None and "string" in first.type else ""
    if first is not None and _text(node.child_by_field_name("target")) in _ELIXIR:
        return _text(first.child_by_field_name("target") or first)
    return ""


def _headed(node: Node) -> str:
    heading = next((child for child in node.named_children if child.type.endswith("_heading")), None)
    return _text(heading).splitlines()[0].strip("# ") if heading is not None and _text(heading) else ""


def _first_child(node: Node) -> str:
    return _text(node.named_children[0]) if node.named_child_count else ""


_RULES = {
    "assignment_expression": _assigned,
    "call": _called,
    "call_expression": _called,
    "impl_item": lambda node: _text(node.child_by_field_name("type")),
    "rule_set": _first_child,
    "section": _headed,
    "table": _first_child,
    "table_array_element": _first_child,
    "type_alias": _first_child,
    "type_definition": _declared,
}


def _child(node: Node, kind: str) -> Node | None:
    return next((child for child in node.named_children if child.type == kind), None)


def _text(node: Node | None) -> str:
    return node.text.decode("utf-8", "replace") if node is not None and node.text is not None else ""
