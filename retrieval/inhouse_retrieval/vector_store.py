"""Chroma as a mirror of the catalog's vectors: record id = vector key, cosine distance, nothing but ids and
vectors.

Chroma is not safe for two processes on one folder, and a damaged folder can fail, hang or crash on opening.
So one owner holds it (the lock in :mod:`inhouse_retrieval.index`), every generation gets a fresh folder, and
a marker file says that an opening is under way: found at the next start, that generation is given up and
mirrored again from the catalog, which costs seconds and no embedding.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inhouse_retrieval.errors import StateUnwritable

_log = logging.getLogger(__name__)
_BATCH = 200
"""Chroma advises 50 to 250 records a call."""
_COLLECTION = "passages"
Vectors = npt.NDArray[np.float32]


class MirrorLost(Exception):
    """The folder cannot be used any more; mirror everything again into a new generation."""


class VectorStore:
    """The records of one generation.

    Args:
        folder: holds one subfolder per generation; only the current one is kept.
        generation: raise it to begin with an empty store.

    Raises:
        MirrorLost: on opening or later, from any method.
        StateUnwritable: the disk is full or the folder read-only.
    """

    def __init__(self, folder: Path, generation: int) -> None:
        self._marker = folder / "opening"
        self._folder = folder / str(generation)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            crashed = self._marker.exists() and self._marker.read_text() == str(generation)
            for old in folder.iterdir():
                if old.is_dir() and old != self._folder:
                    shutil.rmtree(old, ignore_errors=True)
            if crashed:
                self._marker.unlink()
                raise MirrorLost("opening it crashed the last time")
            self._marker.write_text(str(generation))
        except OSError as error:
            raise _unwritable(folder, error.strerror or "unknown error") from error
        # Not removed when opening fails: the next start must not try this generation again.
        with _translated(folder):
            self._client, self._collection = _open(self._folder)
            if self._collection.count():
                self._collection.query(query_embeddings=[[1.0] * self._dimension()], n_results=1, include=[])
        self._marker.unlink(missing_ok=True)

    def _dimension(self) -> int:
        got = self._collection.get(limit=1, include=["embeddings"])["embeddings"]
        return len(got[0])

    def count(self) -> int:
        """Records held."""
        with _translated(self._folder):
            return int(self._collection.count())

    def add(self, keys: Sequence[str], vectors: Vectors) -> None:
        """Put records, replacing those of the same key; ``vectors`` is float32 [len(keys), dimension]."""
        with _translated(self._folder):
            for at in range(0, len(keys), _BATCH):
                self._collection.upsert(ids=list(keys[at : at + _BATCH]), embeddings=vectors[at : at + _BATCH])

    def remove(self, keys: Sequence[str]) -> None:
        """Drop records; unknown keys are ignored."""
        with _translated(self._folder):
            for at in range(0, len(keys), _BATCH):
                self._collection.delete(ids=list(keys[at : at + _BATCH]))

    def nearest(self, vector: Vectors, limit: int) -> list[tuple[str, float]]:
        """``(key, cosine similarity)`` of the nearest records, best first."""
        with _translated(self._folder):
            found = self._collection.query(query_embeddings=[vector], n_results=limit, include=["distances"])
            pairs = zip(found["ids"][0], found["distances"][0], strict=True)
            return [(str(key), 1.0 - float(distance)) for key, distance in pairs]

    def close(self) -> None:
        """Let go of the folder."""
        with contextlib.suppress(MirrorLost, StateUnwritable), _translated(self._folder):
            self._client.close()


def _open(folder: Path) -> tuple[Any, Any]:
    os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(path=str(folder), settings=Settings(anonymized_telemetry=False))
    # Our own vectors always: without the explicit None, Chroma would attach a model that it downloads.
    collection = client.get_or_create_collection(
        _COLLECTION, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
    )
    return client, collection


def _unwritable(folder: Path, why: str) -> StateUnwritable:
    return StateUnwritable(
        f"The vectors in {folder} cannot be written: {why}.",
        "Free some disk space or make the folder writable, then try again; what was embedded is kept.",
    )


@contextlib.contextmanager
def _translated(folder: Path) -> Iterator[None]:
    """Chroma's many errors as the two that matter."""
    try:
        yield
    except (MirrorLost, StateUnwritable):
        raise
    except OSError as error:
        raise _unwritable(folder, error.strerror or str(error)) from error
    except Exception as error:
        # Chroma raises its own errors, KeyError, ValueError, RuntimeError ... for a damaged folder.
        _raise_translated(folder, error)
    except BaseException as error:
        # A panic in Chroma's Rust core is a BaseException of a type that cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        _raise_translated(folder, error)


def _raise_translated(folder: Path, error: BaseException) -> None:
    said = str(error)
    lowered = said.lower()
    if any(word in lowered for word in ("disk is full", "no space", "file too large", "readonly", "read-only")):
        raise _unwritable(folder, said.splitlines()[0]) from error
    _log.warning("the vector store failed: %s: %s", type(error).__name__, said)
    raise MirrorLost(said) from error
