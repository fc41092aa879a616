"""How much one token may ask: a bucket of requests that refills, and a bound on what runs at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable


class RequestLimits:
    """Limits by token id; belongs to one event loop.

    Args:
        per_minute: requests a minute; that many may come at once after a pause. 0 for no limit.
        at_once: requests and connections that are open at once. 0 for no limit.
    """

    def __init__(self, per_minute: int, at_once: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._at_once = at_once
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}  # requests left, and when that was counted
        self._open: Counter[str] = Counter()

    def take(self, token_id: str) -> float:
        """Count one request. Returns 0 where it may run, or the seconds after which to try again."""
        if not self._per_minute:
            return 0.0
        now = self._clock()
        left, counted = self._left.get(token_id, (float(self._per_minute), now))
        rate = self._per_minute / 60
        left = min(self._per_minute, left + (now - counted) * rate)
        if left < 1:
            self._left[token_id] = left, now
            return (1 - left) / rate
        self._left[token_id] = left - 1, now
        return 0.0

    def is_full(self, token_id: str) -> bool:
        """Whether as much is open as may be."""
        return bool(self._at_once) and self._open[token_id] >= self._at_once

    def begin(self, token_id: str) -> None:
        """One more is open; :meth:`end` must follow."""
        self._open[token_id] += 1

    def end(self, token_id: str) -> None:
        self._open[token_id] -= 1
        if not self._open[token_id]:
            del self._open[token_id]
