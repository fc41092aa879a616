"""The receiver: an HTTP application with one route, which takes a delivery in or says why not.

Everything is refused that is not a POST to the route with a body of bounded size, proven to come from the forge. It
answers once the delivery is on disk, and starts nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inhouse_retrieval import StateUnwritable
from inhouse_retrieval.pull_requests.forge import Kind
from inhouse_server.webhook.events import Ignored, Wanted, read_event
from inhouse_server.webhook.queue import Queue
from inhouse_server.webhook.signature import Signature

ROUTE = "/webhook"
MAX_BYTES = 2_000_000
"""A pull request's delivery has some 30 KB."""
_READ_S = 20.0
"""For the whole body, however slowly it comes."""
_EVENT = {"github": "x-github-event", "gitlab": "x-gitlab-event"}
_log = logging.getLogger(__name__)


def make_receiver(
    kind: Kind, project: str, signature: Signature, queue: Queue, wake: Callable[[], None] = lambda: None
) -> Starlette:
    """The application.

    Args:
        wake: called after a job was added.
    """

    async def receive(request: Request) -> Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = await _body(request)
        if body is None:
            return _told(413, f"the body may have at most {MAX_BYTES:,} bytes, and {_READ_S:.0f} s to come")
        if not signature.proves(headers, body):
            return _told(401, "the signature or token is not right")
        names = signature.names(headers, body)
        if names is None:
            return _told(400, "the delivery has no id")
        try:
            found = read_event(kind, project, headers.get(_EVENT[kind], ""), json.loads(body))
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
            return _told(400, "the payload is not one that the forge documents")
        try:
            outcome = queue.accept(names, found if isinstance(found, Wanted) else None)
        except StateUnwritable as error:
            _log.error("%s", error.problem)
            return _told(503, "the queue cannot be written")
        if outcome == "full":
            _log.warning("the queue is full; a delivery was refused")
            return _told(503, "too many reviews wait", {"Retry-After": "600"})
        if outcome == "repeated":
            return _told(200, "this delivery came before")
        if isinstance(found, Ignored):
            return _told(200, found.reason)
        if outcome == "queued":
            _log.info("#%d: %s of %s", found.number, found.command, found.head[:12] or "its head")
            wake()
        return _told(202, {"waiting": "this commit waits already", "done": "reviewed before"}.get(outcome, outcome))

    return Starlette(routes=[Route(ROUTE, receive, methods=["POST"])])


async def _body(request: Request) -> bytes | None:
    """The body as it came, ``None`` when it is too long or too slow; no more than the limit is ever held."""
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) < 12) or int(length) > MAX_BYTES:
        return None
    body = bytearray()
    try:
        async with asyncio.timeout(_READ_S):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BYTES:
                    return None
    except (ClientDisconnect, TimeoutError):
        return None
    return bytes(body)


def _told(status: int, outcome: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"inhouse": outcome}, status, headers)
