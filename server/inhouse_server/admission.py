"""How many answers may wait for the engine of this process: beyond that a client is told when to try again.

Whoever waits holds a thread and a connection, and an answer that comes after minutes is of no use to anybody. The
engine takes who waits in turn by caller (:mod:`inhouse_training.fair_queue`); here it is the caller with the most
waiting who is refused, so that nobody is because of another's questions.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event

from inhouse_retrieval.errors import Cancelled
from inhouse_server.engines.failures import Overloaded

LONGEST_RETRY_S = 120.0
_FIRST_GUESS_S = 5.0
"""How long it takes until one more has ended, before any has."""


@dataclass(eq=False, slots=True)
class Place:
    """An answer's place among those that are being made or wait.

    Attributes:
        lost: set when another caller's question has it now. The answer, which waited, ends then.
        waits: it has not begun.
        changing: held by whoever gives a place up, so that an answer either begins or loses its place.
    """

    caller: str = ""
    changing: threading.Lock = field(default_factory=threading.Lock)
    lost: Event = field(default_factory=Event)
    waits: bool = True

    def begin(self) -> None:
        """The engine has begun with the answer, whose place nobody's question can take any more if it still has it."""
        with self.changing:
            self.waits = self.lost.is_set()


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
        self._places: list[Place] = []  # in the order of their arrival
        self._between_s = _FIRST_GUESS_S
        self._last_end = clock()

    @contextmanager
    def enter(self, caller: str = "") -> Iterator[Place]:
        """Around one answer. Whoever makes it calls :meth:`Place.begin`, and ends it when the place is lost.

        Raises:
            Overloaded: too many wait, and ``caller`` has as many waiting as anybody; with the time after which, as
                answers went lately, one more has room. Also in place of :class:`Cancelled`, when the place was lost.
        """
        at_once = self._at_once()
        place = Place(caller, self._counting)
        with self._counting:
            if at_once is not None and len(self._places) >= at_once + self._waiting:
                self._make_room(caller)
            self._places.append(place)
        began = self._clock()
        try:
            yield place
        except Cancelled:
            if not place.lost.is_set():
                raise
            raise self._overloaded("Others ask as well, and most of the questions that wait are yours.") from None
        finally:
            self._leave(place, began)

    def _make_room(self, caller: str) -> None:
        """Take the newest place from the caller with the most waiting, or raise where that would be ``caller``."""
        waiting = [place for place in self._places if place.waits]
        counts = Counter(place.caller for place in waiting)
        most = max(counts.values(), default=0)
        if most <= counts[caller] + 1:
            raise self._overloaded(f"{len(self._places)} answers are being made or wait already.")
        given_up = next(place for place in reversed(waiting) if counts[place.caller] == most)
        self._places.remove(given_up)
        given_up.lost.set()

    def _overloaded(self, problem: str) -> Overloaded:
        return Overloaded(problem, 429, min(max(self._between_s, 1.0), LONGEST_RETRY_S))

    def _leave(self, place: Place, began: float) -> None:
        with self._counting:
            if not place.lost.is_set():
                self._places.remove(place)
            if place.waits:
                return  # nothing was made, so it does not tell how fast answers end
            now = self._clock()
            # From end to end while there is work: an answer's own time holds its waiting. Newer ones count more.
            self._between_s += (now - max(began, self._last_end) - self._between_s) / 4
            self._last_end = now
