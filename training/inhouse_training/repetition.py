"""Noticing that an answer goes round in circles, which small models decoded greedily are prone to."""

from __future__ import annotations

import re

_PROBE = 20
"""Characters of the end that are looked for further up; a shorter loop shows as a multiple of itself."""
_LONGEST_LOOP = 1200
_DIGITS = re.compile(r"\d+")


class Repetition:
    """Watches a growing text.

    A loop is the same text four times in a row over at least 160 characters. Where only the numbers differ, as in a
    list that counts, it must be eight times and 480 characters, since code does count.
    """

    def __init__(self) -> None:
        self._text = ""

    def push(self, delta: str) -> bool:
        """Take the next piece; true once the text ends in a loop."""
        self._text = (self._text + delta)[-8 * _LONGEST_LOOP :]
        return _loops(self._text, 4, 160) or _loops(_DIGITS.sub("0", self._text), 8, 480)


def _loops(text: str, times: int, length: int) -> bool:
    """Whether ``text`` ends in at least ``times`` equal pieces that take ``length`` characters together."""
    if len(text) < length:
        return False
    start = len(text) - _PROBE
    probe, found = text[start:], start
    while (found := text.rfind(probe, max(0, start - _LONGEST_LOOP), found + _PROBE - 1)) >= 0:
        period = start - found
        span = max(times * period, length)
        if span > len(text):
            return False
        if text[-span:-period] == text[period - span :]:
            return True
    return False
