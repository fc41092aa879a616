"""Where git's lines stand in an editor. For git only ``\\n`` ends a line, for the protocol ``\\r`` does, too.

Findings and their replacements are of git's lines; here is where they become the editor's.
"""

from __future__ import annotations

import io
from itertools import accumulate

from lsprotocol import types

from inhouse_server.text_sync import position_at, with_line_feeds


def git_lines(text: str) -> list[str]:
    """Lines with their ends; the last one may have none."""
    return list(io.StringIO(text, newline="\n"))


class EditorLines:
    """Lines of one text, by their number at git.

    Args:
        text: ``None`` where it is not known, and lines are taken to be the same.
    """

    def __init__(self, text: str | None) -> None:
        self._starts: list[int] | None = None
        if text is not None and with_line_feeds(text) != text:
            # A lone \r that ends the text ends no line of git's, and the editor's next line begins behind it.
            counts = (
                with_line_feeds(line.removesuffix("\n").removesuffix("\r")).count("\n") + 1 for line in git_lines(text)
            )
            self._starts = [0, *accumulate(counts)]

    def range(self, first: int, last: int) -> types.Range:
        """Git's lines ``first`` to ``last``, 1-based and inclusive, to where the next line begins."""
        return types.Range(types.Position(self._start(first), 0), types.Position(self._start(last + 1), 0))

    def _start(self, line: int) -> int:
        if self._starts is None:
            return line - 1
        return self._starts[min(line, len(self._starts)) - 1]


def span(text: str, first: int, last: int, encoding: str) -> tuple[types.Range, types.Range]:
    """Git's lines ``first`` to ``last``: without the end of the last one, and with it.

    Args:
        encoding: what the client counts columns in.
    """
    lines = git_lines(text)
    start = sum(map(len, lines[: first - 1]))
    end = start + sum(map(len, lines[first - 1 : last]))
    line_end = "\r\n" if text[start:end].endswith("\r\n") else "\n" if text[start:end].endswith("\n") else ""
    begin, without, whole = (
        types.Position(at.line, at.character)
        for at in (position_at(text, offset, encoding) for offset in (start, end - len(line_end), end))
    )
    return types.Range(begin, without), types.Range(begin, whole)
