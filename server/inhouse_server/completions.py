"""A model's middle made fit to be shown at the cursor, or nothing: a suggestion that is wrong costs more than none.

It ends at a sensible place, does not write again what stands after the cursor, and adds no syntax error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inhouse_retrieval import syntax_errors

MOST_LINES = 8
"""More than can be read while typing."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Where the cursor stands: the whole text before and after it."""

    path: str
    before: str
    after: str

    @property
    def in_line(self) -> bool:
        """Whether something follows in the line: then the rest of that line alone is asked for."""
        return bool(self.after.partition("\n")[0].strip())

    @property
    def indentation(self) -> str:
        """That of the line that the cursor is in."""
        line = self.before.rpartition("\n")[2]
        return line[: len(line) - len(line.lstrip())]


def fitting(gap: Gap, middle: str, reason: Literal["stop", "length", "cancelled"]) -> str:
    """``middle`` as it is to be shown; empty for nothing.

    Args:
        reason: why the model ended; a last line that was cut short is left out where there are others.
    """
    text = middle.replace("\r\n", "\n")
    text = text.partition("\n")[0] if gap.in_line else _block(gap, text, cut=reason == "length").rstrip()
    for shown in _without_what_follows(text, gap):
        if shown.strip() and "\ufffd" not in shown and not _stands_below(shown, gap.after) and _reads(gap, shown):
            return shown
    return ""


def _block(gap: Gap, text: str, cut: bool) -> str:
    """The lines up to an empty one, or to the first that is indented less than the cursor's."""
    first, *rest = text.split("\n")
    kept = [first]
    for line in rest[: MOST_LINES - 1]:
        depth = len(line) - len(line.lstrip())
        if (not line.strip() and len(kept) > 1) or (line.strip() and depth < len(gap.indentation)):
            cut = False
            break
        kept.append(line)
    else:
        cut = cut and len(rest) < MOST_LINES
    if cut and len(kept) > 1:
        kept.pop()
    return "\n".join(kept)


def _without_what_follows(text: str, gap: Gap) -> list[str]:
    """``text`` without an end that is how the text after the cursor begins, such as a bracket that is there already.

    Whether a bracket is that one or another, only the grammar can tell: then both are given, the whole text first.
    """
    for size in range(min(len(text), len(gap.after)), 0, -1):
        end = gap.after[:size]
        if text.endswith(end) and end.strip():
            unclear = not any(each.isalnum() for each in end) and syntax_errors(gap.path, "") is not None
            return [text, text[:-size]] if unclear else [text[:-size]]
    return [text]


def _stands_below(text: str, after: str) -> bool:
    """Whether the suggestion is what the next lines say anyway."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    below = [line.strip() for line in after.split("\n") if line.strip()][: len(lines)]
    return lines == below


def _reads(gap: Gap, text: str) -> bool:
    """Whether the file has no more syntax errors than without it; also where there is no grammar."""
    errors = syntax_errors(gap.path, gap.before + text + gap.after)
    return errors is None or errors <= (syntax_errors(gap.path, gap.before + gap.after) or 0)
