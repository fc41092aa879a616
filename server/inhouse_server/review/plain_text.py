"""Text that strangers wrote, made plain: what no reader would see is taken out before a model or a person reads it."""

from __future__ import annotations

import re
import unicodedata

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.S)
_HIDDEN = frozenset(
    character
    for first, last in (
        (0x200B, 0x200F),
        (0x202A, 0x202E),
        (0x2060, 0x206F),
        (0xFEFF, 0xFEFF),
        (0x00AD, 0x00AD),
        (0x180E, 0x180E),
        (0xE0000, 0xE007F),
        (0xFE00, 0xFE0F),
        (0xE0100, 0xE01EF),
    )
    for character in range(first, last + 1)
)
"""Zero-width and bidirectional characters, soft hyphens, tag characters and variation selectors."""


_OF_EMOJI = frozenset({0x200D, 0xFE0E, 0xFE0F})
"""Joiners and selectors that emoji are made with: taken out as well, but nothing to warn of."""


def hidden_characters(text: str) -> int:
    """How many characters of ``text`` no reader would see, those of emoji aside."""
    return sum(ord(character) in _HIDDEN and ord(character) not in _OF_EMOJI for character in text)


def visible(text: str) -> str:
    """``text`` without hidden characters: code as a reader sees it."""
    return "".join(character for character in text if ord(character) not in _HIDDEN)


def plain_text(text: str) -> str:
    """``text`` without hidden characters, control characters and HTML comments, and without space at line ends."""
    text = "".join(
        character for character in visible(text) if character in "\n\t" or unicodedata.category(character)[0] != "C"
    )
    while (without := _COMMENT.sub("", text)) != text:  # what is left may make a comment again
        text = without
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()
