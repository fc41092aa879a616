"""What a question quotes, word for word: an error message, a log line, a piece of code; and where it is written.

A message that a program printed holds values that its source does not: `No user 1234` is written as `No user {id}`.
So a text that occurs nowhere as a whole is looked for by the longest runs of its words that do occur.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

LEAST_CHARACTERS = 4
"""A shorter text is a word or a sign; trigrams find nothing below three."""
_LEAST_RUN = 8
_LONGEST = 300
_MOST = 4
_QUOTED = re.compile(
    r"```\w*\n?(?P<block>.+?)```|`(?P<tick>[^`\n]+)`|\"(?P<double>[^\"\n]+)\"|“(?P<curly>[^”\n]+)”"
    r"|(?<![\w'])'(?P<single>[^'\n]+(?:'\w[^'\n]*)*)'(?![\w'])",
    re.S,
)
_ERROR = re.compile(r"^.*?\b[\w.]*(?:Error|Exception|Warning|panic)\b: *(?P<message>.+)$", re.M)
_WORD = re.compile(r"\S+")
_NAME = re.compile(r"[\w.$:#-]+(?:\(\))?")


def literals(question: str) -> list[str]:
    """Texts that ``question`` quotes, or that follow the name of an error in it; names alone are none, and lead to
    their definition."""
    found = [next(text for text in match.groups() if text is not None) for match in _QUOTED.finditer(question)]
    found += [match["message"] for match in _ERROR.finditer(question)]
    lines = [line.strip() for text in found for line in text.split("\n")]
    kept = (line[:_LONGEST] for line in lines if len(line) >= LEAST_CHARACTERS and not _NAME.fullmatch(line))
    return list(dict.fromkeys(kept))[:_MOST]


def chunks_with(texts: Sequence[str], containing: Callable[[str], Sequence[int]]) -> list[int]:
    """Ids of the chunks that hold most characters of ``texts``, best first; those with less than half of the best are
    left out.

    Args:
        containing: the ids of the chunks in which a text occurs.
    """
    held: dict[int, int] = defaultdict(int)
    for text in texts:
        whole = containing(text)
        for run, ids in [(text, whole)] if whole else _runs(text, containing):
            for chunk in ids:
                held[chunk] += len(run)
    most = max(held.values(), default=0)
    return sorted((chunk for chunk in held if 2 * held[chunk] >= most), key=lambda chunk: (-held[chunk], chunk))


def _runs(text: str, containing: Callable[[str], Sequence[int]]) -> list[tuple[str, Sequence[int]]]:
    """The longest runs of words that occur somewhere, from left to right, none within another."""
    words = list(_WORD.finditer(text))
    found: list[tuple[str, Sequence[int]]] = []
    start = 0
    while start < len(words):
        end, ids = start, _NOWHERE
        while end < len(words) and (wider := containing(text[words[start].start() : words[end].end()])):
            end, ids = end + 1, wider
        if end == start:
            start += 1
            continue
        run = text[words[start].start() : words[end - 1].end()]
        if len(run) >= _LEAST_RUN and end - start > 1:
            found.append((run, ids))
        start = end
    return found


_NOWHERE: Sequence[int] = ()
