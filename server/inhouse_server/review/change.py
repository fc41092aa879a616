"""A change as a reviewer sees it: its files, their hunks, their lines."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from unidiff.patch import PatchSet

from inhouse_retrieval import redact

Status = Literal["added", "modified", "removed", "renamed"]
CONTEXT = 3
"""Unchanged lines around the changed ones of a hunk."""
REMOVED = "removed"
NO_LINE_CHANGED = "no line of it changed"
"""Why a changed file has no lines to look at."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """One hunk of a file, as the change leaves it.

    Attributes:
        start, length: lines of the new file that the hunk covers, context included; 1-based.
        added: numbers of the added lines.
        lines: ``(sign, text)`` of every line, secrets redacted; the sign is ``" "``, ``"+"`` or ``"-"``, the text has
            no line end.
    """

    start: int
    length: int
    added: tuple[int, ...]
    lines: tuple[tuple[str, str], ...]

    @property
    def patch(self) -> str:
        """The hunk's lines with their signs."""
        return "\n".join(sign + text for sign, text in self.lines)

    def first_lines(self, count: int) -> Hunk:
        """The hunk as if it ended after ``count`` of its lines."""
        kept = self.lines[:count]
        length = sum(sign != "-" for sign, _ in kept)
        return Hunk(self.start, length, tuple(n for n in self.added if n < self.start + length), kept)


@dataclass(frozen=True)
class ReviewedFile:
    """One changed file.

    Attributes:
        path: after the change; of a removed file, before.
        former: before the change.
        new_text: whole content with its own line ends, secrets still in it: show :attr:`shown_lines` instead.
        unread: why its lines are not looked at; ``""`` when they are.
    """

    path: str
    former: str
    status: Status
    hunks: tuple[Hunk, ...] = ()
    new_text: str = ""
    unread: str = ""

    @cached_property
    def lines(self) -> list[str]:
        """Lines of the new text without their ends; a text that ends in a line end has no empty last line."""
        return split_lines(self.new_text)

    @cached_property
    def shown_lines(self) -> list[str]:
        """The same with secrets redacted: over the whole text, since a key may go over many lines."""
        return split_lines(redact(self.new_text)[0])

    def shown(self, first: int, last: int) -> str:
        """Lines ``first`` to ``last``, 1-based and inclusive, as they may be shown."""
        return "\n".join(self.shown_lines[first - 1 : last])

    def added_lines(self) -> list[tuple[int, str]]:
        """``(number, text)`` of the lines that the change adds."""
        return [(number, self.lines[number - 1]) for hunk in self.hunks for number in hunk.added]


@dataclass(frozen=True, slots=True)
class Change:
    """What is reviewed.

    Attributes:
        base, head: as a person would name them.
        base_commit: the commit whose history and conventions count.
        head_commit: the commit reviewed; empty when it is not committed.
        notes: what is to be said about how it was given.
    """

    base: str
    head: str
    base_commit: str
    head_commit: str
    title: str
    description: str
    files: tuple[ReviewedFile, ...]
    notes: tuple[str, ...] = ()

    @property
    def paths(self) -> frozenset[str]:
        """Every path touched, under its old name and its new one."""
        return frozenset(name for file in self.files for name in (file.path, file.former))


def split_lines(text: str) -> list[str]:
    """Lines as git counts them: they end at ``\\n`` alone; one ``\\r`` before it is part of the end."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def parse_hunks(patch: str, new: Sequence[str] | None = None, old: Sequence[str] | None = None) -> tuple[Hunk, ...]:
    """The hunks of one file's patch. Lines end at ``\\n`` alone: code may hold every other line separator.

    Args:
        new, old: lines of both sides with secrets redacted, which the hunks then show instead of the patch's own.
    """
    start = re.search(r"^@@ ", patch, flags=re.M)
    if start is None:
        return ()
    text = "--- a/file\n+++ b/file\n" + patch[start.start() :]
    [file] = PatchSet(io.StringIO(text, newline="\n"))
    hunks: list[Hunk] = []
    for hunk in file:
        lines: list[tuple[str, str]] = []
        for line in hunk:
            if line.line_type not in ("", " ", "+", "-"):
                continue  # that there is no newline at the end
            shown = line.value.removesuffix("\n").removesuffix("\r")
            number, side = (line.source_line_no, old) if line.is_removed else (line.target_line_no, new)
            if side is not None and number is not None and number <= len(side):
                shown = side[number - 1]
            lines.append((line.line_type or " ", shown))
        added = tuple(line.target_line_no for line in hunk if line.is_added and line.target_line_no is not None)
        hunks.append(Hunk(hunk.target_start, hunk.target_length, added, tuple(lines)))
    return tuple(hunks)
