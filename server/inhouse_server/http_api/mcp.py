"""`/mcp`: the tools over streamable HTTP, behind the same guard as every route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection, Request
from starlette.types import Message, Receive, Scope, Send

from inhouse_retrieval.within import Within
from inhouse_server.access import Caller
from inhouse_server.access import Scope as AccessScope
from inhouse_server.background import run_in_thread
from inhouse_server.http_api.repositories import workspace_of
from inhouse_server.workspace import Workspace

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager


class McpEndpoint:
    """ASGI application. Callers who may do or see other things have other sessions: a session keeps its tools."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, bool, Within], _Sessions] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller = scope["caller"]
        workspace = workspace_of(HTTPConnection(scope))
        may = (workspace.name, caller.may(AccessScope.REVIEW), caller.within)
        if may not in self._sessions:
            self._sessions[may] = _Sessions(workspace, *may[1:])
        await self._sessions[may](scope, await _whole(scope, receive), send)

    @asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """Ends the sessions with the application."""
        try:
            yield
        finally:
            for sessions in self._sessions.values():
                await sessions.end()


async def _whole(scope: Scope, receive: Receive) -> Receive:
    """``receive`` with the body in one message: no session begins for a client that leaves within it, which the SDK
    would log as an error.

    Raises:
        ClientDisconnect: the client left.
    """
    body = await Request(scope, receive).body()
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return messages.pop() if messages else await receive()

    return received


class _Sessions:
    """They start with their first request, since importing the SDK takes a second that an owner does not have before it
    listens."""

    def __init__(self, workspace: Workspace, reviewing: bool, within: Within) -> None:
        self._workspace = workspace
        self._without = frozenset() if reviewing else frozenset({"review"})
        self._within = within
        self._manager: StreamableHTTPSessionManager | None = None
        self._running: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._stop = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._starting:
            if self._manager is None:
                self._manager = await self._start()
        await self._manager.asgi_app(scope, receive, send)

    async def end(self) -> None:
        self._stop.set()
        if self._running is not None:
            await self._running

    async def _start(self) -> StreamableHTTPSessionManager:
        manager = await run_in_thread(self._build)
        ready = asyncio.Event()

        async def run() -> None:
            # In a task of its own: sessions outlive the request that happened to come first.
            async with manager.run():
                ready.set()
                await self._stop.wait()

        self._running = asyncio.create_task(run())
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({self._running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.is_set():
            waiting.cancel()
            await self._running  # raises why it ended; the next request tries again
        return manager

    def _build(self) -> StreamableHTTPSessionManager:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        from inhouse_server.mcp.in_owner import InOwner
        from inhouse_server.mcp.tools import build_server

        return StreamableHTTPSessionManager(build_server(InOwner(self._workspace, self._within), self._without))
