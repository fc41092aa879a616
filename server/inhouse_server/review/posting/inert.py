"""Whether text is such that a forge, a bot or a reader's screen would act on it.

Renderers make text harmless; this looks at what they made with another method, a parse and a list of what is allowed,
so that a mistake in one of the two does no harm.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Any

from inhouse_training.plain_text import hidden_characters

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

_BLOCKS = frozenset(
    f"{name}_{end}" for name in ("paragraph", "bullet_list", "ordered_list", "list_item") for end in ("open", "close")
) | {"inline", "fence", "hr"}
_INLINE = frozenset({"text", "code_inline", "softbreak", "hardbreak", "strong_open", "strong_close"})
_NAMES = {
    "html_block": "raw HTML", "html_inline": "raw HTML", "image": "an image", "link_open": "a link",
    "heading_open": "a heading", "table_open": "a table", "code_block": "indented code",
}  # fmt: skip
_FORGE = (
    ("a mention", re.compile(r"@[\w\[-]")),
    ("an address", re.compile(r"\w:/?/|\bwww\.|\bmailto:", re.I)),
    ("a reference", re.compile(r"[#!%]\d|\bGH-\d", re.I)),
    ("a label or mathematics", re.compile(r"[~$^]")),
    ("a commit", re.compile(r"\b(?=[a-f]*\d)[0-9a-f]{7,40}\b", re.I)),
    ("raw HTML", re.compile(r"<[!/?A-Za-z]|&[#\w]+;")),
    ("a link or a task", re.compile(r"[\[\]]")),
)
"""What forges look for in text that is not code."""
_COMMAND = re.compile(r"^[ \t]*/[a-z][\w-]*(?:[ \t]|$)", re.I | re.M)
_COMMAND_IN_CODE = re.compile(r"^/[a-z][\w-]*(?:[ \t]|$)", re.I | re.M)
"""Many bots read a comment line by line and know nothing of blocks of code."""


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def why_it_acts(markdown: str) -> str:
    """What in ``markdown`` acts, with an article, such as ``"a mention"``; empty when nothing does."""
    if why := why_code_acts(markdown):
        return why
    defined: dict[str, Any] = {}
    tokens = _parser().parse(markdown, defined)
    if defined.get("references"):
        return "a link"
    for token in tokens:
        if token.type not in _BLOCKS:
            return _NAMES.get(token.type, f"Markdown that is not allowed ({token.type})")
        if token.type == "fence" and token.info.strip():
            return f"a block of code that may act ({token.info.strip()[:20]!r})"
        if token.type == "inline" and _COMMAND.search(token.content):
            return "a command"
        for child in token.children or ():
            if child.type not in _INLINE:
                return _NAMES.get(child.type, f"Markdown that is not allowed ({child.type})")
            if child.type == "text":
                for name, pattern in _FORGE:
                    if pattern.search(child.content):
                        return name
    return ""


def why_code_acts(code: str) -> str:
    """The same for a block of code: characters that nobody sees, and lines that bots take for commands."""
    if hidden_characters(code) or any(
        character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in code
    ):
        return "characters that no reader sees"
    return "a command" if _COMMAND_IN_CODE.search(code) else ""
