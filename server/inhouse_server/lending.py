"""The memory of this process's models, lent to a retraining on the same machine for as long as it renews its lease.

No answer begins meanwhile; those under way end first. A lease that is not renewed ends by itself, so a borrower that
was killed keeps nobody from the model.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from inhouse_retrieval.errors import InhouseError
from inhouse_server.engines.failures import Overloaded

log = logging.getLogger(__name__)

RETRY_S = 30.0
"""When to ask again: nobody knows how long a training has to go."""


class SteppedAside(Overloaded):
    """Nobody is answered now: the memory of the model is lent."""

    def __init__(self, pid: int) -> None:
        super().__init__(
            f"No question is answered now: the model made room for a retraining (process {pid}); search goes on.",
            503,
            RETRY_S,
        )


class AlreadyLent(InhouseError):
    """Another retraining has the memory."""


@dataclass(frozen=True, slots=True)
class _Lease:
    """What a borrower was promised.

    Attributes:
        name: made up by the borrower, who alone knows it.
        pid: its process.
        until: by the clock of the :class:`Lending`.
    """

    name: str
    pid: int
    until: float


class Lending:
    """Lends the memory of models, and counts who uses them. Methods may be called from any thread.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._lease: _Lease | None = None
        self._uses = 0
        self._changing = False
        self._away_for = ""  # the lease for which the models are gone
        self._holders: list[tuple[Callable[[], None], Callable[[], None]]] = []

    def holds(self, unload: Callable[[], None], load: Callable[[], None]) -> None:
        """Name what holds a model: ``unload`` lets it go, and ``load`` has it again."""
        self._holders.append((unload, load))

    @contextmanager
    def use(self) -> Iterator[None]:
        """Around whatever uses the model; not to be entered once more within itself.

        Raises:
            SteppedAside: its memory is lent.
        """
        with self._changed:
            while self._changing:
                self._changed.wait()
            if (lease := self._current()) is not None:
                raise SteppedAside(lease.pid)
            self._uses += 1
        try:
            yield
        finally:
            with self._changed:
                self._uses -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Around what changes the model: those who use it end first, and those who come meanwhile wait."""
        with self._changed:
            while self._changing:
                self._changed.wait()
            self._changing = True
            while self._uses:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._changing = False
                self._changed.notify_all()

    def lend(self, name: str, pid: int, seconds: float) -> dict[str, Any]:
        """Lend the memory, or renew the lease of this name.

        Returns:
            What :meth:`status` tells. The memory is there once ``aside`` is true.

        Raises:
            AlreadyLent: there is a lease of another name.
        """
        with self._changed:
            lease = self._current()
            if lease is not None and lease.name != name:
                raise AlreadyLent(
                    f"The model made room for another retraining (process {lease.pid}).", "Wait for its end."
                )
            begins = lease is None
            self._lease = _Lease(name, pid, self._clock() + seconds)
            self._changed.notify_all()
        if begins:
            log.info("stepping aside for process %d", pid)
            threading.Thread(target=self._step_aside, args=(name,), name="stepped-aside", daemon=True).start()
        status = self.status()
        assert status is not None
        return status

    def take_back(self, name: str) -> None:
        """End the lease of this name, if there is one."""
        with self._changed:
            if self._lease is not None and self._lease.name == name:
                self._lease = None
                self._changed.notify_all()

    def status(self) -> dict[str, Any] | None:
        """``pid`` of the borrower, ``until`` when the lease runs unless it is renewed, ``answering``: answers that have
        yet to end, and whether the models are gone (``aside``); ``None`` while nothing is lent."""
        with self._changed:
            lease = self._current()
            if lease is None:
                return None
            until = datetime.now(UTC) + timedelta(seconds=lease.until - self._clock())
            told = until.isoformat(timespec="seconds")
            return {"pid": lease.pid, "until": told, "answering": self._uses, "aside": self._away_for == lease.name}

    def _step_aside(self, name: str) -> None:
        """From the beginning of a lease to the models' return, in a thread of its own."""
        with self._changed:
            while self._uses and (left := self._left(name)):
                self._changed.wait(left)
            runs = self._left(name) > 0
        if runs:
            for unload, _ in reversed(self._holders):  # what is shared by them was named first
                unload()
        with self._changed:
            self._away_for = name if runs else self._away_for
            while left := self._left(name):
                self._changed.wait(left)
            self._away_for = "" if self._away_for == name else self._away_for
            if self._lease is not None and self._lease.name == name:
                log.warning("the retraining (process %d) did not renew its lease", self._lease.pid)
        log.info("coming back")
        for _, load in self._holders:
            load()

    def _current(self) -> _Lease | None:
        """The lease that has not ended, also where nobody has noticed that one has."""
        return self._lease if self._lease is not None and self._lease.until > self._clock() else None

    def _left(self, name: str) -> float:
        """Seconds that a lease still has; 0 when it has ended."""
        lease = self._current()
        return lease.until - self._clock() if lease is not None and lease.name == name else 0.0
