"""A proven replacement of whole lines as an edit of the protocol, which is what git made of it or none."""

from __future__ import annotations

from lsprotocol import types

from inhouse_server.review.proof import applied
from inhouse_server.text_sync import Edit, Position, apply_edits, split_lines, units


def line_edit(text: str, first: int, last: int, replacement: str, encoding: str) -> types.TextEdit | None:
    """The edit of ``text``; ``None`` when it would not make of it what git does.

    The last line's end stays where there is something to put before it: a file that ends without one goes on so.

    Args:
        first, last: lines that it stands in place of, 1-based and inclusive.
        replacement: whole lines with the file's own line ends, as :func:`~inhouse_server.review.proof.prove` gives it.
        encoding: what the client counts columns in.
    """
    lines = split_lines(text)
    if replacement:
        end = Position(last - 1, units(lines[last - 1], encoding))
        new = replacement.removesuffix("\n").removesuffix("\r")
    else:
        end, new = Position(last, 0), ""
    edit = Edit(new, Position(first - 1, 0), end)
    if apply_edits(text, [edit], encoding) != applied(text, first, last, replacement):
        return None
    span = types.Range(types.Position(first - 1, 0), types.Position(end.line, end.character))
    return types.TextEdit(span, new)
