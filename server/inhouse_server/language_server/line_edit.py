"""A proven replacement of whole lines as an edit of the protocol, which is what git made of it or none."""

from __future__ import annotations

from lsprotocol import types

from inhouse_server.language_server.editor_lines import span
from inhouse_server.review.proof import applied
from inhouse_server.text_sync import Edit, Position, apply_edits


def line_edit(text: str, first: int, last: int, replacement: str, encoding: str) -> types.TextEdit | None:
    """The edit of ``text``; ``None`` when it would not make of it what git does.

    The last line's end stays where there is something to put before it: a file that ends without one goes on so.

    Args:
        first, last: lines that it stands in place of as git counts them, 1-based and inclusive.
        replacement: whole lines with the file's own line ends, as :func:`~inhouse_server.review.proof.prove` gives it.
        encoding: what the client counts columns in.
    """
    without_end, whole = span(text, first, last, encoding)
    place, new = (without_end, replacement.removesuffix("\n").removesuffix("\r")) if replacement else (whole, "")
    start, end = (Position(at.line, at.character) for at in (place.start, place.end))
    if apply_edits(text, [Edit(new, start, end)], encoding) != applied(text, first, last, replacement):
        return None
    return types.TextEdit(place, new)
