"""Words of code and of questions, as the full-text index sees them."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+(?:_+[^\W_]+)*")
_PARTS = re.compile(r"[^\W\d_]+|\d+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_MAX_TERMS = 64
_STOP = (
    "a an and are as at be by can did do does for from had has have how i if in into is it its me my "
    "not of on or our should so than that the their them then there these they this to was we were what "
    "when where which who why will with would you your please"
)
_STOP_WORDS = frozenset(_STOP.split())


def split_identifiers(text: str) -> list[str]:
    """Lower-case words in order; a compound identifier also gives its parts: ``getUserName`` -> getusername
    get user name."""
    words: list[str] = []
    for match in _WORD.finditer(text):
        word = match[0]
        parts = [part for piece in _HUMP.split(word) for part in _PARTS.findall(piece)]
        if len(parts) > 1:
            words.append(word.replace("_", "").lower())
        words += [part.lower() for part in parts]
    return words


_IDENTIFIER = re.compile(r"(?P<tick>`)?(?P<name>[^\W\d]\w*)(?(tick)`|)(?P<call>\()?")
_LOOKS_LIKE_CODE = re.compile(r"[^\W_]_+[^\W_]|[a-z0-9][A-Z]|[A-Z]{2}[a-z]")


def identifiers(text: str) -> list[str]:
    """Words of a question that name something in code: ``camelCase``, ``snake_case``, `` `ticked` ``, ``called()``, or
    the only word there is."""
    found = list(_IDENTIFIER.finditer(text))
    alone = len(text.split()) == 1
    names = [
        match["name"]
        for match in found
        if alone or match["tick"] or match["call"] or _LOOKS_LIKE_CODE.search(match["name"])
    ]
    return list(dict.fromkeys(names))[:_MAX_TERMS]


def index_terms(text: str) -> str:
    """What goes into the full-text index for ``text``."""
    return " ".join(split_identifiers(text))


def match_expression(question: str) -> str | None:
    """An FTS5 expression that matches chunks with any word of ``question``; ``None`` when it has no words."""
    words = list(dict.fromkeys(split_identifiers(question)))
    kept = [word for word in words if word not in _STOP_WORDS and len(word) > 1] or words
    # Words hold letters and digits only, so quoting needs no escapes.
    return " OR ".join(f'"{word}"' for word in kept[:_MAX_TERMS]) or None
