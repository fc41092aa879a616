"""What processes of their own run: those that are killed and those whose memory is measured; and the cheap encoder that
they index with.

Imported by a fork server, so that starting one of them costs milliseconds.
"""

from __future__ import annotations

import hashlib
import resource
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import chromadb  # noqa: F401  imported before the fork
import numpy as np

from inhouse_retrieval import EVERYWHERE, Index, Repository
from inhouse_retrieval.catalog import Vectors
from inhouse_retrieval.chunking import CHUNKER_VERSION


class HashEncoder:
    """Unit vectors made from a hash of the text; remembers under which keys the index keeps what it computed."""

    name = "hash"
    dimension = 32
    max_tokens = 256

    def __init__(self, batch_s: float = 0.0) -> None:
        self.paid: set[str] = set()
        self._batch_s = batch_s

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        time.sleep(self._batch_s)
        for text in texts:
            for told in (f"{self.name}\0{CHUNKER_VERSION}\0{text}", f"{self.name}\0title\0{text}"):
                self.paid.add(hashlib.blake2b(told.encode(), digest_size=20).hexdigest())
        return np.stack([self.encode_query(text) for text in texts])

    def encode_query(self, text: str) -> Vectors:
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        vector = np.random.default_rng(seed).standard_normal(self.dimension, np.float32)
        return np.asarray(vector / np.linalg.norm(vector), np.float32)


def refresh(root: Path, state: Path, named: Sequence[str], stages: Connection) -> None:
    """Bring the index in line, some files of it by name first, and tell each step."""

    def tell(stage: str, done: int, total: int | None) -> None:
        stages.send(stage)

    # A batch takes a little, so that there is time to be killed between two.
    with Index.open(Repository.open(root), state, HashEncoder(batch_s=0.003)) as index:
        stages.send("opened")
        if named:
            index.refresh_files(named, tell)
        index.refresh(tell)
    stages.send("closed")


def verify(root: Path, state: Path, results: Connection) -> None:
    """Go on where a process was killed, and say what was found."""
    encoder = HashEncoder()
    with Index.open(Repository.open(root), state, encoder) as index:
        report = index.refresh()
        catalog = index._catalog
        store = index._opened_store()
        keys = catalog.vector_keys(EVERYWHERE, 10**9)
        lost = [key for key, vector in catalog.vectors(keys).items() if store.nearest(vector, 1)[0][0] != key]
        found: dict[str, Any] = {
            "chunks": report.chunks,
            "embedded": report.embedded,
            "keys": len(keys),
            "files": sorted(catalog.files()),
            "lost": lost,
            "records": store.count(),
            "pending": index.status().pending,
            "unembedded": index.status().unembedded,
            "sound": catalog._rows("PRAGMA integrity_check") == [("ok",)],
            "set_aside": (state / "catalog.sqlite.corrupt").exists(),
            "paid": encoder.paid,
        }
    results.send(found)


def measured(root: Path, state: Path, query: str) -> dict[str, Any]:
    """Index, refresh again and search; what was found, and the MiB that this process took at most for it."""
    steps: list[tuple[str, int, int | None]] = []
    encoder = HashEncoder()
    before = _peak()
    with Index.open(Repository.open(root), state, encoder) as index:
        first = index.refresh(lambda *step: steps.append(step))
        began = time.monotonic()
        again = index.refresh()
        return {
            "first": first,
            "again": again,
            "again_s": time.monotonic() - began,
            "steps": steps,
            "found": [passage.path for passage in index.search(query, 10).passages],
            "mib": _peak() - before,
            "vectors": index._catalog._rows("SELECT count(*) FROM vectors")[0][0],
        }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
