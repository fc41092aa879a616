"""Who is next of those that wait: callers in turn, and of one caller who came first.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) where every item costs the same. Each caller's next item
has a start in virtual time: one after the start of the caller's item before, and never before that of the item that
was taken last. The earliest start goes first, of equal ones that of the caller who has waited longest for a turn. So
whoever comes with one item waits for no second item of anybody, and whoever comes again and again is no sooner next
than those who wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items of several callers. Whoever uses it from several threads holds a lock."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Item]] = {}  # of callers with items; who had a turn last stands last
        self._starts: dict[str, int] = {}
        self._now = 0

    def push(self, caller: str, item: Item) -> None:
        """An item comes."""
        if caller not in self._lines:
            self._lines[caller] = deque()
            self._starts[caller] = max(self._now, self._starts.get(caller, 0))
        self._lines[caller].append(item)

    def first(self) -> Item | None:
        """The item whose turn it is; ``None`` where none waits."""
        if not self._lines:
            return None
        return self._lines[min(self._lines, key=self._starts.__getitem__)][0]

    def take(self, caller: str, item: Item) -> None:
        """The turn of an item has come: it waits no more, and its caller has had a turn."""
        self.remove(caller, item)
        if caller in self._lines:
            self._lines[caller] = self._lines.pop(caller)
        self._now = max(self._now, self._starts[caller])
        self._starts[caller] += 1
        self._starts = {each: start for each, start in self._starts.items() if each in self._lines or start > self._now}

    def remove(self, caller: str, item: Item) -> None:
        """An item leaves without its turn."""
        line = self._lines[caller]
        line.remove(item)
        if not line:
            del self._lines[caller]

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Item]:
        """Every item; not in the order of their turns."""
        for line in self._lines.values():
            yield from line
