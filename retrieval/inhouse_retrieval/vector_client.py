"""Vectors that lie with a Chroma server (:mod:`inhouse_retrieval.vector_server`) instead of in a folder of the owner.

The server is used only after it has shown, at each opening, that its socket is private, that it runs the version of
Chroma that is installed here, and that it refuses an embedding model chosen by the caller (CVE-2026-45829). Requests
are made by httpx rather than by Chroma's client, which knows no Unix socket and builds what a server has stored.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from inhouse_retrieval import vector_server
from inhouse_retrieval.errors import VectorsUnreachable
from inhouse_retrieval.vector_store import MirrorLost, VectorFolder, VectorPlace, Vectors, VectorStore

_log = logging.getLogger(__name__)
_COLLECTIONS = f"{vector_server.DATABASE}/collections"
_COSINE: Mapping[str, Any] = {"hnsw": {"space": "cosine"}}
_CALLERS_MODEL = {
    "embedding_function": {
        "type": "known",
        "name": "sentence_transformer",
        "config": {
            "model_name": "inhouse-refuses-this",
            "device": "cpu",
            "normalize_embeddings": False,
            "kwargs": {"trust_remote_code": True},
        },
    }
}
_TIMEOUT = httpx.Timeout(30, connect=1, pool=1)
_QUERY_S = 3.0
"""For one question, since somebody waits for it."""
_PAGE = 1000
_START_S = 40.0
_MARK = "inhouse"
OWN = "own"
"""The setting that has the owner start a server of its own."""


def vector_place(setting: str | None, root: Path, state_dir: Path) -> VectorPlace:
    """Where ``[vectors] server`` puts the vectors: a folder, an own server, or one at a socket.

    Args:
        setting: ``None``, :data:`OWN`, or the socket's path, relative to ``root``.
    """
    if setting is None:
        return VectorFolder(state_dir / "vectors")
    if setting == OWN:
        return OwnVectorServer(state_dir)
    return VectorServer(root / Path(setting).expanduser(), state_dir)


class VectorServer:
    """The server behind a Unix socket, which somebody else keeps running; one collection of it is this index's.

    Args:
        place: the socket.
        state_dir: of the index; a file of it names the collection.
    """

    def __init__(self, place: Path, state_dir: Path) -> None:
        self._place = place
        self._state_dir = state_dir

    @property
    def holds(self) -> str:
        """This index's collections."""
        return f"the collections of this index at the vector server {self._place}"

    def prepare(self) -> None:
        """Nothing to do: whoever runs the server starts it."""

    def open(self, generation: int, spared: int | None = None) -> VectorStore:
        """The collection of this index and generation; those of others are dropped.

        Args:
            spared: as for :meth:`VectorPlace.open`.

        Raises:
            MirrorLost: a collection of that name is not this index's.
            VectorsUnreachable: the server is gone, or failed one of the checks.
        """
        self._check_socket()
        asking = _Asking(self._place)
        try:
            self._check_server(asking)
            prefix = self._prefix()
            name = f"{prefix}{generation}"
            _drop_others(asking, prefix, (name, f"{prefix}{spared}"))
            made = asking("POST", _COLLECTIONS, _new(name))
            if (made.get("metadata") or {}).get(_MARK) != prefix or _space(made) != "cosine":
                raise MirrorLost(f"the server's collection {name} is not of this index")
        except BaseException:
            asking.close()
            raise
        return VectorStore(ServedCollection(asking, str(made["id"])), str(self._place), asking.close)

    def drop_others(self, generation: int, spared: int | None = None) -> None:
        """As :meth:`VectorPlace.drop_others`."""
        prefix = self._prefix()
        with (
            contextlib.suppress(VectorsUnreachable, MirrorLost),
            contextlib.closing(_Asking(self._place)) as asking,
        ):
            _drop_others(asking, prefix, (f"{prefix}{generation}", f"{prefix}{spared}"))

    def close(self) -> None:
        """Nothing to do: the server goes on."""

    def _prefix(self) -> str:
        return f"inhouse-{_identity(self._state_dir)}-"

    def _check_socket(self) -> None:
        try:
            there = self._place.lstat()
        except OSError as error:
            raise VectorsUnreachable(
                f"No vector server is at {self._place}: {error.strerror}.",
                "Start it (docs/team.md says how); until then searches go by words.",
            ) from error
        if not stat.S_ISSOCK(there.st_mode):
            raise VectorsUnreachable(f"{self._place} is no socket.", "Name that of the vector server.")
        if there.st_mode & 0o077 or there.st_uid != os.geteuid():
            raise VectorsUnreachable(
                f"Others of this machine reach the vector server at {self._place}.",
                f"Run it as the user of this owner, and 'chmod 600 {self._place}'.",
            )

    def _check_server(self, asking: _Asking) -> None:
        try:
            greeting = asking("GET", vector_server.GREETING)
            version = str(greeting["chroma"])
        except (MirrorLost, KeyError, TypeError):
            raise VectorsUnreachable(
                f"What listens at {self._place} is not inhouse's vector server.",
                "Start it with 'python -m inhouse_retrieval.vector_server'.",
            ) from None
        here = vector_server.chroma_version()
        if version != here:
            raise VectorsUnreachable(
                f"The vector server at {self._place} runs Chroma {version}, and this owner was made for {here}.",
                "Install the same version for both, and restart the server.",
            )
        probe = f"inhouse-probe-{secrets.token_hex(8)}"
        try:
            asking("POST", _COLLECTIONS, {"name": probe, "configuration": _CALLERS_MODEL})
        except _Refused:
            return
        with contextlib.suppress(MirrorLost):
            asking("DELETE", f"{_COLLECTIONS}/{probe}")
        raise VectorsUnreachable(
            f"The vector server at {self._place} takes an embedding model chosen by its caller (CVE-2026-45829).",
            "Start it with 'python -m inhouse_retrieval.vector_server', which refuses that.",
        )


class OwnVectorServer:
    """A server of this owner's own, started when it is needed and again when it is gone, ended with the index."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "vector-server"
        self._state_dir = state_dir
        self._run: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._changing = threading.Lock()
        self._closed = False

    @property
    def holds(self) -> str:
        """The server's folder."""
        return str(self._folder)

    def prepare(self) -> None:
        """Start the server if it does not run. Data that it does not start with are removed: they can be made anew.

        Searches and refreshes call this at the same time; one of them starts it, and the others wait for that.

        Raises:
            VectorsUnreachable: it does not start, or was closed.
        """
        with self._changing:
            if self._closed:
                raise VectorsUnreachable("The vector server was ended with its index.", "Open the index again.")
            self._prepare()

    def _prepare(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        said = self._start()
        if said is not None and (self._folder / "data").exists() and "Chroma" in said:
            _log.warning("the vector server's data are removed: %s", said)
            shutil.rmtree(self._folder / "data", ignore_errors=True)
            said = self._start()
        if said is not None:
            raise VectorsUnreachable(
                f"The vector server does not start: {said}",
                "Mend that, or take [vectors] server out of inhouse.toml; until then searches go by words.",
            )

    def _start(self) -> str | None:
        """Start it; what it said if it did not."""
        place = self._socket()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = self._folder / "gate.log"
        try:
            with log.open("wb") as written:
                self._process = subprocess.Popen(
                    vector_server.command(self._folder, place, vector_server.WITH_INPUT),
                    stdin=subprocess.PIPE,  # ends with this process, and the server with it
                    stdout=written,
                    stderr=written,
                )
        except OSError as error:
            return f"{error.filename or 'unshare'}: {error.strerror}."
        deadline = time.monotonic() + _START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(VectorsUnreachable, MirrorLost), contextlib.closing(_Asking(place)) as ask:
                ask("GET", vector_server.GREETING)
                return None
            time.sleep(0.02)
        self._end()
        told = log.read_text(errors="replace").strip().splitlines()
        return told[-1] if told else "it said nothing."

    def _socket(self) -> Path:
        if self._run is None:
            # A socket's path has 107 bytes at most, and a state directory may lie deep.
            self._run = Path(tempfile.mkdtemp(prefix="inhouse-vectors-"))
        return self._run / "socket"

    def open(self, generation: int, spared: int | None = None) -> VectorStore:
        """As :meth:`VectorServer.open`."""
        return VectorServer(self._socket(), self._state_dir).open(generation, spared)

    def drop_others(self, generation: int, spared: int | None = None) -> None:
        """As :meth:`VectorServer.drop_others`."""
        VectorServer(self._socket(), self._state_dir).drop_others(generation, spared)

    def close(self) -> None:
        """End the server."""
        with self._changing:
            self._closed = True
            self._end()
            if self._run is not None:
                shutil.rmtree(self._run, ignore_errors=True)
                self._run = None

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process = None


class ServedCollection:
    """One collection of the server, with the calls of Chroma's own that :class:`VectorStore` makes."""

    def __init__(self, asking: _Asking, collection: str) -> None:
        self._asking = asking
        self._at = f"{_COLLECTIONS}/{collection}"

    def count(self) -> int:
        return int(self._asking("GET", f"{self._at}/count"))

    def get(self, limit: int, include: Sequence[str]) -> Mapping[str, Any]:
        got: Mapping[str, Any] = self._asking("POST", f"{self._at}/get", {"limit": limit, "include": list(include)})
        return got

    def upsert(self, ids: Sequence[str], embeddings: Vectors) -> None:
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in np.asarray(embeddings)]
        self._asking("POST", f"{self._at}/upsert", {"ids": list(ids), "embeddings": rows})

    def delete(self, ids: Sequence[str]) -> None:
        self._asking("POST", f"{self._at}/delete", {"ids": list(ids)})

    def query(self, query_embeddings: Sequence[Any], n_results: int, include: Sequence[str]) -> Mapping[str, Any]:
        vectors = [[float(number) for number in row] for row in query_embeddings]
        body = {"query_embeddings": vectors, "n_results": n_results, "include": list(include)}
        seconds = _QUERY_S if len(vectors) == 1 else None
        found: Mapping[str, Any] = self._asking("POST", f"{self._at}/query", body, seconds)
        return found


class _Refused(MirrorLost):
    """The gate did not let a request through."""


class _Asking:
    """Requests over the socket.

    Raises:
        VectorsUnreachable: nothing answers, or Chroma is gone behind the gate.
        MirrorLost: Chroma answers with an error.
        _Refused: the gate answers with one.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(place)), base_url="http://inhouse", timeout=_TIMEOUT, trust_env=False
        )

    def __call__(self, method: str, path: str, body: Any = None, seconds: float | None = None) -> Any:
        timeout = _TIMEOUT if seconds is None else httpx.Timeout(seconds, connect=1, pool=1)
        try:
            answer = self._http.request(method, path, json=body, timeout=timeout)
        except httpx.HTTPError as error:
            raise self._gone(type(error).__name__) from error
        if answer.status_code in (502, 503):
            raise self._gone("Chroma is gone behind its gate")
        if answer.status_code == 403:
            raise _Refused(answer.text[:200])
        if answer.is_error:
            raise MirrorLost(f"the vector server answers {answer.status_code}: {answer.text[:200]}")
        return answer.json()

    def close(self) -> None:
        self._http.close()

    def _gone(self, why: str) -> VectorsUnreachable:
        return VectorsUnreachable(
            f"The vector server at {self._place} does not answer ({why}).",
            "Start it again; until then searches go by words, and nothing has to be embedded again.",
        )


def _new(name: str) -> Mapping[str, Any]:
    """A collection to be made unless it is there; its mark says whose it is."""
    prefix = name[: name.rindex("-") + 1]
    return {"name": name, "metadata": {_MARK: prefix}, "configuration": _COSINE, "get_or_create": True}


def _space(made: Mapping[str, Any]) -> str | None:
    return ((made.get("configuration_json") or {}).get("hnsw") or {}).get("space")


def _drop_others(asking: _Asking, prefix: str, kept: Sequence[str]) -> None:
    at = 0
    names: list[str] = []
    while True:
        page = asking("GET", f"{_COLLECTIONS}?limit={_PAGE}&offset={at}")
        names += [str(each["name"]) for each in page if (each.get("metadata") or {}).get(_MARK) == prefix]
        if len(page) < _PAGE:
            break
        at += _PAGE
    for name in names:
        if name not in kept:
            asking("DELETE", f"{_COLLECTIONS}/{name}")


def _identity(state_dir: Path) -> str:
    """Names the index at the server: a random word of its own, and where it lies, so that a copy is another index."""
    kept = state_dir / "vectors.id"
    if not kept.exists():
        kept.write_text(secrets.token_hex(16))
    told = f"{kept.read_text()}\0{state_dir.resolve()}".encode()
    return hashlib.blake2b(told, digest_size=12).hexdigest()
