"""The names that an answer speaks of as if they existed."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAME = r"[A-Za-z_$][\w$]*"
_WORD = re.compile(_NAME)
_LEAST = 4
"""Shorter names are met by chance."""

_SHAPED = re.compile(r"[A-Za-z0-9]_[A-Za-z0-9]|[a-z0-9][A-Z]")
_CALLED = re.compile(rf"({_NAME})\((?!s\))")
_QUOTED = re.compile(rf"(?<!`)`({_NAME})`(?!`)")
_BOUND = (
    re.compile(
        r"\b(?:def|class|function|func|fn|fun|const|let|var|val|type|interface|struct|enum|trait|mod|module|as|for)\s+"
        rf"({_NAME})"
    ),
    re.compile(rf"({_NAME})\s*(?::\s*[^=\n()]{{1,60}})?(?<![=!<>])=(?![=>])"),
)
_PARAMETERS = re.compile(rf"\b(?:def|function|func|fn|fun)\s+{_NAME}\s*\(([^)]*)\)?|\(([^()]*)\)\s*(?::[^=\n]*)?=>")


def claimed_identifiers(answer: str) -> frozenset[str]:
    """Names that ``answer`` calls, puts between backticks, or writes in the shape of code (``snake_case``,
    ``camelCase``), without those that it defines itself.

    No parser: an answer is prose, code or a piece of code that was cut, in whatever language.
    """
    claimed = {*_CALLED.findall(answer), *_QUOTED.findall(answer)}
    claimed |= {word for word in _WORD.findall(answer) if _SHAPED.search(word)}
    for pattern in _BOUND:
        claimed -= set(pattern.findall(answer))
    for groups in _PARAMETERS.findall(answer):
        claimed -= set(_WORD.findall(" ".join(groups)))
    return frozenset(name for name in claimed if len(name) >= _LEAST)


def names_in(texts: Iterable[str]) -> set[str]:
    """Every word of ``texts`` that could be a name."""
    return {word for text in texts for word in _WORD.findall(text)}
