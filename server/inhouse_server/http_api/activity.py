"""What the owner has under way: when a detached one may exit, and when one that is to stop has answered everybody."""

from __future__ import annotations

import time
from collections.abc import Callable


class Activity:
    """Requests and editors that are open. Belongs to the event loop.

    Attributes:
        draining: the owner is to stop; what is open ends, and nothing new begins.
        editors: each says how many requests of its editor are being answered.
    """

    def __init__(self) -> None:
        self.draining = False
        self.editors: set[Callable[[], int]] = set()
        self._answering = 0
        self._lasting = 0
        self._last = time.monotonic()

    @property
    def answering(self) -> int:
        """Requests that are being answered, and those of editors that are."""
        return self._answering + sum(count() for count in self.editors)

    @property
    def open(self) -> int:
        """Those, and connections that merely stay open."""
        return self._answering + self._lasting

    def begin(self, lasting: bool = False) -> None:
        """A request came, or a connection that lasts."""
        if lasting:
            self._lasting += 1
        else:
            self._answering += 1

    def end(self, lasting: bool = False) -> None:
        """It went."""
        if lasting:
            self._lasting -= 1
        else:
            self._answering -= 1
        self._last = time.monotonic()

    def idle_for(self, seconds: float) -> bool:
        """Nobody is connected, and nobody was for ``seconds``."""
        return self.open == 0 and time.monotonic() - self._last > seconds
