"""What a question quotes, word for word: an error message, a log line, a piece of code; and where it is written.

A message that a program printed holds values that its source does not: `No user 1234` is written as `No user {id}`.
So a text that occurs nowhere as a whole is looked for by the longest runs of its words that do occur.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

LEAST_CHARACTERS = 4
"""A shorter text is a word or a sign; trigrams find nothing below three."""
LOOKED_AT = 20_000
"""Characters of a question that are looked at."""
_LEAST_RUN = 8
_LONGEST = 300
_MOST = 4
# No start is tried twice: whatever a question holds, reading it takes time in proportion to its length.
_OPENING = re.compile(r"```|`(?![`\n])|\"(?![\"\n])|“(?![”\n])|(?<![\w'])'(?!['\n])")
_CLOSING = {
    "```": re.compile(r"(?P<closing>```)"),
    "`": re.compile(r"(?P<closing>`)|\n"),
    '"': re.compile(r"(?P<closing>\")|\n"),
    "“": re.compile(r"(?P<closing>”)|\n"),
    "'": re.compile(r"(?P<closing>'(?![\w']))|\n|'(?!\w)"),  # one before a letter is an apostrophe
}
_LANGUAGE = re.compile(r"\w*\n?")
_ERROR = re.compile(r"(?:Error|Exception|Warning|panic): *(?P<message>.+)")
_WORD = re.compile(r"\S+")
_NAME = re.compile(r"[\w.$:#-]+(?:\(\))?")


def literals(question: str) -> list[str]:
    """Texts that the first :data:`LOOKED_AT` characters of ``question`` quote, or that follow the name of an error in
    them; names alone are none, and lead to their definition."""
    question = question[:LOOKED_AT]
    found = [*_quoted(question), *(match["message"] for match in _ERROR.finditer(question))]
    lines = [line.strip() for text in found for line in text.split("\n")]
    kept = (line[:_LONGEST] for line in lines if len(line) >= LEAST_CHARACTERS and not _NAME.fullmatch(line))
    return list(dict.fromkeys(kept))[:_MOST]


def _quoted(question: str) -> Iterator[str]:
    """Texts between marks, from left to right, none within another; only a block in ``` goes over several lines."""
    at = 0
    unclosed: dict[str, int] = defaultdict(int)  # by mark: nothing that opens before here is closed
    while opening := _OPENING.search(question, at):
        mark, start = opening[0], opening.end()
        at = opening.start() + 1
        if start <= unclosed[mark]:
            continue
        end = _CLOSING[mark].search(question, start + 1)
        if end is None or end["closing"] is None:
            unclosed[mark] = end.start() if end is not None else len(question)
            continue
        text, at = question[start : end.start()], end.end()
        yield (_LANGUAGE.sub("", text, count=1) or text) if mark == "```" else text


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
