"""Chroma as a mirror of the catalog's vectors: record id = vector key, cosine distance, nothing but ids and
vectors.

The records lie in a folder that this process opens (here), or with a server (:mod:`inhouse_retrieval.vector_client`);
both are one :class:`VectorStore` over a collection of Chroma's.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from inhouse_retrieval.errors import StateUnwritable, VectorsUnreachable

_log = logging.getLogger(__name__)
_BATCH = 200
"""Chroma advises 50 to 250 records a call."""
_COLLECTION = "passages"
_SAME = 1e-5
"""Cosine distance below which two vectors are the same, for what float32 makes of them."""
Vectors = npt.NDArray[np.float32]


class MirrorLost(Exception):
    """The folder cannot be used any more; mirror everything again into a new generation."""


class VectorPlace(Protocol):
    """Where the records of one index are kept.

    Attributes:
        holds: the same in words, for whoever has to remove it.
    """

    @property
    def holds(self) -> str: ...
    def prepare(self) -> None:
        """Do what takes time before opening, such as starting a server. Called without locks, and before each use.

        Raises:
            VectorsUnreachable: it cannot be had now.
        """

    def open(self, generation: int, spared: int | None = None) -> VectorStore:
        """The records of one generation; others are dropped. Raise it to begin with an empty store.

        Args:
            spared: another generation, which is not dropped.

        Raises:
            MirrorLost: what is there cannot be used.
            StateUnwritable: the disk is full or the folder read-only.
            VectorsUnreachable: the server cannot be reached or must not be used.
        """

    def drop_others(self, generation: int, spared: int | None = None) -> None:
        """Drop all generations but this one, as far as that can be done now; opening does the rest."""

    def close(self) -> None:
        """Let go of what :meth:`prepare` took."""


class VectorFolder:
    """A folder that this process alone opens; it holds one subfolder, that of the current generation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def holds(self) -> str:
        """The folder."""
        return str(self._folder)

    def prepare(self) -> None:
        """Nothing to do."""

    def open(self, generation: int, spared: int | None = None) -> VectorStore:
        """As :meth:`VectorPlace.open`."""
        folder, marker = self._folder / str(generation), self._folder / "opening"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            crashed = marker.exists() and marker.read_text() == str(generation)
            self.drop_others(generation, spared)
            if crashed:
                marker.unlink()
                raise MirrorLost("opening it crashed the last time")
            marker.write_text(str(generation))
        except OSError as error:
            raise _unwritable(str(self._folder), error.strerror or "unknown error") from error
        # Not removed when opening fails: the next start must not try this generation again.
        with _translated(str(self._folder)):
            client, collection = _open(folder)
            store = VectorStore(collection, str(folder), client.close)
            if collection.count():
                collection.query(query_embeddings=[[1.0] * store.dimension()], n_results=1, include=[])
        marker.unlink(missing_ok=True)
        return store

    def drop_others(self, generation: int, spared: int | None = None) -> None:
        """As :meth:`VectorPlace.drop_others`."""
        for old in self._folder.iterdir() if self._folder.is_dir() else ():
            if old.is_dir() and old.name not in (str(generation), str(spared)):
                shutil.rmtree(old, ignore_errors=True)

    def close(self) -> None:
        """Nothing to do."""


class VectorStore:
    """The records of one generation.

    Args:
        collection: Chroma's, or what stands for it and takes the same calls.
        place: where it is, for messages.
        close: lets go of it.

    Raises:
        MirrorLost: from any method.
        StateUnwritable: from any method, when the disk is full or the folder read-only.
        VectorsUnreachable: from any method, when they are with a server that does not answer.
    """

    def __init__(self, collection: Any, place: str, close: Callable[[], None]) -> None:
        self._collection = collection
        self._place = place
        self._close = close

    def dimension(self) -> int:
        """That of the records; there must be one."""
        got = self._collection.get(limit=1, include=["embeddings"])["embeddings"]
        return len(got[0])

    def count(self) -> int:
        """Records held."""
        with _translated(self._place):
            return int(self._collection.count())

    def add(self, keys: Sequence[str], vectors: Vectors) -> None:
        """Put records, replacing those of the same key; ``vectors`` is float32 [len(keys), dimension]."""
        with _translated(self._place):
            for at in range(0, len(keys), _BATCH):
                self._collection.upsert(ids=list(keys[at : at + _BATCH]), embeddings=vectors[at : at + _BATCH])

    def remove(self, keys: Sequence[str]) -> None:
        """Drop records; unknown keys are ignored."""
        with _translated(self._place):
            for at in range(0, len(keys), _BATCH):
                self._collection.delete(ids=list(keys[at : at + _BATCH]))

    def nearest(self, vector: Vectors, limit: int) -> list[tuple[str, float]]:
        """``(key, cosine similarity)`` of the nearest records, best first."""
        with _translated(self._place):
            found = self._collection.query(query_embeddings=[vector], n_results=limit, include=["distances"])
            pairs = zip(found["ids"][0], found["distances"][0], strict=True)
            return [(str(key), 1.0 - float(distance)) for key, distance in pairs]

    def lost(self, vectors: Mapping[str, Vectors]) -> list[str]:
        """Keys whose records are not found by their own vectors, though they may be there.

        The graph that Chroma searches (HNSW) does not promise to reach each of its nodes. A record that is as near as
        the right one counts as found.
        """
        keys = list(vectors)
        lost: list[str] = []
        with _translated(self._place):
            for at in range(0, len(keys), _BATCH):
                asked = keys[at : at + _BATCH]
                questions = np.stack([vectors[key] for key in asked])
                found = self._collection.query(query_embeddings=questions, n_results=1, include=["distances"])
                for key, ids, distances in zip(asked, found["ids"], found["distances"], strict=True):
                    if not ids or (str(ids[0]) != key and float(distances[0]) > _SAME):
                        lost.append(key)
        return lost

    def close(self) -> None:
        """Let go of the folder."""
        with contextlib.suppress(MirrorLost, StateUnwritable, VectorsUnreachable), _translated(self._place):
            self._close()


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


def _unwritable(place: str, why: str) -> StateUnwritable:
    return StateUnwritable(
        f"The vectors in {place} cannot be written: {why}.",
        "Free some disk space or make the folder writable, then try again; what was embedded is kept.",
    )


@contextlib.contextmanager
def _translated(place: str) -> Iterator[None]:
    """Chroma's many errors as the two that matter."""
    try:
        yield
    except (MirrorLost, StateUnwritable, VectorsUnreachable):
        raise
    except OSError as error:
        raise _unwritable(place, error.strerror or str(error)) from error
    except Exception as error:
        # Chroma raises its own errors, KeyError, ValueError, RuntimeError ... for a damaged folder.
        _raise_translated(place, error)
    except BaseException as error:
        # A panic in Chroma's Rust core is a BaseException of a type that cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        _raise_translated(place, error)


def _raise_translated(place: str, error: BaseException) -> None:
    said = str(error)
    lowered = said.lower()
    if any(word in lowered for word in ("disk is full", "no space", "file too large", "readonly", "read-only")):
        raise _unwritable(place, said.splitlines()[0]) from error
    _log.warning("the vector store failed: %s: %s", type(error).__name__, said)
    raise MirrorLost(said) from error
