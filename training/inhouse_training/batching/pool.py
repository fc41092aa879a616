"""Places in the pool of keys and values: one for each conversation, without gaps inside.

How long a conversation can become is known when it begins (its prompt and the most that it may write), so a place is
taken once and is never moved. What an ended conversation has read stays until its room is needed: another one that
begins with the same tokens copies the keys and values instead of computing them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

SHORTEST_PREFIX = 16
"""Tokens; copying fewer pays for nothing."""
KEPT = 64
"""Ended conversations that are remembered at most."""


@dataclass(eq=False, slots=True)
class Place:
    """A part of the pool.

    Attributes:
        start, size: in tokens.
        adapter: the version that its keys and values were computed with.
        ids: the tokens whose keys and values it holds.
    """

    start: int
    size: int
    adapter: str
    ids: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


class Places:
    """Hands out places of a pool of ``tokens`` tokens. Belongs to one thread.

    Args:
        block: tokens that lie together: places begin and end between blocks, of which ``tokens`` is a multiple.
        kept: ended conversations that are remembered at most.
    """

    def __init__(self, tokens: int, block: int = 1, kept: int = KEPT) -> None:
        self.tokens = tokens
        self._block = block
        self._keep = kept
        self._taken: list[Place] = []
        self._kept: list[Place] = []  # the one that ended last is last

    def take(self, size: int, adapter: str) -> Place | None:
        """A place of ``size`` tokens; ``None`` while there is none. Kept conversations make room, oldest first."""
        size = self._whole(size)
        start = self._gap(size)
        while start is None and self._kept:
            self._kept.pop(0)
            start = self._gap(size)
        if start is None:
            return None
        place = Place(start, size, adapter)
        self._taken.append(place)
        return place

    def give_back(self, place: Place, ids: Sequence[int]) -> None:
        """End a conversation that has read and written ``ids``."""
        self._taken.remove(place)
        place.ids = np.asarray(ids, np.int64)
        place.size = self._whole(len(ids))
        if len(ids) >= SHORTEST_PREFIX:
            self._kept = [*self._kept, place][-self._keep :]

    def forget(self) -> None:
        """Keep nothing of the conversations that have ended."""
        self._kept = []

    def clear(self) -> None:
        """Forget everything."""
        self._taken, self._kept = [], []

    def same_beginning(self, ids: Sequence[int], place: Place) -> tuple[int, int]:
        """Where the pool already holds the beginning of ``ids`` for the adapter of ``place``, and how many tokens.

        At least one token is left to be read: what follows it comes from the forward pass. (0, 0) when nothing is
        found.
        """
        wanted = np.asarray(ids[:-1], np.int64)
        best = (0, 0)
        for other in (*self._kept, *self._taken):
            if other is place or other.adapter != place.adapter:
                continue
            length = min(len(wanted), len(other.ids))
            differing = np.flatnonzero(wanted[:length] != other.ids[:length])
            same = int(differing[0]) if len(differing) else length
            if same >= SHORTEST_PREFIX and same > best[1]:
                best = (other.start, same)
        return best

    def _whole(self, size: int) -> int:
        return -(-size // self._block) * self._block

    def _gap(self, size: int) -> int | None:
        at = 0
        for place in sorted((*self._taken, *self._kept), key=lambda each: each.start):
            if place.start - at >= size:
                return at
            at = max(at, place.start + place.size)
        return at if self.tokens - at >= size else None
