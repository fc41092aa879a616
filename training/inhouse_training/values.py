"""Lines that give a name a value, and whether a text says a value."""

from __future__ import annotations

import re

_LINE = re.compile(
    r"""^\s*(?:export\s+)?(?:const\s+|let\s+|var\s+|final\s+|static\s+)*(?P<name>[A-Za-z_$][\w$.-]{3,60})\s*
    (?::\s*[\w\[\]. ]{1,40})?\s*[:=]\s*(?P<value>"[^"\n]{1,60}"|'[^'\n]{1,60}'|-?\d[\d_.]*)
    \s*[,;]?\s*(?:(?:\#|//).*)?$""",
    re.X,
)
LEAST_VALUE = 2
"""A single digit stands in many an answer by chance."""


def value_given(line: str) -> tuple[str, str] | None:
    """The name that ``line`` gives a value, and that value without quotes; ``None`` for other lines.

    Values are numbers, and texts on one line.
    """
    match = _LINE.match(line)
    return (match["name"], match["value"].strip("\"'")) if match else None


def says(text: str, value: str) -> bool:
    """Whether ``value`` stands in ``text`` by itself: 30 does not stand in 300, 1.30, -30 or 30,000."""
    return re.search(rf"(?<![\w.-])(?<!\d,){re.escape(value)}(?!\w|\.\d|,\d)", text) is not None
