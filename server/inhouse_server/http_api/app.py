"""The owner's ASGI application: routes, and the guard in front of all of them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from inhouse_retrieval.errors import InhouseError
from inhouse_server.access import Audit, Callers, Handled, RequestLimits, TokenStore, token_file
from inhouse_server.engines.failures import Overloaded
from inhouse_server.http_api import admin, chat, commands, embeddings, openapi, stepping_aside, web
from inhouse_server.http_api.activity import Activity
from inhouse_server.http_api.browser import BrowserSession
from inhouse_server.http_api.errors import Refused, error_body, error_response
from inhouse_server.http_api.guard import LOOPBACK, BodyTooLarge, BodyTooSlow, Guard, host_in_header
from inhouse_server.http_api.mcp import McpEndpoint
from inhouse_server.http_api.metrics import Metrics, metrics
from inhouse_server.http_api.repositories import Repositories, repositories, workspace_of
from inhouse_server.lsp_capabilities import INLINE_COMPLETION
from inhouse_server.owner import proof
from inhouse_server.workspace import Workspace


def build_app(
    workspace: Workspace,
    token: str,
    host: str,
    port: int,
    secure: bool = False,
    beside: Sequence[tuple[Workspace, str]] = (),
    failed: Mapping[str, InhouseError] | None = None,
) -> Starlette:
    """The application for the repositories that one process holds.

    Args:
        workspace: the one that the owner was started in: its settings say where to listen and how much may be asked,
            and its state directory has the team's tokens and the audit log.
        token: the owner's own, which opens everything; a team's tokens open what their scopes name. A browser that
            showed one gets a cookie for the page at ``/`` and what that page asks.
        host: address that the owner listens on; requests may name it, loopback, and the configured host and
            ``allowed_hosts``.
        port: where it listens; the cookie's name holds it.
        secure: clients reach it over TLS.
        beside: further repositories, each with the owner's own token of its state directory, which opens it alone.
        failed: why each of those is not held that should be; ``app.state.take_in`` takes one that is held later.

    Raises:
        InhouseError: the file of the team's tokens cannot be used.
    """
    activity = Activity()
    server = workspace.settings.server
    team = TokenStore(token_file(workspace.settings, workspace.root, workspace.state_dir))
    team.all()
    held = Repositories(workspace, failed or {})
    owners: dict[str, str] = {}
    callers = Callers(owners, team)
    audit = Audit(workspace.state_dir)
    figures = Metrics(activity, lambda: audit.failures, held.model_servers)

    def take_in(each: Workspace, its_own: str) -> None:
        held.add(each)
        owners[each.name] = its_own
        each.answered = partial(figures.answer, each.name)

    for each, its_own in ((workspace, token), *beside):
        take_in(each, its_own)

    def handled(request: Handled) -> None:
        audit.request(request)
        figures.request(request)

    named = (host, server.host, *server.allowed_hosts)
    hosts = LOOPBACK | {host_in_header(name) for name in named}
    mcp = McpEndpoint()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with mcp.lifespan(app):
            yield
        audit.close()

    app: Starlette = Starlette(
        routes=[
            Route("/healthz", _health),
            Route("/metrics", metrics),
            Route("/", web.page),
            Route("/web/{name}", web.static),
            Route("/admin", admin.page),
            Route("/v1/models", chat.models),
            Route("/v1/chat/completions", chat.chat_completions, methods=["POST"]),
            Route("/v1/completions", chat.completions, methods=["POST"]),
            Route("/v1/embeddings", embeddings.embeddings, methods=["POST"]),
            Route("/openapi.json", openapi.document),
            Route("/inhouse/repositories", repositories),
            Route("/inhouse/search", commands.search, methods=["POST"]),
            Route("/inhouse/ask", commands.ask, methods=["POST"]),
            Route("/inhouse/index", commands.index, methods=["POST"]),
            Route("/inhouse/passage", commands.passage, methods=["POST"]),
            Route("/inhouse/uses", commands.uses, methods=["POST"]),
            Route("/inhouse/review", commands.review, methods=["POST"]),
            Route("/inhouse/status", commands.status),
            Route("/inhouse/adapters", web.adapters),
            Route("/inhouse/feedback", web.feedback, methods=["POST"]),
            Route("/inhouse/admin", admin.admin),
            Route("/inhouse/usage", admin.usage),
            Route("/inhouse/adapters/{version}/{name}", admin.report_file),
            Route("/inhouse/promote", admin.promote, methods=["POST"]),
            Route("/inhouse/rollback", admin.rollback, methods=["POST"]),
            Route("/inhouse/memory", stepping_aside.memory),
            Route("/inhouse/step-aside", stepping_aside.step_aside, methods=["POST"]),
            Route("/inhouse/come-back", stepping_aside.come_back, methods=["POST"]),
            Route("/inhouse/shutdown", commands.shutdown, methods=["POST"]),
            Route("/mcp", mcp),
            WebSocketRoute("/lsp", _language_server),
        ],
        middleware=[
            Middleware(
                Guard,
                callers=callers,
                browser=BrowserSession(owners, port, callers, secure),
                limits=RequestLimits(server.requests_per_minute, server.requests_at_once),
                by_itself={INLINE_COMPLETION: RequestLimits(server.completions_per_minute, 0)},
                allowed_hosts=hosts,
                activity=activity,
                repositories=held,
                secure=secure,
                routes=lambda: app.routes,
                handled=handled,
            )
        ],
        exception_handlers={
            InhouseError: _inhouse_error,
            Overloaded: _overloaded,
            Refused: _refused,
            HTTPException: _http_error,
            BodyTooLarge: _body_too_large,
            BodyTooSlow: _body_too_slow,
            ClientDisconnect: _left,
            Exception: _unexpected,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a path is a route's or it is none
    app.state.repositories = held
    app.state.owners = owners
    app.state.take_in = take_in
    app.state.activity = activity
    app.state.audit = audit
    app.state.metrics = figures
    app.state.stop = lambda: None
    return app


async def _health(request: Request) -> Response:
    """Alive; says nothing about the repository, because it needs no token.

    Given a ``nonce``, it proves that it knows the token: whoever took over the port of a dead owner does not. Given a
    ``repository`` too, it proves to know the token of that one. Where there is no such, the answer is of a token that
    nobody has, and the same each time, as a real one is: a stranger is not to learn which there are.
    """
    owners: dict[str, str] = request.app.state.owners
    draining = request.app.state.activity.draining
    health = {"status": "stopping" if draining else "ok", "pid": os.getpid()}
    if nonce := request.query_params.get("nonce"):
        first = next(iter(owners))
        named = request.query_params.get("repository", first)
        health["proof"] = proof(owners.get(named) or proof(f"of none: {owners[first]}", named), nonce)
    return JSONResponse(health, 503 if draining else 200, {"Retry-After": "5"} if draining else None)


async def _language_server(websocket: WebSocket) -> None:
    try:
        workspace = workspace_of(websocket)
    except Refused as error:
        await websocket.send_denial_response(JSONResponse(error.body, error.status))
        return
    await websocket.accept()
    serve_connection = await run_in_threadpool(_import_language_server)
    state, scope = websocket.app.state, websocket.scope
    await serve_connection(websocket, workspace, state.activity, scope["asking"], scope["caller"])


def _import_language_server() -> Callable[..., Awaitable[None]]:
    """In a thread, since it takes a second in which nobody else would be answered."""
    from inhouse_server.language_server import serve_connection

    return serve_connection


async def _inhouse_error(request: Request, error: Exception) -> Response:
    return error_response(400, str(error), "inhouse_error")


async def _overloaded(request: Request, error: Exception) -> Response:
    assert isinstance(error, Overloaded)
    return error_response(error.status, str(error), "overloaded", retry_s=max(error.retry_s, 1.0))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(error.body, error.status)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = error_body(f"{error.detail}: {request.url.path}", "invalid_request_error")
    return JSONResponse(body, error.status_code, error.headers)


async def _body_too_large(request: Request, error: Exception) -> Response:
    return error_response(413, "The body is too large.", "body_too_large")


async def _body_too_slow(request: Request, error: Exception) -> Response:
    return error_response(408, "The body took too long to arrive.", "request_timeout")


async def _left(request: Request, error: Exception) -> Response:
    """Its client left before the body was whole, which happens and is no error of ours."""
    return Response(status_code=499)


async def _unexpected(request: Request, error: Exception) -> Response:
    # Starlette logs the traceback; the caller gets a plain sentence.
    return error_response(500, "The server failed; its log says why.", "server_error")
