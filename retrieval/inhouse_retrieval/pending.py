"""How many files of the work tree read differently from what is indexed, counted without making searches wait."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import suppress

from inhouse_retrieval.catalog_file import CatalogCorrupt
from inhouse_retrieval.documents import Documents, count_pending
from inhouse_retrieval.errors import InhouseError
from inhouse_retrieval.held_catalog import HeldCatalog

_PENDING_SECONDS = 2.0
"""Searches within this time share one look at the whole work tree. Hits themselves are always checked."""
_LONG_LOOK_SECONDS = 0.1
_LOOK_SHARE = 20
"""The number of pending files is counted anew after this many times as long as that takes."""


class PendingFiles:
    """The number as last counted, and when that was."""

    def __init__(self, held: HeldCatalog, documents: Documents) -> None:
        self._held = held
        self._documents = documents
        self._pending: tuple[float, int] | None = None
        self._look_seconds = 0.0
        self._looking: threading.Thread | None = None

    def note_none(self) -> None:
        """Everything was taken in just now. Called with the lock."""
        self._pending = (time.monotonic(), 0)

    def note_fewer(self, count: int) -> None:
        """So many files were taken in. Called with the lock."""
        if self._pending is not None:
            self._pending = (self._pending[0], max(0, self._pending[1] - count))

    def count(self, at_most_old: float = _PENDING_SECONDS) -> int:
        """The number, not older than ``at_most_old`` seconds unless looking takes long; 0: counted now."""
        with self._held.lock:
            if at_most_old:
                at_most_old = max(at_most_old, _LOOK_SHARE * self._look_seconds)
            if self._pending is not None and time.monotonic() - self._pending[0] < at_most_old:
                return self._pending[1]
            if self._pending is not None and at_most_old and self._look_seconds > _LONG_LOOK_SECONDS:
                # In a large repository a search does not wait for the number: the last one is told meanwhile.
                if self._looking is None or not self._looking.is_alive():
                    self._looking = threading.Thread(target=self._look_again, name="pending", daemon=True)
                    self._looking.start()
                return self._pending[1]
        return self._look()

    def _look_again(self) -> None:
        with suppress(InhouseError, CatalogCorrupt, sqlite3.Error):  # the next search or refresh meets it and tells
            self._look()

    def _look(self) -> int:
        """How many files of the work tree read differently from what is indexed, counted now."""
        began = time.monotonic()
        with self._held.lock:
            self._held.check_open()
            known = self._held.catalog.files()
        count = count_pending(known, self._documents.repository, self._documents.wiki)
        with self._held.lock:
            self._pending = (time.monotonic(), count)
            self._look_seconds = time.monotonic() - began
        return count
