"""Past changes vote for the files they touched: what was once changed under such words is what such words are about.

Changes are found by their title's vector and by their words; each gives its vote to its files, under the names that
those have today.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inhouse_retrieval.catalog import Vectors
from inhouse_retrieval.history import MAX_CHANGED_FILES, todays_names
from inhouse_retrieval.history_tables import StoredChange

FOUND_BY_EACH = 100
"""Changes that the vectors find, and as many that the words find."""
_VOTERS = 30
_RRF_K = 20


@dataclass(frozen=True, slots=True)
class Vote:
    """A file, and the changes that spoke for it, the loudest first, as a person would name them."""

    path: str
    changes: tuple[str, ...]


class ChangeVotes:
    """The history of one moment, in memory.

    Args:
        changes: newest first.
        vectors: title vectors by their key; a change without one is found by its words alone.
    """

    def __init__(self, changes: Sequence[StoredChange], vectors: Mapping[str, Vectors]) -> None:
        self._changes = changes
        self._row = {change.id: row for row, change in enumerate(changes)}
        today = [tuple(names) for names in todays_names(changes)]
        # A change of more files is a mass edit, which says nothing about any of them but when it was changed.
        self._files = [names if len(names) <= MAX_CHANGED_FILES else () for names in today]
        self._newest: dict[str, int] = {}
        for row, names in enumerate(today):
            for path in names:
                self._newest.setdefault(path, row)
        self._with_vector = [row for row, change in enumerate(changes) if change.vector_key in vectors]
        rows = [vectors[changes[row].vector_key] for row in self._with_vector]
        self._vectors = np.stack(rows) if rows else None

    def last_changed(self, path: str) -> int | None:
        """When the file now at ``path`` was last changed, in seconds since 1970; ``None`` when no change says."""
        row = self._newest.get(path)
        # An index of before dates were kept has none until its next refresh.
        return self._changes[row].landed or None if row is not None else None

    def oldest(self) -> int | None:
        """When the oldest change that is known landed."""
        return self._changes[-1].landed or None if self._changes else None

    def votes(
        self, question: Vectors | None, matched: Sequence[int], live: Callable[[Collection[str]], Collection[str]]
    ) -> list[Vote]:
        """Files, the one with most votes first.

        Args:
            question: unit vector of the question, or ``None`` while there are none.
            matched: ids of the changes that its words found, best first.
            live: those of some paths that exist and may be seen; others get no vote.
        """
        scores: dict[int, float] = defaultdict(float)
        if question is not None and self._vectors is not None:
            # Of a short history a quarter at most: the nearest of a few changes may be near to nothing.
            nearest = min(FOUND_BY_EACH, len(self._with_vector) // 4)
            order = np.argsort(-(self._vectors @ question), kind="stable")[:nearest]
            for rank, at in enumerate(order, start=1):
                scores[self._with_vector[int(at)]] += 1 / (_RRF_K + rank)
        for rank, change_id in enumerate(matched[:FOUND_BY_EACH], start=1):
            if change_id in self._row:
                scores[self._row[change_id]] += 1 / (_RRF_K + rank)
        votes: dict[str, float] = defaultdict(float)
        spoke: dict[str, list[int]] = defaultdict(list)
        voters = sorted(scores, key=lambda row: (-scores[row], row))[:_VOTERS]
        living = live({path for row in voters for path in self._files[row]})
        for row in voters:
            files = [path for path in self._files[row] if path in living]
            # An old change counts less (the oldest e times less), and one of many files less for each.
            weight = scores[row] * math.exp(-row / len(self._changes)) / math.sqrt(max(len(files), 1))
            for path in files:
                votes[path] += weight
                spoke[path].append(row)
        return [
            Vote(path, tuple(_named(self._changes[row]) for row in spoke[path]))
            for path in sorted(votes, key=lambda path: (-votes[path], path))
        ]


def _named(change: StoredChange) -> str:
    return f"#{change.number} {change.title}" if change.number is not None else f"{change.commit[:8]} {change.title}"
