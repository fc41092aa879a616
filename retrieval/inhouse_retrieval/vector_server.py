"""A Chroma server that several owners share, reached through one Unix socket and in no other way.

    python -m inhouse_retrieval.vector_server FOLDER SOCKET

``chroma run`` of 1.5.9 knows no password and no Unix socket: whoever reaches its port may read and drop everything, and
loopback is reached by every user of the machine. So it runs in a network of its own (a namespace with nothing in it but
a loopback), and beside it, in the same network, a gate that listens on SOCKET with mode 0600. The gate lets through
what :mod:`inhouse_retrieval.vector_client` asks and nothing else. Above all it refuses an embedding model chosen by the
caller (CVE-2026-45829): the server in Rust was seen to store such a choice and to load nothing, but what is stored is
built by Python clients that read it later.

FOLDER is locked as long as the gate or the server lives, and a server never outlives its gate.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import importlib.metadata
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from inhouse_retrieval.errors import Busy, InhouseError

DATABASE = "/api/v2/tenants/default_tenant/databases/default_database"
GREETING = "/inhouse"
LOG_NAME = "server.log"
WITH_INPUT = "--end-with-input"
_UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--")
_MODULE = "inhouse_retrieval.vector_server"
_PORT = 8000
"""Taken by nobody else in a network that is ours alone."""
_START_S = 30.0
_ENDING_S = 5.0
"""How long the server of an owner that was killed may take to end."""
_ID = "[0-9a-f-]{36}"
_OPEN = (
    ("GET", re.compile(f"{DATABASE}/collections")),
    ("DELETE", re.compile(f"{DATABASE}/collections/[a-zA-Z0-9._-]+")),
    ("GET", re.compile(f"{DATABASE}/collections/{_ID}/count")),
    ("POST", re.compile(f"{DATABASE}/collections/{_ID}/(get|query|upsert|delete)")),
)
_CREATE = f"{DATABASE}/collections"
_CONFIGURATION = {"hnsw": {"space": "cosine"}}
"""The only one that a collection may be made with."""
_MOST_BYTES = 64 * 2**20


def chroma_version() -> str:
    """The version of Chroma that is installed."""
    return importlib.metadata.version("chromadb")


def serve(folder: Path, place: Path) -> None:
    """Serve ``folder`` at the socket ``place`` until SIGTERM; this process must be in a network of its own.

    Raises:
        InhouseError: others share this network, the folder is served already, or Chroma does not start.
    """
    _raise_loopback()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _locked(folder)
    listening = _listen(place)
    server = _start_chroma(folder, lock)
    try:
        _gate(listening, server)
    finally:
        place.unlink(missing_ok=True)
        server.terminate()
        server.wait()


def _raise_loopback() -> None:
    interfaces = {name for _, name in socket.if_nameindex()}
    if interfaces - {"lo"}:
        raise InhouseError(
            f"The vector server would be on a network that others share ({', '.join(sorted(interfaces))}).",
            "Start it without --inside.",
        )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        up = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(control, 0x8914, up)  # SIOCSIFFLAGS


def _locked(folder: Path) -> int:
    """A lock on ``folder`` that whoever inherits it holds as well, so it is free when the server is gone, too."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _ENDING_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError:
            if time.monotonic() > deadline:
                raise Busy(f"Another vector server holds {folder}.", "Stop it first.") from None
            time.sleep(0.05)


def _listen(place: Path) -> socket.socket:
    """A socket of mode 0600 in a folder where nobody else can put one in its place."""
    try:
        folder = place.parent.stat()
    except OSError as error:
        raise InhouseError(f"{place.parent} cannot be used: {error.strerror}.", "Make the folder.") from error
    if folder.st_mode & 0o022 and not folder.st_mode & 0o1000:
        raise InhouseError(f"Others may write {place.parent}.", f"Run 'chmod 700 {place.parent}'.")
    # The lock on the folder is ours, so a socket that is there was left behind.
    place.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(place))
    except OSError as error:
        raise InhouseError(
            f"No socket can be made at {place}: {error.strerror or error}.", "Name a shorter path, or another folder."
        ) from error
    finally:
        os.umask(before)
    return listening


def _start_chroma(folder: Path, lock: int) -> subprocess.Popen[bytes]:
    """``chroma run`` as its script runs it, but without Chroma's Python, which takes two seconds and 70 MB."""
    run = "import sys, chromadb_rust_bindings as chroma; chroma.cli(['chroma', *sys.argv[1:]])"
    command = [sys.executable, "-c", run, "run", "--path", str(folder / "data"), "--host", "127.0.0.1"]
    with (folder / LOG_NAME).open("wb") as log:
        server = subprocess.Popen(
            [*command, "--port", str(_PORT)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            preexec_fn=_die_with_parent,
            env={**os.environ, "ANONYMIZED_TELEMETRY": "False", "RUST_LOG": "warn"},
        )
    deadline = time.monotonic() + _START_S
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{_PORT}/api/v2/healthcheck", trust_env=False).is_success:
                return server
        time.sleep(0.02)
    server.kill()
    raise InhouseError(
        "Chroma's server does not start.", f"Look into {folder / LOG_NAME}; {folder / 'data'} may be removed."
    )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def refusal(method: str, path: str, body: bytes) -> str | None:
    """Why the gate does not let a request through; ``None`` when it does."""
    if (method, path) == ("POST", _CREATE):
        try:
            asked = json.loads(body)
        except ValueError:
            return "no JSON"
        if not isinstance(asked, dict) or set(asked) - {"name", "metadata", "configuration", "get_or_create"}:
            return "a collection is made with a name, metadata and configuration only"
        if asked.get("configuration") != _CONFIGURATION:
            return "an embedding model or a configuration chosen by the caller"
        return None
    if any(method == allowed and pattern.fullmatch(path) for allowed, pattern in _OPEN):
        return None
    return "not a request of inhouse's"


def _gate(listening: socket.socket, server: subprocess.Popen[bytes]) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    behind = httpx.AsyncClient(base_url=f"http://127.0.0.1:{_PORT}", timeout=120, trust_env=False)

    async def greet(request: Request) -> Response:
        return JSONResponse({"gate": 1, "chroma": chroma_version()})

    async def let_through(request: Request) -> Response:
        taken = bytearray()
        async for piece in request.stream():
            taken += piece
            if len(taken) > _MOST_BYTES:
                return JSONResponse({"error": "too large"}, 413)
        body = bytes(taken)
        if why := refusal(request.method, request.url.path, body):
            return JSONResponse({"error": f"refused: {why}"}, 403)
        try:
            answer = await behind.request(
                request.method,
                request.url.path,
                params=request.query_params,
                content=body,
                headers={"Content-Type": "application/json"},
            )
        except httpx.HTTPError:
            return JSONResponse({"error": "Chroma does not answer"}, 502)
        return Response(answer.content, answer.status_code, media_type="application/json")

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app = Starlette(routes=[Route(GREETING, greet), Route("/{path:path}", let_through, methods=methods)])
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2)
    gate = uvicorn.Server(config)

    def watch() -> None:
        server.wait()
        gate.should_exit = True

    threading.Thread(target=watch, name="chroma", daemon=True).start()
    gate.run(sockets=[listening])


def command(folder: Path, place: Path, *options: str) -> list[str]:
    """What starts the server, in a network of its own."""
    return [*_UNSHARE, sys.executable, "-m", _MODULE, "--inside", *options, str(folder), str(place)]


def _end_with_input() -> None:
    """End as by SIGTERM when standard input ends, which it does however the process at its other end did."""

    def read_to_its_end() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=read_to_its_end, name="input", daemon=True).start()


def main(arguments: list[str] | None = None) -> int:
    """Run as a program; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m inhouse_retrieval.vector_server", description=__doc__)
    parser.add_argument("folder", type=Path, help="where Chroma keeps its data")
    parser.add_argument("socket", type=Path, help="where owners reach it")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(WITH_INPUT, action="store_true", dest="with_input", help="end when standard input ends")
    given: Any = parser.parse_args(arguments)
    try:
        if not given.inside:
            options = [WITH_INPUT] if given.with_input else []
            _serve_inside(command(given.folder.resolve(), given.socket.resolve(), *options))
        if given.with_input:
            _end_with_input()
        serve(given.folder, given.socket)
    except InhouseError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _serve_inside(asked: list[str]) -> None:
    """Become the server, in a network of its own."""
    try:
        os.execvp(asked[0], asked)
    except FileNotFoundError:
        raise InhouseError("The vector server needs 'unshare' of util-linux.", "Install it.") from None


if __name__ == "__main__":
    sys.exit(main())
