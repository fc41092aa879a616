"""Code of the house that is like the added lines of a file: what those lines are read below, to be scored by it.

Searched at the adapter's snapshot, by the added lines themselves; the file's own passages do not count, since the file
is read anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from inhouse_retrieval import Passage
from inhouse_training.snapshot_search import Retriever

RUN_LINES = 16
"""Added lines of one question: about as many as a passage of the search has."""
RUNS = 4
"""Questions for one row of a file."""
_EACH = 5


def precedents(search: Retriever, path: str, lines: Sequence[str], wanted: Sequence[int]) -> list[Passage]:
    """Passages of other files that are like the ``wanted`` lines of a file: the best of each run of lines, then the
    second best of each, and so on.

    Args:
        lines: the whole file.
        wanted: 1-based numbers, in order.
    """
    runs = sorted(_runs(wanted), key=len, reverse=True)[:RUNS]
    asked = ("\n".join(lines[number - 1] for number in run) for run in runs)
    found = [[passage for passage in search(text, _EACH) if passage.path != path] for text in asked]
    places: dict[tuple[str, int], Passage] = {}
    for rank in zip_longest(*found):
        for passage in rank:
            if passage is not None:
                places.setdefault((passage.path, passage.start_line), passage)
    return list(places.values())


def _runs(wanted: Sequence[int]) -> Iterator[list[int]]:
    """Lines that stand together, :data:`RUN_LINES` at most."""
    run: list[int] = []
    for number in wanted:
        if run and (number != run[-1] + 1 or len(run) == RUN_LINES):
            yield run
            run = []
        run.append(number)
    if run:
        yield run
