"""Which parts of a file carry a convention: imports, what is called, names of types and properties, literals.

Local names, keywords and brackets are left out: a house agrees on what is imported and called, not on a loop variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from inhouse_retrieval.syntax import parser_of

if TYPE_CHECKING:
    from tree_sitter import Node

SpanKind = Literal["import", "callee", "type", "property", "literal"]

_IMPORT = re.compile(r"^(import|use_declaration|using_directive|preproc_include|require)")
_CALLS: dict[str, tuple[str, ...]] = {
    "call": ("function", "method"),
    "call_expression": ("function",),
    "function_call": ("name",),
    "function_call_expression": ("function",),
    "invocation_expression": ("function",),
    "macro_invocation": ("macro",),
    "member_call_expression": ("name",),
    "method_invocation": ("name",),
    "new_expression": ("constructor",),
    "object_creation_expression": ("type",),
    "scoped_call_expression": ("name",),
}
"""Calls, and the fields that name what is called."""
_TYPES = frozenset(["constant", "type_identifier"])
_PROPERTIES = frozenset(
    ["field_identifier", "hash_key_symbol", "property_identifier", "shorthand_property_identifier",
     "shorthand_property_identifier_pattern"]
)  # fmt: skip
_PROPERTY_FIELDS = frozenset(["attribute", "field", "property"])
_LITERAL = re.compile(r"string|char|number|integer|int_literal|float|decimal|real_literal|symbol|regex")
_NOT_LITERAL = re.compile(r"string_(start|end)|interpolat|substitution|expansion")


@dataclass(frozen=True, slots=True)
class ConventionSpan:
    """Characters ``start`` to ``end`` of the text; the end is not part of it."""

    start: int
    end: int
    kind: SpanKind


def convention_spans(path: str, text: str) -> tuple[ConventionSpan, ...] | None:
    """The spans in the order in which they stand, none inside another; ``None`` without a grammar for this file."""
    parser = parser_of(PurePosixPath(path).suffix.lower().removeprefix("."))
    if parser is None:
        return None
    data = text.encode("utf-8", "replace")
    characters = None if len(data) == len(text) else _characters(text)
    spans: list[ConventionSpan] = []
    for node, kind in _leaves(parser.parse(data).root_node):
        start, end = node.start_byte, node.end_byte
        if characters is not None:
            start, end = characters[start], characters[end]
        spans.append(ConventionSpan(start, end, kind))
    return tuple(spans)


def _leaves(root: Node) -> Iterator[tuple[Node, SpanKind]]:
    """Leaves that carry a convention. Bounded by the nodes of the file; no recursion, since code may nest deeply."""
    pending: list[tuple[Node, str, bool, bool]] = [(root, "", False, False)]
    callees: set[int] = set()
    while pending:
        node, field, imported, typed = pending.pop()
        imported = imported or (node.is_named and _IMPORT.match(node.type) is not None)
        typed = typed or node.type == "type"
        for name in _CALLS.get(node.type, ()):
            called = node.child_by_field_name(name)
            if called is not None:
                callees.add(_last_leaf(called).id)
        if node.child_count:
            children = [
                (child, node.field_name_for_child(at) or "", imported, typed)
                for at, child in enumerate(node.children)
                if child.is_named
            ]
            pending.extend(reversed(children))
            continue
        kind = _kind(node, field, imported, typed, node.id in callees)
        if kind is not None and node.end_byte > node.start_byte:
            yield node, kind


def _last_leaf(node: Node) -> Node:
    while node.named_child_count:
        node = node.named_children[-1]
    return node


def _kind(node: Node, field: str, imported: bool, typed: bool, called: bool) -> SpanKind | None:
    kind = node.type
    if "comment" in kind:
        return None
    if imported:
        return "import"
    if called:
        return "callee"
    if kind in _PROPERTIES or field in _PROPERTY_FIELDS:
        return "property"
    if kind in _TYPES or (typed and "identifier" in kind):
        return "type"
    if _LITERAL.search(kind) and not _NOT_LITERAL.search(kind) and "identifier" not in kind:
        return "literal"
    parent = node.parent
    keyed = parent is not None and parent.type in ("keyword_argument", "jsx_attribute") and field in ("name", "")
    return "property" if keyed and "identifier" in kind else None


def _characters(text: str) -> list[int]:
    """Byte of the encoded text -> character that it belongs to; one more entry for the end."""
    found: list[int] = []
    for at, character in enumerate(text):
        found += [at] * len(character.encode("utf-8", "replace"))
    return [*found, len(text)]
