"""Who may call: Host, Origin, token, scope, limits and sizes, checked before any route runs.

Other users of the machine and web pages reach loopback too. The Host check stops DNS rebinding, the Origin check stops
a page of another site, and the token, or the cookie that a browser got for it, stops everyone else. What a token opens
stands in the table of :mod:`~inhouse_server.http_api.routes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from inhouse_retrieval.errors import Cancelled, InhouseError
from inhouse_server.access import (
    Caller,
    Callers,
    Handled,
    Noting,
    RequestLimits,
    Scope,
    TooManyOpen,
    TooMuch,
    TooOften,
    Work,
)
from inhouse_server.elsewhere import REPOSITORY_HEADER
from inhouse_server.engines.failures import Overloaded
from inhouse_server.http_api.activity import Activity
from inhouse_server.http_api.browser import BrowserSession, locked_page
from inhouse_server.http_api.errors import error_response
from inhouse_server.http_api.repositories import Repositories
from inhouse_server.http_api.routes import METHODS, WEBSOCKET, Matched, matched

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
MAX_BODY_BYTES = 4 * 2**20
MAX_HEADERS = 100
BODY_TIMEOUT_S = 30.0
"""From the first look at a body to its end: who sends slower than that holds memory for nothing."""
LOOK_AGAIN_S = 1.0
"""How often what runs for a team's token is compared with the tokens that are valid."""
_RETRY_S = 5.0
_POLICY_VIOLATION = 1008


class BodyTooLarge(Exception):
    """The request body is above :data:`MAX_BODY_BYTES`."""


class BodyTooSlow(Exception):
    """The request body took longer than :data:`BODY_TIMEOUT_S`."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    message: str
    kind: str
    retry_s: float = 0.0


class Guard:
    """ASGI middleware; everything it refuses gets an error in OpenAI's shape, and a browser a sentence.

    The application finds the caller under ``scope["caller"]``; under ``scope["repository"]`` the name of the repository
    that the request is about, which the caller may use, or ``None`` where it does not say; under ``scope["worked"]``
    what it tells what a model did for the request; and under ``scope["asking"]`` what it calls around each question
    that comes over a WebSocket (:data:`~inhouse_server.access.Asking`).

    Args:
        secure: clients reach it over TLS.
        limits: of each token's requests.
        by_itself: other limits, for what an editor asks without being told to, by the name of that question; so that
            typing uses up no questions.
        routes: gives the routes of the application that it stands before.
        repositories: what the owner holds, and who may use which.
        handled: told of each request after it ended, and of each WebSocket when it opened, too.
    """

    def __init__(
        self,
        app: ASGIApp,
        callers: Callers,
        browser: BrowserSession,
        limits: RequestLimits,
        by_itself: Mapping[str, RequestLimits],
        allowed_hosts: frozenset[str],
        activity: Activity,
        repositories: Repositories,
        secure: bool,
        routes: Callable[[], Sequence[BaseRoute]],
        handled: Callable[[Handled], None],
    ) -> None:
        self._app = app
        self._callers = callers
        self._browser = browser
        self._limits = limits
        self._by_itself = by_itself
        self._hosts = allowed_hosts
        self._activity = activity
        self._repositories = repositories
        self._secure = secure
        self._routes = routes
        self._handled = handled

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send, self._handled)
        try:
            await self._handle(exchange, receive)
        finally:
            exchange.note(exchange.status)

    async def _handle(self, exchange: _Exchange, receive: Receive) -> None:
        connection = exchange.connection
        route = matched(self._routes(), connection.scope)
        exchange.route = route.path
        exchange.scope = route.access.scope if route.access is not None else None
        refusal = self._foreign(connection)
        signing_in = False
        if refusal is None:
            exchange.caller, signing_in = self._identify(connection, route)
            refusal = (
                self._forbidden(route, exchange.caller)
                or self._beyond_limits(connection, exchange.caller)
                or self._choose_repository(connection, exchange.caller)
            )
        if refusal is not None:
            await _refuse(refusal, connection, receive, exchange.send)
        elif signing_in and exchange.caller is not None:
            welcome = self._browser.welcome(exchange.caller, connection.scope["path"])
            await welcome(connection.scope, receive, exchange.send)
        else:
            await self._run(exchange, route, receive)

    def _foreign(self, connection: HTTPConnection) -> _Refusal | None:
        if len(connection.scope["headers"]) > MAX_HEADERS:
            return _Refusal(431, f"A request may have at most {MAX_HEADERS} headers.", "too_many_headers")
        host = _host_name(connection.headers.get("host", ""))
        if host not in self._hosts:
            return _Refusal(403, f"This server does not answer for the host {host!r}.", "forbidden_host")
        origin = connection.headers.get("origin")
        if origin is not None and not self._is_own(origin, connection):
            return _Refusal(
                403,
                "Requests from pages of another origin are refused. "
                "A proxy in front of the server must pass Host on as the browser sent it.",
                "forbidden_origin",
            )
        return None

    def _is_own(self, origin: str, connection: HTTPConnection) -> bool:
        """Whether scheme, host and port of ``origin`` are those that the request itself went to (RFC 6454)."""
        host = connection.headers["host"]
        own = {"https" if self._secure else "http"}
        if _host_name(host) in LOOPBACK:  # on the machine of a proxy also past it
            own.add("https" if connection.scope["scheme"] in ("https", "wss") else "http")
        scheme, separator, netloc = origin.lower().partition("://")
        return bool(separator) and scheme in own and _place(netloc, scheme) == _place(host, scheme) is not None

    def _identify(self, connection: HTTPConnection, route: Matched) -> tuple[Caller | None, bool]:
        """Who asks, and whether that is by an address that signs a browser in."""
        if signing_in := self._browser.signing_in(connection):
            return signing_in, True
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        caller = self._callers.by_token(given.strip()) if scheme.lower() == "bearer" else None
        return caller or self._browser.caller(connection, route), False

    def _forbidden(self, route: Matched, caller: Caller | None) -> _Refusal | None:
        access = route.access
        if access is not None and access.scope is None:
            return None
        if caller is None:
            return _Refusal(
                401, "A valid bearer token is needed; the owner's own lies in .inhouse/token.", "invalid_api_key"
            )
        if access is None:
            # A path that is no route is told so; a route that the table forgot is opened by nothing.
            return _Refusal(403, "No token opens this.", "insufficient_scope") if route.named else None
        if access.scope is not None and not caller.may(access.scope):
            return _Refusal(403, f"The token lacks the scope {access.scope.value!r}.", "insufficient_scope")
        if access.whole and not (caller.is_owner or self._repositories.opens_all(caller)):
            return _Refusal(403, "The token is not for every repository that is served here.", "insufficient_scope")
        return None

    def _choose_repository(self, connection: HTTPConnection, caller: Caller | None) -> _Refusal | None:
        """What the request is about; one that the caller may not use is told as one that does not exist."""
        if caller is None:
            return None
        named = connection.headers.get(REPOSITORY_HEADER)
        if named is not None and named not in self._repositories.of(caller):
            return _Refusal(404, f"There is no repository {named!r} here.", "repository_not_found")
        connection.scope["repository"] = named or self._repositories.default(caller)
        return None

    def _beyond_limits(self, connection: HTTPConnection, caller: Caller | None) -> _Refusal | None:
        length = connection.headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or len(length) > 18 or int(length) > MAX_BODY_BYTES:
            return _Refusal(413, f"The body may have at most {MAX_BODY_BYTES} bytes.", "body_too_large")
        if caller is None:
            return None
        if self._activity.draining:
            return _Refusal(503, "The server is stopping.", "stopping", _RETRY_S)
        if not caller.is_owner and (wait := self._limits.take(caller.id)):
            return _Refusal(429, "This token has asked too much in the last minute.", "rate_limit_exceeded", wait)
        if not caller.is_owner and self._limits.is_full(caller.id):
            return _Refusal(429, "This token has too many requests open.", "rate_limit_exceeded", _RETRY_S)
        return None

    async def _run(self, exchange: _Exchange, route: Matched, receive: Receive) -> None:
        caller = exchange.caller
        scope = exchange.connection.scope
        scope["caller"] = caller
        scope["worked"] = exchange.worked
        scope["asking"] = functools.partial(self._asking, exchange)
        taking = _limited(receive) if scope["type"] == "http" else receive
        if caller is None:  # a route for everyone
            await self._app(scope, taking, exchange.send)
            return
        lasting = route.access is not None and exchange.method in route.access.lasting
        self._activity.begin(lasting)
        self._limits.begin(caller.id)
        try:
            if caller.is_owner:
                await self._app(scope, taking, exchange.send)
            else:
                await self._run_while_valid(caller, exchange, taking)
        finally:
            self._limits.end(caller.id)
            self._activity.end(lasting)

    @contextmanager
    def _asking(self, exchange: _Exchange, what: str) -> Iterator[Noting]:
        """Count a question that came over a connection which is open already, and note it when it has ended."""
        noting, began = Noting(), time.perf_counter()
        try:
            with self._place(exchange, self._by_itself.get(what, self._limits)):
                yield noting
        except BaseException as error:
            noting.status = _status_of(error)
            raise
        finally:
            self._handled(exchange.of("LSP", what, noting, time.perf_counter() - began, what in self._by_itself))

    @contextmanager
    def _place(self, exchange: _Exchange, limits: RequestLimits) -> Iterator[None]:
        """Let a question run within ``limits``. One at a time takes the place that its connection has anyway, so that
        whoever has many editors open can ask in each.

        Raises:
            TooMuch: it may not run.
        """
        caller = exchange.caller
        if caller is None or caller.is_owner:
            yield
            return
        if wait := limits.take(caller.id):
            raise TooOften(wait)
        if limits is self._limits and not exchange.place_taken:
            exchange.place_taken = True
            try:
                yield
            finally:
                exchange.place_taken = False
            return
        if limits.is_full(caller.id):
            raise TooManyOpen
        limits.begin(caller.id)
        try:
            yield
        finally:
            limits.end(caller.id)

    async def _run_while_valid(self, caller: Caller, exchange: _Exchange, receive: Receive) -> None:
        running = asyncio.ensure_future(self._app(exchange.connection.scope, receive, exchange.send))
        try:
            while not (await asyncio.wait({running}, timeout=LOOK_AGAIN_S))[0]:
                if self._callers.by_id(caller.id) is None:
                    await exchange.give_up("The token is not valid any more.")
                    running.cancel()
                    await asyncio.wait({running})
                    return
            await running
        finally:
            running.cancel()


class _Exchange:
    """One request or WebSocket, from its head to its end, as the log of requests sees it.

    Attributes:
        status: of the answer; 0 when there was none.
        place_taken: a question that came over it is answered in its place.
    """

    def __init__(self, scope: AsgiScope, send: Send, handled: Callable[[Handled], None]) -> None:
        self.connection = HTTPConnection(scope)
        method = scope["method"] if scope["type"] == "http" else WEBSOCKET
        self.method: str = method if method in METHODS else "other"
        self.client = self.connection.client.host if self.connection.client else ""
        self.caller: Caller | None = None
        self.route = ""
        self.scope: Scope | None = None
        self.work: Work | None = None
        self.status = 0
        self.place_taken = False
        self._send = send
        self._handled = handled
        self._started = time.perf_counter()

    @property
    def repository(self) -> str | None:
        """What it is about, where repositories have names and its caller may use it."""
        return self.connection.scope.get("repository") or None

    def note(self, status: int) -> None:
        seconds = time.perf_counter() - self._started
        self._handled(self.of(self.method, self.route, Noting(self.work, status), seconds))

    def worked(self, work: Work) -> None:
        """A model did something for this request; from any thread."""
        self.work = work

    def of(self, method: str, route: str, noting: Noting, seconds: float, by_itself: bool = False) -> Handled:
        """What is noted: the request itself, or a question that came over the connection that it opened."""
        scope = self.scope.value if self.scope is not None else None
        status, work = noting.status, noting.work
        return Handled(
            self.caller, method, route, status, seconds, self.client, scope, work, by_itself, self.repository
        )

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
        elif kind == "websocket.accept":
            self.note(101)
        elif kind == "websocket.close":
            self.status = self.status or message.get("code", 1000)
        await self._send(message)

    async def give_up(self, reason: str) -> None:
        """End what cannot go on. An answer that has begun stays cut short, which its client notices."""
        with contextlib.suppress(Exception):  # it may be over already
            if self.connection.scope["type"] == "websocket":
                self.status = _POLICY_VIOLATION
                closing = {"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": reason}
                await asyncio.wait_for(self._send(closing), 1)
            elif self.status == 0:
                await error_response(401, reason, "invalid_api_key")(self.connection.scope, _nothing, self.send)


def _status_of(error: BaseException) -> int:
    match error:
        case TooMuch():
            return 429
        case Overloaded():
            return error.status
        case Cancelled() | asyncio.CancelledError():
            return 499
        case InhouseError():
            return 400
    return 500


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


async def _refuse(refusal: _Refusal, connection: HTTPConnection, receive: Receive, send: Send) -> None:
    if connection.scope["type"] == "websocket" and not refusal.retry_s and refusal.status != 404:
        await receive()
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refusal.message})
        return
    lacking = refusal.kind in ("invalid_api_key", "insufficient_scope")
    locked = locked_page(connection, refusal.status) if lacking else None
    answer = error_response(refusal.status, refusal.message, refusal.kind, retry_s=refusal.retry_s)
    await (locked or answer)(connection.scope, receive, send)


_NETLOC = re.compile(r"(?P<name>[\w.-]+|\[[0-9a-fA-F:.]+\])(:(?P<port>\d{1,5}))?", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def _host_name(netloc: str) -> str:
    """``name:port`` or ``[v6]:port`` without the port, in lower case; empty when it is neither."""
    match = _NETLOC.fullmatch(netloc)
    return match["name"].lower() if match is not None else ""


def _place(netloc: str, scheme: str) -> tuple[str, int] | None:
    """Host and port; the port that ``scheme`` implies where none is named, which is how browsers write it."""
    match = _NETLOC.fullmatch(netloc)
    return None if match is None else (match["name"].lower(), int(match["port"] or _DEFAULT_PORTS[scheme]))


def host_in_header(host: str) -> str:
    """How requests name ``host``: an IPv6 address stands in brackets."""
    return f"[{host}]".lower() if ":" in host and not host.startswith("[") else host.lower()


def _limited(receive: Receive) -> Receive:
    """Count a chunked body too, which announces no length, and do not wait for it for ever."""
    seen, whole = 0, False
    until: float | None = None

    async def limited() -> Message:
        nonlocal seen, whole, until
        if whole:  # what comes now says that the client left
            return await receive()
        until = until or asyncio.get_running_loop().time() + BODY_TIMEOUT_S
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            raise BodyTooSlow from None
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            raise BodyTooLarge
        whole = not message.get("more_body", False)
        return message

    return limited
