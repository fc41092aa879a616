"""What follows the head of a definition, and the lines before it: the form in which scopes are completed.

Rows (:mod:`~inhouse_training.completions`) and evaluation (:mod:`~inhouse_training.measures.completion`) cut code here,
so that what is learned is what is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inhouse_retrieval.syntax import Definition

_BEFORE_LINES = 12
_SCOPE_LINES = (3, 16)
"""Fewer are guessed, more take an answer longer than is asked for."""


@dataclass(frozen=True, slots=True)
class CodeBefore:
    """The lines before the cursor; a :class:`~inhouse_training.prompts.SelectedCode`."""

    path: str
    start_line: int
    end_line: int
    text: str


def code_before(path: str, lines: Sequence[str], at: int) -> CodeBefore:
    """The lines of a file before line ``at`` (1-based)."""
    start = max(1, at - _BEFORE_LINES)
    return CodeBefore(path, start, at - 1, "\n".join(lines[start - 1 : at - 1]))


def rest_of(definition: Definition) -> range | None:
    """The lines (1-based) after the first one of a definition; ``None`` where those are too few or too many to ask
    for."""
    # Rows are 0-based: the line after the head is the second one of the definition.
    lines = range(definition.first + 2, definition.last + 2)
    return lines if _SCOPE_LINES[0] <= len(lines) <= _SCOPE_LINES[1] else None
