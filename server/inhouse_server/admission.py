"""How many answers may wait for the engine of this process: beyond that a client is told when to try again.

Whoever waits holds a thread and a connection, and an answer that comes after minutes is of no use to anybody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inhouse_server.engines.failures import Overloaded

LONGEST_RETRY_S = 120.0
_FIRST_GUESS_S = 5.0
"""How long it takes until one more has ended, before any has."""


class Admission:
    """Counts answers from their question to their end. Safe to call from several threads at once.

    Args:
        at_once: how many are made at once, or ``None`` where the engine is elsewhere and refuses by itself.
        waiting: how many may wait beside those.
        clock: seconds.
    """

    def __init__(
        self, at_once: Callable[[], int | None], waiting: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._at_once = at_once
        self._waiting = waiting
        self._clock = clock
        self._counting = threading.Lock()
        self._inside = 0
        self._between_s = _FIRST_GUESS_S
        self._last_end = clock()

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Around one answer.

        Raises:
            Overloaded: too many wait; with the time after which, as answers went lately, one more has room.
        """
        at_once = self._at_once()
        with self._counting:
            if at_once is not None and self._inside >= at_once + self._waiting:
                retry_s = min(max(self._between_s, 1.0), LONGEST_RETRY_S)
                raise Overloaded(f"{self._inside} answers are being made or wait already.", 429, retry_s)
            self._inside += 1
        began = self._clock()
        try:
            yield
        finally:
            with self._counting:
                now = self._clock()
                # From end to end while there is work: an answer's own time holds its waiting. Newer ones count more.
                self._between_s += (now - max(began, self._last_end) - self._between_s) / 4
                self._last_end = now
                self._inside -= 1
