"""HTTP requests that are nearly right, 30 of 100 of a million, at the objects that serve a connection.

There is no socket in between; 5 of 100, of editors and of HTTP, go to a real owner process through real sockets.

No crash, no hang, no leak. FUZZ_MUTATED says how many in all, as in `test_mutated_messages.py`; `test_openapi.py` sends
fewer that are drawn from the OpenAPI document.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import h11
import httpx
import pytest
from uvicorn.server import ServerState
from websockets.sync.client import connect

from inhouse_server.framing import FrameReader
from inhouse_server.http_api import build_app
from inhouse_server.listening import PatientProtocol, owner_server
from inhouse_server.owner import OwnerAddress
from inhouse_server.workspace import Workspace

from .listening import TOKEN
from .mutations import editor_messages, http_requests
from .soak import held
from .speaker import scripted_owner
from .watched import GROWTH, SLACK, WAIT_S, Watched, counts, scripted_house

LOOKED_AT_AFTER = 200
PATIENCE_S = 0.1
"""For the first byte of an answer on a socket: a request that is not whole has none."""
END_OF_SESSION = (
    f"DELETE /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\nMcp-Session-Id: %s\r\n\r\n"
).encode()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with scripted_house(tmp_path_factory.mktemp("bent") / "shop") as workspace:
        yield workspace


class Wire(asyncio.Transport):
    """What a protocol writes to, in place of a socket."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 8470)})
        self._protocol: Any = protocol
        self._closed = False
        self.written = bytearray()
        protocol.connection_made(self)

    def feed(self, data: bytes) -> None:
        """``data`` arrives, unless the connection is closed."""
        if not self._closed:
            self._protocol.data_received(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Whatever is written is taken at once."""

    def leave(self) -> None:
        """The other side closes."""
        self._closed = True
        self._protocol.connection_lost(None)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self._closed = True

    def abort(self) -> None:
        self._closed = True

    def is_closing(self) -> bool:
        return self._closed

    def pause_reading(self) -> None:
        """Everything has arrived already."""

    def resume_reading(self) -> None:
        """Everything has arrived already."""


@counts
@pytest.mark.timeout(7200)
async def test_requests(house: Workspace, caplog: pytest.LogCaptureFixture, messages: int) -> None:
    share = messages * 30 // 100
    rng = random.Random(20261129)
    watched = Watched(share, caplog)
    statuses: Counter[bytes] = Counter()
    async with _listening(house) as (config, state):
        for sent, request in enumerate(itertools.islice(http_requests(rng, TOKEN), share), start=1):
            statuses.update(await _one_request(config, state, request, rng))
            if sent % LOOKED_AT_AFTER == 0:
                watched.after(sent, request)
        assert not state.connections and not state.tasks
        watched.end()
    print(statuses)  # noqa: T201
    assert b"500" not in statuses and {b"200", b"400", b"401", b"403"} <= set(statuses)


@contextlib.asynccontextmanager
async def _listening(house: Workspace) -> AsyncIterator[tuple[Any, ServerState]]:
    """The owner's server without its sockets: the configuration that protocols are made with, and their state."""
    app = build_app(house, TOKEN, "127.0.0.1", 8470)
    config = owner_server(app, app.state.activity, 5).config
    config.load()
    async with app.router.lifespan_context(app):
        yield config, ServerState()


async def _one_request(config: Any, state: ServerState, request: bytes, rng: random.Random) -> list[bytes]:
    """A connection's life, on which ``request`` arrives in pieces; the statuses of what was answered.

    Raises:
        AssertionError: it does not come to an end.
    """
    protocol = PatientProtocol(config, state, {})
    wire = Wire(protocol)
    first, second = sorted(rng.randrange(len(request)) for _ in range(2))
    for piece in (request[:first], request[first:second], request[second:]):
        if piece:
            wire.feed(piece)
            await asyncio.sleep(0)
    # An editor's socket and a stream of MCP's stay open; a body that is not whole is waited for.
    lasting = wire.get_protocol() is not protocol or request.startswith(b"GET /mcp")
    if lasting or protocol.conn.their_state is h11.SEND_BODY:
        wire.leave()
    until = time.monotonic() + WAIT_S
    while state.tasks:
        await asyncio.wait(list(state.tasks), timeout=WAIT_S)
        assert time.monotonic() < until, request
        await asyncio.sleep(0)
    if not wire.is_closing():
        wire.leave()
    elif protocol in state.connections:
        protocol.connection_lost(None)
    if b"mcp-session-id: " in wire.written and request.startswith(b"POST /mcp "):
        ended = bytes(wire.written).split(b"mcp-session-id: ")[1].split(b"\r\n")[0]
        await _one_request(config, state, END_OF_SESSION % ended, rng)
    return [line.split(b" ")[1] for line in bytes(wire.written).split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


# ----------------------------------------------------------------------------------------------------------
# Through sockets


@counts
@pytest.mark.timeout(7200)
def test_a_real_owner(shop: Path, messages: int) -> None:
    share = messages * 5 // 100
    with scripted_owner(shop) as owner:
        pid = int(json.loads((shop / ".inhouse" / "owner.json").read_text())["pid"])
        sizes = []
        for part in range(2):
            sent = [
                threading.Thread(target=_send_requests, args=(owner, share // 4, part, failed := [])),
                threading.Thread(target=_send_messages, args=(owner, shop, share // 4, part, failed)),
            ]
            for each in sent:
                each.start()
            for each in sent:
                each.join()
            assert not failed, failed[:2]
            sizes.append(held(pid))
    early, late = sizes
    print(f"\n{share} messages; at half and at the end {early} {late}")  # noqa: T201
    log = (shop / ".inhouse" / "logs" / "owner.log").read_text(encoding="utf-8")
    assert "Traceback" not in log, log[log.index("Traceback") - 600 :][:4000]
    # Few messages do not meet everything that loads once.
    assert late.resident < early.resident * (1 + GROWTH) + (SLACK if share > 10_000 else 16 * SLACK)
    assert late.files <= early.files + 8


def _alive(owner: OwnerAddress) -> None:
    said = httpx.get(
        f"{owner.url}/v1/models", headers={"Authorization": f"Bearer {owner.token}"}, timeout=WAIT_S
    ).raise_for_status()
    assert said.json()["data"]


def _send_requests(owner: OwnerAddress, count: int, seed: int, failed: list[object]) -> None:
    port = int(owner.url.rsplit(":", 1)[1])
    try:
        requests = http_requests(random.Random(seed), owner.token)
        for number, request in enumerate(itertools.islice(requests, count)):
            with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as peer:
                peer.sendall(request)
                peer.settimeout(PATIENCE_S)
                with contextlib.suppress(TimeoutError, ConnectionResetError):
                    answer = peer.recv(4096)
                    assert not answer.startswith(b"HTTP/1.1 500"), request
            if number % LOOKED_AT_AFTER == 0:
                _alive(owner)
    except Exception as error:
        failed.append(error)


def _send_messages(owner: OwnerAddress, shop: Path, count: int, seed: int, failed: list[object]) -> None:
    """Batches of an editor, each on a connection of its own, with a last request that has to be answered."""
    address = owner.url.replace("http", "ws") + "/lsp"
    stream = itertools.islice(editor_messages(random.Random(seed), shop.as_uri()), count)
    hello = {"jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": {"capabilities": {}}}
    last = {"jsonrpc": "2.0", "id": "last", "method": "no/such/method"}
    headers = {"Authorization": f"Bearer {owner.token}"}
    try:
        while batch := list(itertools.islice(stream, LOOKED_AT_AFTER)):
            with connect(address, additional_headers=headers, max_size=None, open_timeout=WAIT_S) as editor:
                frames = FrameReader()
                editor.send(json.dumps(hello))
                for body in (body for message in batch for body in frames.feed(message) if body is not None):
                    editor.send(body.decode("utf-8", "replace"))
                editor.send(json.dumps(last))
                until = time.monotonic() + WAIT_S
                while json.loads(editor.recv(max(0.0, until - time.monotonic()))).get("id") != "last":
                    pass
    except Exception as error:
        failed.append(error)
