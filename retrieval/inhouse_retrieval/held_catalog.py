"""The catalog of one open index: the lock that guards it, what is remembered of it, and the one in its place when it
turns out to be corrupt.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from inhouse_retrieval.catalog import Catalog
from inhouse_retrieval.catalog_file import CatalogCorrupt, set_aside
from inhouse_retrieval.errors import Cancelled
from inhouse_retrieval.history_votes import ChangeVotes
from inhouse_retrieval.progress import Progress

_log = logging.getLogger(__name__)
_V = TypeVar("_V")

UNEMBEDDED = "unembedded"
"""Fact of the catalog: how many chunks have no vector."""
_AT_ONCE_S = 0.1
"""A search holds the lock for less; the first refresh of a repository for much longer."""


class HeldCatalog:
    """What the rooms of one index share.

    Attributes:
        lock: held while the catalog or the vector store is used, never while text is being embedded.
        catalog: another one after :meth:`begin_anew`.
        closed: set without the lock, so that work under way sees it and stops.
        unembedded: chunks that have no vector yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lock = threading.RLock()
        self.closed = False
        self.unembedded = 0
        self._votes: ChangeVotes | None = None
        self.catalog = self._open()
        with suppress(CatalogCorrupt):
            # Counting takes as long as the index is large; a kill leaves a number that the next refresh corrects.
            known = self.catalog.meta(UNEMBEDDED)
            self.unembedded = self.catalog.counts()[2] if known is None else int(known)

    def _open(self) -> Catalog:
        catalog, rebuilt = Catalog.open_or_rebuild(self._path)
        if rebuilt:
            # What the vector store holds is unknown now.
            catalog.set_meta("generation", str(time.time_ns()))
        return catalog

    def begin_anew(self) -> None:
        """Set the catalog aside and open a new one. Called with the lock."""
        self.catalog.close()
        set_aside(self.catalog.path)
        self.catalog = self._open()
        self._votes = None
        self.catalog.set_meta("generation", str(time.time_ns()))

    def check_open(self) -> None:
        """Go on only while the index is open.

        Raises:
            Cancelled: it was closed.
        """
        if self.closed:
            raise Cancelled("The index was closed.", "Open it again.")

    def check(self, progress: Progress, stage: str, done: int, total: int | None) -> None:
        """Tell ``progress`` of a step, which may stop the work, as a closed index does.

        Raises:
            Cancelled: so it was.
        """
        self.check_open()
        progress(stage, done, total)

    def at_once(self, look: Callable[[], _V]) -> _V | None:
        """What ``look`` gives; ``None`` when it would have to wait, or when the catalog has to be built anew."""
        if not self.lock.acquire(timeout=_AT_ONCE_S):
            return None
        try:
            self.check_open()
            return look()
        except CatalogCorrupt as error:  # the next search or refresh meets it and mends it
            _log.warning("the catalog cannot be read: %s", error)
            return None
        finally:
            self.lock.release()

    def former_encoder(self, encoder: str) -> str:
        """The encoder of the catalog's chunks, where it is another one than ``encoder``; empty elsewhere."""
        name = (self.catalog.meta("encoder") or "").rsplit(" ", 2)[0]
        return "" if name == encoder else name

    def note_unembedded(self, count: int) -> None:
        """So many chunks have no vector. Called with the lock."""
        self.unembedded = count
        self.catalog.set_meta(UNEMBEDDED, str(count))

    def change_votes(self) -> ChangeVotes:
        """The history, read when it is first asked for."""
        with self.lock:
            if self._votes is None:
                changes = self.catalog.history.changes()
                vectors = self.catalog.vectors([change.vector_key for change in changes])
                self._votes = ChangeVotes(changes, vectors)
            return self._votes

    def forget_votes(self) -> None:
        """The history is another one, or has more vectors: the next search reads it. Called with the lock."""
        self._votes = None
