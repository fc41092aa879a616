"""The owner's HTTP server: uvicorn with what it lacks.

A connection that does not send a request's head in time, nor the rest of a body that is answered already, or does not
read an answer, is closed. A first signal lets answers end while new requests are refused, and only then stops the
server.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import is_ssl
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    from inhouse_server.http_api.activity import Activity

log = logging.getLogger(__name__)

HEAD_TIMEOUT_S = 15.0
"""From the connection to the end of its first request's head."""
SEND_TIMEOUT_S = 60.0
"""For a peer to make room for what waits to be sent."""
REST_TIMEOUT_S = 5.0
"""From an answer to the end of the body that it did not wait for. A close at once could take the answer away from who
still sends."""
MAX_REST_BYTES = 8 * 2**20
"""Of such a body: twice the longest that is ever read, so that who sends one too long learns that."""
MAX_HEAD_BYTES = 64 * 2**10
MAX_CONNECTIONS = 512
MAX_FRAME_BYTES = 16 * 2**20


class _PatientWriter(asyncio.Protocol):
    """Ends a connection whose peer makes no room for what waits to be sent. A mere close would wait for it, too."""

    transport: asyncio.Transport
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # One byte that waits is enough to hold a connection open. TLS would always wait with 0.
        self.transport.set_write_buffer_limits(high=1 if is_ssl(self.transport) else 0)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = asyncio.get_running_loop().call_later(SEND_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        self._room()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._room()
        super().connection_lost(exc)

    def _room(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


class PatientWebSocket(_PatientWriter, WebSocketsSansIOProtocol):
    """uvicorn's WebSockets, with a bound on the time that a peer takes to read."""


class PatientProtocol(_PatientWriter, H11Protocol):
    """h11 keeps a bound on the bytes of a head, which httptools does not; this adds bounds on its time, on what follows
    an answer that did not wait for the whole body, and on the time that a peer takes to read."""

    transport: asyncio.Transport
    _waiting: asyncio.TimerHandle | None = None
    _awaited: Literal["head", "rest", "request"] | None = None
    _rest_left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wait("head", HEAD_TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._awaited == "rest" and self._body_is_left:
            self._rest_left -= len(data)
            if self._rest_left < 0:
                self.transport.abort()
        elif self.conn.their_state is not h11.IDLE:
            self._wait_no_more()
        elif not self.conn.trailing_data[0]:  # the rest is here, whose first byte ended uvicorn's own timer
            self._wait("request", self.timeout_keep_alive)
        elif self._awaited != "head":
            self._wait("head", HEAD_TIMEOUT_S)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._body_is_left and not self.transport.is_closing():
            self._rest_left = MAX_REST_BYTES
            self._wait("rest", REST_TIMEOUT_S)

    @property
    def _body_is_left(self) -> bool:
        """Whether a request is answered whose body still comes."""
        return self.conn.their_state is h11.SEND_BODY and self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and end the connection; also where an answer has begun, which this cannot follow.

        uvicorn would send both, which h11 refuses with a traceback.
        """
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def _wait(self, what: Literal["head", "rest", "request"], seconds: float) -> None:
        """End the connection then, unless it comes before."""
        self._wait_no_more()
        self._awaited, self._waiting = what, self.loop.call_later(seconds, self.transport.abort)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._awaited = self._waiting = None


class OwnerServer(uvicorn.Server):
    """Ends in two steps: it drains, which answers in flight may take ``drain_s`` seconds for, and then it stops."""

    def __init__(self, config: uvicorn.Config, activity: Activity, drain_s: float) -> None:
        super().__init__(config)
        self._activity = activity
        self._drain_s = drain_s
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A first signal drains, a second one stops at once."""
        again = self._activity.draining
        super().handle_exit(sig, frame)
        if not again and self._loop is not None:
            self.should_exit = False
            self._activity.draining = True
            self._loop.call_soon_threadsafe(self.drain)

    def drain(self) -> None:
        """Refuse what is new, and stop once nothing is being answered or time is over."""
        self._activity.draining = True
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        until = asyncio.get_running_loop().time() + self._drain_s
        while self._activity.answering and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.05)
        if left := self._activity.answering:
            log.warning("%d answers were not finished within %.0f s and are cut short", left, self._drain_s)
        self.should_exit = True


def owner_server(
    app: Any, activity: Activity, drain_s: float, certificate: Path | None = None, key: Path | None = None
) -> OwnerServer:
    """The server of ``app``; over TLS where there is a certificate."""
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws=PatientWebSocket,
        log_config=None,
        access_log=False,
        proxy_headers=False,  # whose address and scheme count is decided here, never by a header
        server_header=False,
        ws_max_size=MAX_FRAME_BYTES,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=5,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    return OwnerServer(config, activity, drain_s)
