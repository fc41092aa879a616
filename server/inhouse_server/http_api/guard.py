"""Who may call: Host, Origin, token and body size, checked before any route runs.

Other users of the machine and web pages reach loopback too. The Host check stops DNS rebinding, the Origin check stops
a page of another site, and the token, or the cookie that a browser got for it, stops everyone else.
"""

from __future__ import annotations

import hmac
import re
import time
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inhouse_server.http_api.browser import BrowserSession, locked_page
from inhouse_server.http_api.errors import error_response

MAX_BODY_BYTES = 4 * 2**20
OPEN_PATHS = frozenset({"/healthz"})


class Activity:
    """When the owner was last used; says when a detached one may exit."""

    def __init__(self) -> None:
        self._open = 0
        self._last = time.monotonic()

    def begin(self) -> None:
        """A request or an editor came."""
        self._open += 1

    def end(self) -> None:
        """It went."""
        self._open -= 1
        self._last = time.monotonic()

    def idle_for(self, seconds: float) -> bool:
        """Nobody is connected, and nobody was for ``seconds``."""
        return self._open == 0 and time.monotonic() - self._last > seconds


class BodyTooLarge(Exception):
    """The request body is above :data:`MAX_BODY_BYTES`."""


class Guard:
    """ASGI middleware; everything it refuses gets an error in OpenAI's shape, and a browser a sentence."""

    def __init__(
        self, app: ASGIApp, token: str, allowed_hosts: frozenset[str], activity: Activity, browser: BrowserSession
    ) -> None:
        self._app = app
        self._token = token.encode()
        self._browser = browser
        self._hosts = allowed_hosts
        self._activity = activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        foreign = self._foreign(connection)
        if foreign is None and (welcome := self._browser.sign_in(connection)):
            await welcome(scope, receive, send)
            return
        if refusal := foreign or self._refusal(connection):
            status, message, kind = refusal
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008, "reason": message})
            else:
                locked = locked_page(connection) if status == 401 else None
                await (locked or error_response(status, message, kind))(scope, receive, send)
            return
        counted = scope["path"] not in OPEN_PATHS
        if counted:
            self._activity.begin()
        try:
            await self._app(scope, _limited(receive) if scope["type"] == "http" else receive, send)
        finally:
            if counted:
                self._activity.end()

    def _foreign(self, connection: HTTPConnection) -> tuple[int, str, str] | None:
        host = _host_name(connection.headers.get("host", ""))
        if host not in self._hosts:
            return 403, f"This server does not answer for the host {host!r}.", "forbidden_host"
        origin = connection.headers.get("origin")
        if origin is not None and _origin_host(origin) not in self._hosts:
            return 403, "Requests from pages of another origin are refused.", "forbidden_origin"
        return None

    def _refusal(self, connection: HTTPConnection) -> tuple[int, str, str] | None:
        if connection.scope["path"] in OPEN_PATHS:  # not ``url.path``: that is built from the Host header
            return None
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)
        if not known and not self._browser.admits(connection):
            return 401, "A valid bearer token is needed; it lies in .inhouse/token.", "invalid_api_key"
        length = connection.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return 413, f"The body may have at most {MAX_BODY_BYTES} bytes.", "body_too_large"
        return None


def _origin_host(origin: str) -> str:
    """The host of an Origin header; empty, which no allowed host is, when it is not a URL."""
    try:
        return _host_name(urlsplit(origin).netloc)
    except ValueError:
        return ""


_NETLOC = re.compile(r"(?P<name>[\w.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?", re.ASCII)


def _host_name(netloc: str) -> str:
    """``name:port`` or ``[v6]:port`` without the port, in lower case; empty when it is neither."""
    match = _NETLOC.fullmatch(netloc)
    return match["name"].lower() if match is not None else ""


def host_in_header(host: str) -> str:
    """How requests name ``host``: an IPv6 address stands in brackets."""
    return f"[{host}]".lower() if ":" in host and not host.startswith("[") else host.lower()


def _limited(receive: Receive) -> Receive:
    """Count a chunked body too, which announces no length."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            raise BodyTooLarge
        return message

    return limited
