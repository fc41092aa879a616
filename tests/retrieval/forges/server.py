"""A forge on loopback: real sockets, real HTTP, pages, ETags, limits. Each request and each answer is checked against
what the forge publishes before it goes out."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

TOKEN = "forge-token-5f2c"


class World(Protocol):
    """What there is at the forge."""

    per_page: int

    def answer(self, path: str, query: dict[str, str]) -> Any:
        """The whole listing, or the object, at a path; ``None`` where there is nothing."""

    def check(self, path: str, query: dict[str, str], content: Any) -> None:
        """Raise when the request or the answer is not one that the forge documents."""


class WritableWorld(World, Protocol):
    """One that can be posted to."""

    def take(self, path: str, content: Any) -> tuple[int, Any]:
        """Check what is posted, keep it, and say what the forge answers: status and content."""


@dataclass
class Reply:
    """What is answered instead of the world's own answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"


@dataclass
class Request:
    """What was asked, and how it was answered (0: not at all)."""

    path: str
    headers: dict[str, str]
    status: int = 0
    content: Any = None


class ForgeServer:
    """The server; ``instead`` may return a :class:`Reply` to the n-th request (from 0), ``before`` may block."""

    def __init__(self, world: World, prefix: str = "") -> None:
        self.world = world
        self.prefix = prefix
        self.requests: list[Request] = []
        self.mistakes: list[BaseException] = []
        self._checked: set[tuple[str, bytes]] = set()
        self.instead: Callable[[int, str], Reply | None] = lambda number, path: None
        self.before: Callable[[int], None] = lambda number: None
        server = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.do_GET(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def do_GET(self, content: Any = None) -> None:
                headers = {key.lower(): value for key, value in self.headers.items()}
                request = Request(self.path, headers, content=content)
                with lock:
                    number = len(server.requests)
                    server.requests.append(request)
                try:
                    server.before(number)
                    reply = server.instead(number, self.path) or server.reply(request)
                except BaseException as error:
                    server.mistakes.append(error)
                    reply = Reply(500)
                request.status = reply.status
                self.send_response(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}{prefix}"

    def reply(self, request: Request) -> Reply:
        address = urlsplit(request.path)
        assert address.path.startswith(self.prefix)
        path, query = address.path.removeprefix(self.prefix), dict(parse_qsl(address.query))
        if request.content is not None:
            status, made = cast("WritableWorld", self.world).take(unquote(path), request.content)
            return Reply(status, {"Content-Type": "application/json"}, json.dumps(made).encode())
        content = self.world.answer(unquote(path), query)
        if content is None:
            return Reply(404, body=b'{"message": "Not Found"}')
        headers = {"Content-Type": "application/json; charset=utf-8"}
        if isinstance(content, list):
            page, size = int(query.get("page", 1)), min(int(query.get("per_page", 30)), self.world.per_page)
            if page * size < len(content):
                following = urlencode({**query, "page": page + 1})
                headers["Link"] = f'<{self.url}{path}?{following}>; rel="next", <{self.url}{path}?page=1>; rel="first"'
            content = content[(page - 1) * size : page * size]
        body = json.dumps(content).encode()
        if (request.path, body) not in self._checked:
            self.world.check(path, query, content)
            self._checked.add((request.path, body))
        headers["ETag"] = f'W/"{hashlib.sha256(body).hexdigest()}"'
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Reply(304, headers, b"")
        return Reply(200, headers, body)

    def posted(self) -> list[Any]:
        """What was posted and taken, in order."""
        return [request.content for request in self.requests if request.content is not None and request.status < 300]

    def answered(self) -> list[str]:
        """What was answered with content or with "not modified", in order."""
        return [request.path for request in self.requests if request.status in (200, 304)]

    @contextmanager
    def running(self) -> Iterator[ForgeServer]:
        """Serve until the end of the block; then say whether something was asked or answered that should not be."""
        thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            if self.mistakes:
                raise self.mistakes[0]
