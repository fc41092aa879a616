"""`/inhouse/…`: what the command line asks of a running owner."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from threading import Event
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from inhouse_retrieval.errors import Cancelled, InhouseError
from inhouse_server.answers import CURRENT, Question
from inhouse_server.http_api.errors import error_response
from inhouse_server.http_api.streaming import cancellable, server_sent
from inhouse_server.json_contracts import answer_json, index_json, search_json
from inhouse_server.workspace import Workspace
from inhouse_training import TextDelta

log = logging.getLogger(__name__)


class _SearchRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    query: str
    limit: int = Field(10, ge=1, le=1000)


class _AskRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    question: str
    adapter: str = CURRENT
    retrieve: bool = True
    max_tokens: int | None = Field(None, ge=1, le=4096)


async def search(request: Request) -> Response:
    """``{"query", "limit"}`` -> the search contract."""
    try:
        body = _SearchRequest.model_validate_json(await request.body())
    except ValidationError as error:
        return _bad_request(error)
    workspace: Workspace = request.app.state.workspace
    return JSONResponse(search_json(await run_in_threadpool(lambda: workspace.index.search(body.query, body.limit))))


async def ask(request: Request) -> Response:
    """Server-sent events: ``delta`` with text, then ``finished`` with the ask contract, or ``error``."""
    try:
        body = _AskRequest.model_validate_json(await request.body())
    except ValidationError as error:
        return _bad_request(error)
    workspace: Workspace = request.app.state.workspace
    question = Question(body.question, adapter=body.adapter, retrieve=body.retrieve, max_tokens=body.max_tokens)

    async def events() -> AsyncIterator[bytes]:
        text = ""
        try:
            async for event in cancellable(lambda cancel: workspace.assistant().ask(question, cancel)):
                if isinstance(event, TextDelta):
                    text += event.text
                    yield server_sent({"text": event.text}, "delta")
                else:
                    yield server_sent(answer_json(text, event), "finished")
        except Exception as error:
            yield _error_event(error)

    return StreamingResponse(events(), media_type="text/event-stream")


async def index(request: Request) -> Response:
    """Server-sent events: ``progress``, then ``finished`` with the index contract, or ``error``."""
    workspace: Workspace = request.app.state.workspace

    async def events() -> AsyncIterator[bytes]:
        try:
            async for name, data in cancellable(lambda cancel: _refresh_events(workspace, cancel)):
                yield server_sent(data, name)
        except Exception as error:
            yield _error_event(error)

    return StreamingResponse(events(), media_type="text/event-stream")


def _refresh_events(workspace: Workspace, cancel: Event) -> Iterator[tuple[str, dict[str, Any]]]:
    """Turn the refresh's progress callback into a stream."""
    events: queue.SimpleQueue[tuple[str, dict[str, Any]] | Exception | None] = queue.SimpleQueue()

    def report(stage: str, done: int, total: int | None) -> None:
        if cancel.is_set():
            raise Cancelled("Indexing was cancelled.", "Run it again to continue where it stopped.")
        events.put(("progress", {"stage": stage, "done": done, "total": total}))

    def work() -> None:
        try:
            events.put(("finished", index_json(workspace.refresh(report))))
        except Exception as error:
            events.put(error)
        finally:
            events.put(None)

    threading.Thread(target=work, name="refresh", daemon=True).start()
    while (event := events.get()) is not None:
        if isinstance(event, Exception):
            raise event
        yield event


async def status(request: Request) -> Response:
    """What the owner holds."""
    workspace: Workspace = request.app.state.workspace
    return JSONResponse(await run_in_threadpool(workspace.status))


async def shutdown(request: Request) -> Response:
    """Stop the owner after the answers in flight."""
    request.app.state.stop()
    return JSONResponse({"stopping": True})


def _bad_request(error: ValidationError) -> Response:
    detail = error.errors()[0]
    param = ".".join(str(part) for part in detail["loc"])
    return error_response(400, f"{param or 'body'}: {detail['msg']}.", "invalid_request_error", param)


def _error_event(error: Exception) -> bytes:
    if not isinstance(error, InhouseError):
        log.error("a request failed unexpectedly", exc_info=error)
        error = InhouseError(
            f"The owner process met a problem that it does not know: {type(error).__name__}: {error}.",
            "Its log in .inhouse/logs says more.",
        )
    return server_sent({"problem": error.problem, "remedy": error.remedy, "exit_code": error.exit_code}, "error")
