"""`/inhouse/…`: what the command line and the MCP server on stdio ask of a running owner."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from threading import Event
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from inhouse_retrieval.errors import Cancelled, InhouseError
from inhouse_retrieval.progress import Progress
from inhouse_server.access import Scope
from inhouse_server.answers import CURRENT, Question
from inhouse_server.background import cancellable, job_events
from inhouse_server.http_api.reading import assistant_of, read_body, within_of
from inhouse_server.http_api.repositories import workspace_of
from inhouse_server.http_api.streaming import refused_at_once, server_sent, unless_left
from inhouse_server.json_contracts import answer_json, index_json, passage_json, search_json
from inhouse_server.mcp.in_owner import read_passage, review_for_client
from inhouse_training import Message, TextDelta

log = logging.getLogger(__name__)


class SearchRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    query: str
    limit: int = Field(10, ge=1, le=1000)


class UsesRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=300)
    limit: int = Field(100, ge=1, le=10_000)


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["user", "assistant"]
    content: str


class AskRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    question: str
    adapter: str = CURRENT
    retrieve: bool = True
    max_tokens: int | None = Field(None, ge=1, le=4096)
    history: list[_Turn] = Field([], max_length=200)
    passages: bool = False


class PassageRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    path: str
    start_line: int
    end_line: int


class ReviewRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    revisions: str | None = None
    staged: bool = False


async def search(request: Request) -> Response:
    """``{"query", "limit"}`` -> the search contract."""
    body = await read_body(request, SearchRequest)
    workspace = workspace_of(request)
    within = within_of(request)
    found = await run_in_threadpool(lambda: workspace.index.search(body.query, body.limit, within=within))
    return JSONResponse(search_json(found, body.limit))


async def uses(request: Request) -> Response:
    """``{"name", "limit"}`` -> the contract of a name: where it is defined and used."""
    body = await read_body(request, UsesRequest)
    workspace = workspace_of(request)
    within = within_of(request)
    return JSONResponse(await run_in_threadpool(lambda: workspace.uses(body.name, body.limit, within)))


async def ask(request: Request) -> Response:
    """Server-sent events: ``delta`` with text, then ``finished`` with the ask contract, or ``error``.

    Who cannot be answered now is told so by the status, 429 or 503, and ``Retry-After``. ``history`` are earlier turns,
    oldest first. With ``passages``, ``finished`` also holds what was cited as the search contract has it, text and all.
    """
    body = await read_body(request, AskRequest)
    assistant = assistant_of(request, workspace_of(request))
    question = Question(
        body.question,
        history=tuple(Message(turn.role, turn.content) for turn in body.history),
        adapter=body.adapter,
        retrieve=body.retrieve,
        max_tokens=body.max_tokens,
    )

    answering = cancellable(lambda cancel: assistant.ask(question, cancel))
    answer = await unless_left(request, refused_at_once(answering))
    if answer is None:
        return Response(status_code=499)

    async def events() -> AsyncIterator[bytes]:
        text = ""
        try:
            async for event in answer:
                if isinstance(event, TextDelta):
                    text += event.text
                    yield server_sent({"text": event.text}, "delta")
                else:
                    texts = {"passages": [passage_json(each) for each in event.citations]} if body.passages else {}
                    yield server_sent(answer_json(text, event) | texts, "finished")
        except Exception as error:
            yield _error_event(error)

    return StreamingResponse(events(), media_type="text/event-stream")


async def index(request: Request) -> Response:
    """Server-sent events: ``progress``, then ``finished`` with the index contract, or ``error``."""
    workspace = workspace_of(request)

    def refresh(progress: Progress, cancel: Event) -> dict[str, Any]:
        return index_json(workspace.refresh(progress))

    return _job(refresh, "Indexing")


async def passage(request: Request) -> Response:
    """``{"path", "start_line", "end_line"}`` -> the passage contract."""
    body = await read_body(request, PassageRequest)
    workspace = workspace_of(request)
    within = within_of(request)
    return JSONResponse(
        await run_in_threadpool(lambda: read_passage(workspace, within, body.path, body.start_line, body.end_line))
    )


async def review(request: Request) -> Response:
    """Server-sent events: ``progress``, then ``finished`` with the review contract, or ``error``."""
    body = await read_body(request, ReviewRequest)
    workspace, caller = workspace_of(request), request.scope["caller"]

    def work(progress: Progress, cancel: Event) -> dict[str, Any]:
        return review_for_client(workspace, body.revisions, body.staged, progress, cancel, caller.id)

    return _job(work, "The review")


def _job(work: Callable[[Progress, Event], dict[str, Any]], name: str) -> Response:
    cancelled = Cancelled(f"{name} was cancelled.", "Run it again.")

    async def events() -> AsyncIterator[bytes]:
        try:
            async for kind, data in cancellable(lambda cancel: job_events(work, cancel, cancelled)):
                yield server_sent(data, kind)
        except Exception as error:
            yield _error_event(error)

    return StreamingResponse(events(), media_type="text/event-stream")


async def status(request: Request) -> Response:
    """What the owner holds; where that is, only for who may administrate."""
    workspace = workspace_of(request)
    administrates = request.scope["caller"].may(Scope.ADMIN)
    return JSONResponse(await run_in_threadpool(lambda: workspace.status(administrates)))


async def shutdown(request: Request) -> Response:
    """Stop the owner after the answers in flight."""
    request.app.state.stop()
    return JSONResponse({"stopping": True})


def _error_event(error: Exception) -> bytes:
    if not isinstance(error, InhouseError):
        log.error("a request failed unexpectedly", exc_info=error)
        error = InhouseError(
            f"The owner process met a problem that it does not know: {type(error).__name__}: {error}.",
            "Its log in .inhouse/logs says more.",
        )
    return server_sent({"problem": error.problem, "remedy": error.remedy, "exit_code": error.exit_code}, "error")
