"""Applying an editor's edits to a document, in lines and characters as the protocol counts them.

Lines end with ``\\n``, ``\\r\\n`` or ``\\r`` and nothing else: ``str.splitlines`` also splits at form feeds
and Unicode separators, which would move every edit below one. The language server and the relay both keep
documents with this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from inhouse_server.position_encodings import UTF16

_LINE_END = re.compile(r"\r\n|\n|\r")
_LONE = re.compile(r"\r(?!\n)")


@dataclass(frozen=True, slots=True)
class Position:
    """Zero-based line, and code units of the agreed encoding from its start."""

    line: int
    character: int


@dataclass(frozen=True, slots=True)
class Edit:
    """``text`` in place of what lies from ``start`` to ``end``; of everything when both are ``None``."""

    text: str
    start: Position | None = None
    end: Position | None = None


def edits_from_json(changes: Any) -> list[Edit]:
    """The ``contentChanges`` of a ``textDocument/didChange`` notification.

    Raises:
        ValueError: it is not what the protocol says.
    """
    try:
        return [_edit_from_json(change) for change in changes]
    except (AttributeError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"not a list of content changes: {error}") from error


def _edit_from_json(change: Mapping[str, Any]) -> Edit:
    text = change["text"]
    if not isinstance(text, str):
        raise TypeError("text is not a string")
    span = change.get("range")
    if span is None:
        return Edit(text)
    start, end = (Position(int(span[side]["line"]), int(span[side]["character"])) for side in ("start", "end"))
    return Edit(text, start, end)


def apply_edits(text: str, edits: Iterable[Edit], encoding: str = UTF16) -> str:
    """Apply ``edits`` one after the other: each counts in the text that the one before it left."""
    for edit in edits:
        if edit.start is None or edit.end is None:
            text = edit.text
        else:
            begin, end = offset_at(text, edit.start, encoding), offset_at(text, edit.end, encoding)
            text = text[:begin] + edit.text + text[max(begin, end) :]
    return text


def offset_at(text: str, position: Position, encoding: str = UTF16) -> int:
    """Index into ``text``. Past the last line means the end, past a line's last character that line's end."""
    start, end = _line_bounds(text, position.line)
    line = text[start:end]
    return start + index_in_line(line, position.character, encoding)


def position_at(text: str, offset: int, encoding: str = UTF16) -> Position:
    """Where the character ``offset`` of ``text`` stands; not one between ``\\r`` and ``\\n``."""
    ends = list(_LINE_END.finditer(text, 0, offset))
    return Position(len(ends), units(text[ends[-1].end() if ends else 0 : offset], encoding))


def with_line_feeds(text: str) -> str:
    """``text`` with ``\\n`` for each lone ``\\r``: git ends lines there as well then, and every character keeps its
    position."""
    return _LONE.sub("\n", text)


def units(text: str, encoding: str = UTF16) -> int:
    """How many code units of ``encoding`` the characters of ``text`` take."""
    if encoding == "utf-32" or text.isascii():
        return len(text)
    return sum(_width(char, encoding) for char in text)


def split_lines(text: str) -> list[str]:
    """Lines without their ends; a text that ends in a line end has an empty last line, as editors count."""
    return _LINE_END.split(text)


def _line_bounds(text: str, number: int) -> tuple[int, int]:
    """Where line ``number`` starts, and where it ends before its line end."""
    start = 0
    for index, match in enumerate(_LINE_END.finditer(text)):
        if index == number:
            return start, match.start()
        start = match.end()
    # Past the last line end there is one more line; anything further is the end of the document.
    return (start, len(text)) if number == len(_LINE_END.findall(text)) else (len(text), len(text))


def index_in_line(line: str, character: int, encoding: str = UTF16) -> int:
    """Index into ``line`` of the position ``character``, in code units of ``encoding``."""
    if character <= 0:
        return 0
    if encoding == "utf-32" or line.isascii():
        return min(character, len(line))
    counted = 0
    for index, char in enumerate(line):
        # A position inside a character is not one the protocol knows; its start is the nearest that exists.
        width = _width(char, encoding)
        if counted + width > character:
            return index
        counted += width
    return len(line)


def _width(char: str, encoding: str) -> int:
    return len(char.encode("utf-8", "surrogatepass")) if encoding == "utf-8" else 1 + (char > "\uffff")
