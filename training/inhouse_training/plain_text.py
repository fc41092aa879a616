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
        (0xFFF9, 0xFFFB),
        (0x00AD, 0x00AD),
        (0x034F, 0x034F),
        (0x061C, 0x061C),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x3164, 0x3164),
        (0xFFA0, 0xFFA0),
        (0xFE00, 0xFE0F),
        (0x13430, 0x1343F),
        (0x1BCA0, 0x1BCA3),
        (0x1D173, 0x1D17A),
        (0xE0000, 0xE0FFF),
    )
    for character in range(first, last + 1)
)
"""Zero-width and bidirectional characters, soft hyphens, fillers, tag characters and variation selectors."""


_OF_EMOJI = frozenset({0x200D, 0xFE0E, 0xFE0F})
"""Joiners and selectors that emoji are made with: taken out as well, but nothing to warn of …"""
_NO_EMOJI = re.compile("[\u200d\ufe0e\ufe0f]{3,}")
"""… unless so many follow each other that they spell something."""


_CONTROL_TOKEN = re.compile(
    r"<(?=\|[^|<>\n]{1,40}\|>|\uff5c[^\uff5c<>\n]{1,40}\uff5c>|/?s>|</?SYS>>|(?:start|end)_of_turn>|[be]os>|\|turn>"
    r"|/?(?:tool_call|tool_response|think)>|[se]op>)|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_(?:CALLS|RESULTS))\])",
    re.I,
)
"""The start of a word by which some model's chat template marks a turn: ChatML and its kin, DeepSeek, Llama, Gemma."""


def control_tokens(text: str) -> int:
    """How many words of ``text`` some model takes for the start or end of a turn."""
    return len(_CONTROL_TOKEN.findall(text))


def without_control_tokens(text: str) -> str:
    """``text`` with a space in each of them. Our own engine keeps them text; a server may not."""
    return _CONTROL_TOKEN.sub(lambda found: f"{found[0]} ", text)


_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})
_SPACE = frozenset("\t\n\v\f\r\x85")


def hidden_characters(text: str) -> int:
    """How many characters of ``text`` no reader would see, those of emoji and of line ends aside."""
    spelled = sum(len(found[0]) for found in _NO_EMOJI.finditer(text))
    return spelled + sum(
        (ord(character) in _HIDDEN and ord(character) not in _OF_EMOJI)
        or (character not in _SPACE and unicodedata.category(character) == "Cc")
        for character in text
    )


def spoils(text: str) -> str:
    """What in a text of the change is taken out of the prompt, as a note says it; empty when nothing is."""
    told: list[str] = []
    if count := hidden_characters(text):
        told.append(f"{count} {'character' if count == 1 else 'characters'} that no reader sees")
    if count := control_tokens(text):
        words = "word that some models take" if count == 1 else "words that some models take"
        told.append(f"{count} {words} for the end of a turn")
    return " and ".join(told)


def visible(text: str) -> str:
    """``text`` without hidden and control characters, line ends and tabs aside: code as a reader sees it."""
    return "".join(
        character
        for character in text
        if character in "\n\t" or (ord(character) not in _HIDDEN and unicodedata.category(character) not in _CONTROLS)
    )


def plain_text(text: str) -> str:
    """``text`` without hidden characters, control characters and HTML comments, and without space at line ends."""
    text = "".join(
        character for character in visible(text) if character in "\n\t" or unicodedata.category(character)[0] != "C"
    )
    return "\n".join(line.rstrip() for line in without_comments(text).split("\n")).strip()


def plain_line(text: str) -> str:
    """:func:`plain_text` on one line, as a title or a name is."""
    return " ".join(plain_text(text).split())


def without_comments(text: str, keep_lines: bool = False) -> str:
    """``text`` without HTML comments.

    Args:
        keep_lines: line ends in comments stay, so that the lines after them keep their numbers.
    """
    while (without := _COMMENT.sub(lambda found: "\n" * found[0].count("\n") * keep_lines, text)) != text:
        text = without  # what is left may make a comment again
    return text
