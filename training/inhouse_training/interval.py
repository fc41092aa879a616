"""A length of time as settings and commands write it."""

from __future__ import annotations

import re
from datetime import timedelta

from inhouse_retrieval.errors import InhouseError

INTERVAL = r"[1-9]\d{0,3}[mhdw]|0"
"""``30m``, ``12h``, ``7d``, ``2w``, and ``0`` for no time at all."""

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_interval(text: str) -> timedelta:
    """The length of time that ``text`` writes; see :data:`INTERVAL`.

    Raises:
        InhouseError: it is written otherwise.
    """
    if re.fullmatch(r"0+[mhdw]", text):
        raise InhouseError(f"{text!r} is not longer than 0.", "Write a number from 1 to 9999 and a unit, such as 12h.")
    if not re.fullmatch(INTERVAL, text):
        raise InhouseError(f"{text!r} is not a length of time.", "Write a number and a unit, such as 12h, 7d or 2w.")
    return timedelta() if text == "0" else timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
