"""The errors that code raises: which, where, and whether they are as general as the language has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from inhouse_retrieval.syntax import nodes_of

if TYPE_CHECKING:
    from tree_sitter import Node

_SCRIPT = (("throw_statement",), frozenset({"Error"}))
_LANGUAGES: dict[str, tuple[tuple[str, ...], frozenset[str]]] = {
    "py": (("raise_statement",), frozenset({"Exception", "BaseException"})),
    **dict.fromkeys(("js", "jsx", "mjs", "cjs", "ts", "tsx", "mts", "cts"), _SCRIPT),
    "java": (("throw_statement",), frozenset({"Throwable", "Exception", "RuntimeException", "Error"})),
    "cs": (("throw_statement", "throw_expression"), frozenset({"Exception", "SystemException"})),
    "php": (("throw_expression",), frozenset({"Exception", "RuntimeException"})),
    "rb": (("call",), frozenset({"Exception", "StandardError", "RuntimeError"})),
}
"""What raises, and the errors that say nothing of what went wrong, by the end of a file's name."""
_MADE = frozenset({"call", "call_expression", "new_expression", "object_creation_expression"})
_NAMED = re.compile(r"[A-Z]\w*")


@dataclass(frozen=True, slots=True)
class RaisedError:
    """One statement.

    Attributes:
        line: 1-based, that it begins on.
        name: the last part of the error's name.
        is_general: whether that name says nothing of what went wrong.
    """

    line: int
    name: str
    is_general: bool


def raised_errors(path: str, text: str) -> Iterator[RaisedError]:
    """What a file raises by name, from the top. What was caught and is raised again, or comes out of a function whose
    name is none of a class, is left out; so is a language in which nothing is raised."""
    suffix = PurePosixPath(path).suffix.lower().removeprefix(".")
    if suffix not in _LANGUAGES:
        return
    kinds, general = _LANGUAGES[suffix]
    for node in nodes_of(path, text.encode("utf-8", "replace"), kinds):
        raised = _of_ruby(node) if suffix == "rb" else node.named_children[0] if node.named_child_count else None
        name = _name(raised) if raised is not None else ""
        if raised is not None and raised.type == "string":  # of Ruby
            name = "RuntimeError"
        if name:
            yield RaisedError(node.start_point[0] + 1, name, name in general)


def _of_ruby(call: Node) -> Node | None:
    """The first argument of ``raise``."""
    if call.child_by_field_name("receiver") is not None:
        return None
    method, arguments = call.child_by_field_name("method"), call.child_by_field_name("arguments")
    if method is None or method.text not in (b"raise", b"fail") or arguments is None:
        return None
    return arguments.named_children[0] if arguments.named_child_count else None


def _name(raised: Node) -> str:
    """The name of an error's class, or ``""``."""
    if raised.type in _MADE:
        made = next(
            (
                found
                for field in ("function", "constructor", "type", "receiver")
                if (found := raised.child_by_field_name(field)) is not None
            ),
            raised.named_children[0] if raised.named_child_count else None,
        )
        if made is None:
            return ""
        raised = made
    whole = (raised.text or b"").decode("utf-8", "replace").partition("<")[0]
    last = re.split(r"[.\\]|::", whole)[-1]
    return last if _NAMED.fullmatch(last) else ""
