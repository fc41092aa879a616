"""The names that code gives to its own definitions, and which classes have a say in them.

Keys of objects and titles of test suites are no names: what reads them says how they are spelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from inhouse_retrieval.syntax import SCOPES, inner_nodes, name_of, root_of

if TYPE_CHECKING:
    from tree_sitter import Node

NameKind = Literal["class", "method", "other"]

_CLASSES = frozenset(
    ["abstract_class_declaration", "class", "class_declaration", "class_definition", "class_specifier",
     "enum_declaration", "enum_definition", "impl_item", "interface_declaration", "module", "object_declaration",
     "object_definition", "protocol_declaration", "record_declaration", "struct_declaration", "struct_specifier",
     "trait_declaration", "trait_definition", "trait_item"]
)  # fmt: skip
_BASES = frozenset(
    ["base_clause", "base_list", "class_heritage", "class_interface_clause", "delegation_specifiers",
     "extends_clause", "extends_interfaces", "extends_type_clause", "implements_clause", "inheritance_specifier",
     "super_interfaces", "superclass"]
)  # fmt: skip
"""Parts of a class that name its bases, one or several in a row."""
_BASE_FIELDS = ("superclasses", "trait")
_LISTS = frozenset(["argument_list", "base_class_clause", "delegation_specifier", "type_list"])
"""Around bases, inside of such a part."""
_NOT_BASES = frozenset(["comment", "keyword_argument", "type_arguments"])
_METHODS = SCOPES | {"singleton_method"}
_NO_DEFINITIONS = frozenset(["block_mapping_pair", "call", "call_expression", "pair"])
_ROOTS = frozenset(["object", "Object", "Any", "AnyRef"])
"""Bases that every class has: they dictate no name worth one."""


@dataclass(frozen=True, slots=True)
class DefinedName:
    """One definition.

    Attributes:
        line: that the name stands on, 1-based.
        kind: a method is a function right inside of a class, an interface or an ``impl``.
        is_function: also one that stands on its own, or that a name is bound to.
        bases: of a class, what it is based on; of a method, the same of its class. Last parts of their names.
    """

    line: int
    name: str
    kind: NameKind
    bases: tuple[str, ...] = ()
    is_function: bool = field(default=False, compare=False)


def defined_names(path: str, text: str) -> list[DefinedName]:
    """What a file of code defines, from the top; empty where there is no grammar for it."""
    root = root_of(PurePosixPath(path).suffix.lower().removeprefix("."), text.encode("utf-8", "replace"))
    return list(_names(root)) if root is not None else []


def _names(root: Node) -> Iterator[DefinedName]:
    pending: list[tuple[Node, tuple[str, ...] | None]] = [(root, None)]  # with the bases of the class around, if any
    while pending:
        node, owner = pending.pop()
        inside = owner
        # The root of a Python file is called a module, as a module of Ruby is.
        if node.type in _CLASSES and node.parent is not None:
            inside = tuple(_bases(node))
        elif node.type in _METHODS:
            inside = None
        if node.type not in _NO_DEFINITIONS and node.type != "impl_item" and (name := name_of(node)):
            line = (node.child_by_field_name("name") or node).start_point[0] + 1
            if node.type in _CLASSES:
                yield DefinedName(line, name, "class", inside or ())
            elif node.type == "method_declaration" or (owner is not None and _is_function(node)):
                yield DefinedName(line, name, "method", owner or (), True)
            else:
                yield DefinedName(line, name, "other", (), _is_function(node))
        pending += [(child, inside) for child in reversed(inner_nodes(node))]


def _is_function(node: Node) -> bool:
    if node.type in _METHODS:
        return True
    value = node.child_by_field_name("value")  # a property that is a function
    return value is not None and value.type in _METHODS


def _bases(node: Node) -> Iterator[str]:
    waiting = [part for field in _BASE_FIELDS if (part := node.child_by_field_name(field)) is not None]
    waiting += [child for child in node.named_children if child.type in _BASES and child not in waiting]
    while waiting:
        part = waiting.pop()
        if part.type in _NOT_BASES:
            continue
        if part.type in _BASES or part.type in _LISTS:
            waiting += part.named_children
            continue
        written = (part.text or b"").decode("utf-8", "replace")
        base = written.partition("<")[0].partition("[")[0].partition("(")[0].replace("::", ".")
        base = base.rpartition(".")[2].strip(" \t\r\n\\")
        if base and base not in _ROOTS:
            yield base
