"""Rows in which chosen lines of a file are scored, in the format in which files are learned.

A file that fits is one row. A longer one is read in windows of whole lines, each under the file's header as in
training. A window begins at the start of the file where that fits, and otherwise so that about half of it lies before
the first line that is scored in it.

The same row may be read below passages of other files, which stand there in that format, too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from inhouse_retrieval import Passage
from inhouse_retrieval.convention_spans import convention_spans

from .documents import file_document, token_starts
from .engine import ScoredRow
from .prompts import IGNORED, literal_ids, raw_row

_HEADER_SLACK = 8
"""Tokens by which header and text may come to more together than apart."""


@dataclass(frozen=True, slots=True)
class LineRow:
    """A row that scores lines of a file.

    Attributes:
        lines: for each labelled token, the 1-based line of the file in which it begins. In many vocabularies the token
            that ends a line holds part of the next one's indentation, too.
        conventional: for each labelled token, whether it carries a convention (an import, a callee, the name of a type
            or property, a literal); all ``False`` where there is no grammar.
        from_line: the file's line that the row begins with; the lines above it were not seen.
    """

    row: ScoredRow
    lines: tuple[int, ...]
    conventional: tuple[bool, ...]
    from_line: int


def line_rows(
    tokenizer: Any, path: str, lines: Sequence[str], wanted: Collection[int], max_tokens: int
) -> list[LineRow]:
    """The rows that score the ``wanted`` lines of a file; a line longer than half a row is left out.

    Args:
        lines: the whole file, without line ends.
        wanted: 1-based numbers.
        max_tokens: of one row.
    """
    header = file_document(path, "").header
    text = "".join(line + "\n" for line in lines)
    ends = list(accumulate(len(line) + 1 for line in lines))
    per_line = [0] * len(lines)
    for start in token_starts(tokenizer, text):
        per_line[bisect_right(ends, start)] += 1
    budget = max_tokens - len(raw_row(tokenizer, header, ends=False)[0]) - _HEADER_SLACK
    before = [0, *accumulate(per_line)]
    carrying = [(span.start, span.end) for span in convention_spans(path, text) or ()]
    rows: list[LineRow] = []
    for first, chosen in _windows(before, sorted(set(wanted)), budget):
        offset = ends[first - 2] if first > 1 else 0
        rows.append(_row(tokenizer, header, text[offset : ends[chosen[-1] - 1]], offset, ends, chosen, carrying, first))
    return rows


def below_passages(tokenizer: Any, row: LineRow, passages: Sequence[Passage], max_tokens: int) -> ScoredRow:
    """The row with passages of other files above it, the first one nearest; its labelled tokens are the same.

    Args:
        passages: best first; one that does not fit any more is left out.
        max_tokens: of all passages together.
    """
    above: list[int] = []
    for passage in passages:
        text = file_document(passage.path, "").header + passage.text.rstrip("\n") + "\n\n"
        ids = literal_ids(tokenizer, text)
        if len(above) + len(ids) <= max_tokens:
            above = ids + above
    opening = len(raw_row(tokenizer, "", ends=False)[0])
    ids_, labels = row.row.input_ids, row.row.labels
    return ScoredRow(
        (*ids_[:opening], *above, *ids_[opening:]), (*labels[:opening], *[IGNORED] * len(above), *labels[opening:])
    )


def _windows(before: Sequence[int], wanted: Sequence[int], budget: int) -> Iterator[tuple[int, list[int]]]:
    """``(first line, lines to score)`` of each window; ``before[n]`` is the tokens of the first n lines."""
    left = [line for line in wanted if before[line] - before[line - 1] <= budget // 2]
    while left:
        first = 1
        if before[left[0]] > budget:
            while before[left[0] - 1] - before[first - 1] > budget // 2:
                first += 1
        chosen = [line for line in left if before[line] - before[first - 1] <= budget]
        yield first, chosen
        left = left[len(chosen) :]


def _row(
    tokenizer: Any, header: str, text: str, offset: int, ends: Sequence[int], chosen: Sequence[int],
    carrying: Sequence[tuple[int, int]], first: int,
) -> LineRow:  # fmt: skip
    ids, _ = raw_row(tokenizer, header + text, ends=False)
    starts = token_starts(tokenizer, header + text)
    opening = len(ids) - len(starts)  # what the tokenizer puts before a text
    wanted = set(chosen)
    labels = [IGNORED] * len(ids)
    of_line: list[int] = []
    conventional: list[bool] = []
    begins = [start for start, _ in carrying]
    for number, start in enumerate(starts):
        at = start - len(header) + offset
        end = (starts[number + 1] - len(header) if number + 1 < len(starts) else len(text)) + offset
        line = bisect_right(ends, at) + 1
        if start < len(header) or line not in wanted or opening + number == 0:
            continue
        labels[opening + number] = ids[opening + number]
        of_line.append(line)
        span = bisect_right(begins, end - 1) - 1  # the last that begins within the token, or before it
        conventional.append(span >= 0 and carrying[span][1] > at)
    return LineRow(ScoredRow(tuple(ids), tuple(labels)), tuple(of_line), tuple(conventional), first)
