"""Text for a forge, in which nothing acts: no image, link, raw HTML, mention, reference or command.

A backslash does not help: GitHub and GitLab look for mentions, references and addresses in the rendered text, where
it is gone (gitlab#16827). Both leave code alone, so every word that could act is written as code, and what a person
reads is what was written. Addresses are code for the same reason. Words of code are so as well, which suits them.
"""

from __future__ import annotations

import re
import unicodedata

from inhouse_training import plain_text as plain
from inhouse_training.plain_text import plain_line, plain_text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SPAN = r"(?<!`)(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)"
_UNITS = r"!?\[[^\[\]`]*\]\([^()`]*\)|<[^<>`]*>"
"""Links, images and tags are kept in one piece, so that they stay readable as code."""
_WORD = re.compile(rf"(?:{_SPAN}|{_UNITS}|\S)+")
_SPANS = re.compile(_SPAN)
_ACTIVE = re.compile(
    r"""[`<>\[\]\\@|*_~$^]          # HTML, links, mentions, tables, emphasis, mathematics, labels
    |\w:/|mailto:|://|www\.|::      # addresses
    |&[\w#]|[#!%]\w                 # character references, issues, merge requests, milestones
    |\bGH-\d|\b(?=[a-f]*\d)[0-9a-f]{7,40}\b   # issues and commits
    |^/.|^\#+$                      # commands to a bot, headings""",
    re.X | re.I,
)
_RULE = re.compile(r"[-=:+/]+")
"""At the start of a line: an underline that makes a heading or a table, or a command with its name apart."""
_COMMAND = re.compile(r"^(?=/[a-z])", re.I | re.M)
_BULLET = re.compile(r"[*+-]")
_FENCE = re.compile(r"[ ]{0,3}(?P<ticks>`{3,}|~{3,})[^`]*$")


def harmless(text: str) -> str:
    """``text`` as Markdown that can only be read. Blocks of code stay as they are, without a language.

    Some languages act (``suggestion``, ``mermaid``), and a model's own suggestion was proven by nobody.
    """
    parts: list[str] = []
    prose: list[str] = []
    lines = text.replace("\r\n", "\n").split("\n")
    at = 0
    while at < len(lines):
        opened = _FENCE.match(lines[at])
        if opened is None:
            prose.append(lines[at])
            at += 1
            continue
        end = _closing(lines, at + 1, opened["ticks"])
        parts += [_prose(prose), fence(visible("\n".join(lines[at + 1 : end])))]
        prose = []
        at = end + 1
    return "\n\n".join(part for part in (*parts, _prose(prose)) if part)


def harmless_line(text: str) -> str:
    """The same on one line, where a block of code has no place."""
    return _line(plain_line(text))


def code(text: str) -> str:
    """``text`` as a code span, whatever it holds; a path, for example."""
    text = _SURROGATE.sub("\ufffd", text)
    text = " ".join("".join(c for c in text if c in "\n\t" or unicodedata.category(c)[0] != "C").split())
    ticks = "`" * next(
        length for length in range(1, len(text) + 2) if not re.search(rf"(?<!`)`{{{length}}}(?!`)", text)
    )
    space = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def fence(block: str, info: str = "") -> str:
    """``block`` as a block of code, unaltered; nothing stands between the fences where it is empty."""
    longest = max((len(run) for run in re.findall(r"`+", block)), default=0)
    ticks = "`" * max(3, longest + 1)
    end = "" if not block or block.endswith("\n") else "\n"
    return f"{ticks}{info}\n{block}{end}{ticks}"


def visible(block: str) -> str:
    """``block`` for code that is read and not applied: without what nobody sees, and no line begins as a command does.

    Forges skip code when they look for commands; bots that read comments often do not.
    """
    return _COMMAND.sub(" ", _CONTROL.sub("", plain.visible(_SURROGATE.sub("\ufffd", block))))


def _closing(lines: list[str], start: int, opened: str) -> int:
    close = re.compile(rf" {{0,3}}{opened[0]}{{{len(opened)},}}\s*$")
    return next((at for at in range(start, len(lines)) if close.match(lines[at])), len(lines))


def _prose(lines: list[str]) -> str:
    return "\n".join(map(_line, plain_text("\n".join(lines)).split("\n")))


def _line(line: str) -> str:
    words = [match[0] for match in _WORD.finditer(line.strip())]
    if not words:
        return ""
    first, *rest = words
    if rest and _BULLET.fullmatch(first):
        return " ".join(("-", *map(_word, rest)))
    return " ".join((code(first) if _RULE.fullmatch(first) else _word(first), *map(_word, rest)))


def _word(word: str) -> str:
    """The word, as code unless all of it outside its own code is plain. What ends a sentence stays outside."""
    if not _acts(word):
        return word
    bare = word.rstrip(".,;:?!")
    return code(bare) + word[len(bare) :] if _acts(bare) else code(word)


def _acts(word: str) -> bool:
    return _ACTIVE.search(_SPANS.sub("x", word)) is not None
