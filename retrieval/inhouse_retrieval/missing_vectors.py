"""Computing the vectors that the catalog lacks: a page of texts at a time, kept a few at a time, without the lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from inhouse_retrieval.embedding import Encoder
from inhouse_retrieval.held_catalog import HeldCatalog
from inhouse_retrieval.progress import Progress

_VECTORS_A_STEP = 32
"""Vectors are kept this many at a time: a kill loses less than a second of embedding."""
_TEXTS_A_PAGE = 4096
"""Texts held at once while they wait for their vectors."""


class MissingVectors:
    """The vectors that one index still has to compute, and the loading of what computes them."""

    def __init__(self, encoder: Encoder, held: HeldCatalog) -> None:
        self._encoder = encoder
        self._held = held
        self._loading: threading.Thread | None = None

    def load_encoder(self) -> threading.Thread:
        """Load the model beside the work, once. A failure shows when it is needed."""

        def load() -> None:
            with suppress(Exception):
                self._encoder.encode_query("")

        if self._loading is None:
            self._loading = threading.Thread(target=load, name="encoder-loading", daemon=True)
            self._loading.start()
        return self._loading

    def wait_for_encoder(self) -> None:
        """Wait for the model, but no longer than this index is open: loading takes seconds and cannot be stopped."""
        loading = self.load_encoder()
        while loading.is_alive():
            loading.join(0.1)
            self._held.check_open()

    def embed_chunks(self, progress: Progress) -> int:
        """Those of the code and the wiki. Returns how many were computed."""
        with self._held.lock:
            total = self._held.catalog.counts()[2]
        return self.embed("embedding", self._held.catalog.without_vector, total, progress)

    def embed_titles(self, progress: Progress) -> None:
        """The titles of the history's changes; much shorter than chunks, and searched by numpy alone."""
        if self.embed("embedding the history", self._held.catalog.history.titles_without_vector, None, progress):
            with self._held.lock:
                self._held.forget_votes()

    def embed(
        self, stage: str, next_page: Callable[[int], list[tuple[str, str]]], total: int | None, progress: Progress
    ) -> int:
        """Compute and keep the vectors of ``(key, text)`` pairs, page after page, until there are no more.

        Args:
            total: how many there are; ``None`` where only the last page tells.
        """
        done = 0
        while True:
            with self._held.lock:
                page = next_page(_TEXTS_A_PAGE)
            if not page:
                return done
            self.wait_for_encoder()
            if total is None and len(page) < _TEXTS_A_PAGE:
                total = done + len(page)
            self.embed_page(stage, page, done, total, progress)
            done += len(page)

    def embed_page(
        self, stage: str, missing: Sequence[tuple[str, str]], done: int, total: int | None, progress: Progress
    ) -> None:
        """Compute and keep the vectors of ``missing``, which come after ``done`` others of ``total``."""
        self._held.check(progress, stage, done, total)
        # Like lengths together, so that little of a batch is padding; longest first, so that time left only
        # improves.
        lengths = self._encoder.count_tokens([text for _, text in missing])
        order = sorted(range(len(missing)), key=lambda at: -lengths[at])
        for at in range(0, len(order), _VECTORS_A_STEP):
            batch = [missing[row] for row in order[at : at + _VECTORS_A_STEP]]
            vectors = self._encoder.encode_documents([text for _, text in batch])
            with self._held.lock:
                self._held.check_open()
                self._held.catalog.add_vectors([key for key, _ in batch], vectors)
                self._held.note_unembedded(max(0, self._held.unembedded - len(batch)))
            self._held.check(progress, stage, done + min(at + _VECTORS_A_STEP, len(order)), total)
