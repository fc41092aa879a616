"""`/openapi.json`: what the API takes and gives, as OpenAPI 3.1, made from the models that read the requests."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from inhouse_server.http_api.admin import PromoteRequest, RollbackRequest
from inhouse_server.http_api.commands import AskRequest, PassageRequest, ReviewRequest, SearchRequest, UsesRequest
from inhouse_server.http_api.openai_requests import ChatRequest, CompletionRequest, EmbeddingRequest
from inhouse_server.http_api.routes import ACCESS
from inhouse_server.http_api.stepping_aside import ComeBackRequest, StepAsideRequest
from inhouse_server.http_api.web import FeedbackRequest
from inhouse_server.version import VERSION

Schema = dict[str, Any]


def _object(required: str = "", **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": required.split() or [*properties]}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


_TEXT, _COUNT, _NUMBER, _YES = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))
_MAYBE: Schema = {"type": ["string", "null"]}
_PLACE = _object(path=_TEXT, start_line=_COUNT, end_line=_COUNT)
_PROVENANCE = _object(base_model=_TEXT, adapter=_MAYBE, index_commit=_MAYBE, pending=_COUNT)
_ANSWER = _object(
    "answer citations provenance reason",
    answer=_TEXT,
    citations=_list(_PLACE),
    omitted=_list(_PLACE),
    notes=_list(_TEXT),
    reason=_TEXT,
    provenance=_PROVENANCE,
    timings={"type": "object"},
)
_RETRAINING = _object(started=_TEXT, finished=_TEXT, candidate=_MAYBE, decision=_TEXT, reasons=_list(_TEXT))
_LENT = _object(pid=_COUNT, until=_TEXT, answering=_COUNT, aside=_YES)
_USAGE = _object("prompt_tokens total_tokens", prompt_tokens=_COUNT, completion_tokens=_COUNT, total_tokens=_COUNT)


def _completion(kind: str, **said: Schema) -> Schema:
    choice = _object(
        f"index finish_reason {' '.join(said)}", index=_COUNT, finish_reason={"enum": ["stop", "length"]}, **said
    )
    return _object(
        id=_TEXT, created=_COUNT, model=_TEXT, object={"const": kind}, choices=_list(choice), usage=_USAGE,
        inhouse=_ANSWER,
    )  # fmt: skip


_ANSWERS: dict[str, Schema] = {
    "Health": _object("status pid", status=_TEXT, pid=_COUNT, proof=_TEXT),
    "Models": _object(object={"const": "list"}, data=_list(_object("id object", id=_TEXT, object={"const": "model"}))),
    "Chat": _completion("chat.completion", message=_object("role content", role=_TEXT, content=_TEXT)),
    "Completion": _completion("text_completion", text=_TEXT),
    "Embeddings": _object(
        object={"const": "list"},
        data=_list(
            _object(object={"const": "embedding"}, index=_COUNT, embedding={"anyOf": [_list(_NUMBER), _TEXT]})
        ),
        model=_TEXT,
        usage=_USAGE,
    ),
    "Search": _object(
        results=_list(_PLACE),
        beside=_list(_PLACE),
        index_commit=_TEXT,
        pending=_COUNT,
        unembedded=_COUNT,
        to_rerank=_COUNT,
        reranked=_COUNT,
    ),
    "Uses": _object(
        definitions=_list(_object(path=_TEXT, line=_COUNT, last_line=_COUNT, code=_TEXT)),
        uses=_list(_object(path=_TEXT, line=_COUNT, code=_TEXT, within=_TEXT)),
        more=_YES,
    ),
    "Passage": _object(path=_TEXT, start_line=_COUNT, end_line=_COUNT, total_lines=_COUNT, text=_TEXT),
    "Status": _object("base_model adapter index_commit files chunks pending unembedded", root=_TEXT,
                      base_model=_TEXT, adapter=_MAYBE, index_commit=_MAYBE, files=_COUNT, chunks=_COUNT,
                      pending=_COUNT, unembedded=_COUNT),
    "Adapters": _object(adapters=_list(_object("version current", version=_TEXT, current=_YES))),
    "Admin": _object(
        status=_object(), adapters=_list(_object("version current", version=_TEXT, current=_YES)), base=_object(),
        history=_list(_object(version=_MAYBE, at=_TEXT, note=_TEXT)), retrainings=_list(_RETRAINING),
        damaged=_list(_TEXT),
    ),
    "Used": _object(since=_MAYBE, days=_list(_object("day requests", day=_TEXT, requests=_COUNT)),
                    callers=_list(_object("token name requests", token=_MAYBE, name=_TEXT, requests=_COUNT))),
    "Promoted": _object(current=_MAYBE, warning=_TEXT),
    "Repositories": _object(repositories=_list(_TEXT), default=_MAYBE, failed=_object()),
    "Kept": _object(kept={"const": True}),
    "Memory": _object(pid=_COUNT, lends=_YES, device=_TEXT, held=_COUNT, model=_COUNT),
    "Lent": _LENT,
    "Back": _object(stepped_aside={"anyOf": [_LENT, {"type": "null"}]}),
    "Stopping": _object(stopping={"const": True}),
    "Error": _object(
        error=_object(message=_TEXT, type=_TEXT, param=_MAYBE, code=_MAYBE),
    ),
}  # fmt: skip
_EVENTS = "server-sent events"
_OPERATIONS: tuple[tuple[str, str, str, type[BaseModel] | None, str], ...] = (
    ("/healthz", "get", "Alive; needs no token", None, "Health"),
    ("/v1/models", "get", "What can be asked", None, "Models"),
    ("/v1/chat/completions", "post", "Answer the last message", ChatRequest, "Chat"),
    ("/v1/completions", "post", "Answer a prompt as one question", CompletionRequest, "Completion"),
    ("/v1/embeddings", "post", "Vectors of the index's encoder", EmbeddingRequest, "Embeddings"),
    ("/inhouse/repositories", "get", "Names of what the token opens", None, "Repositories"),
    ("/inhouse/search", "post", "Passages, best first", SearchRequest, "Search"),
    ("/inhouse/uses", "post", "Where a name is defined and used", UsesRequest, "Uses"),
    ("/inhouse/ask", "post", "An answer as it is written", AskRequest, _EVENTS),
    ("/inhouse/passage", "post", "Lines of a file", PassageRequest, "Passage"),
    ("/inhouse/review", "post", "A review of what the checkout holds", ReviewRequest, _EVENTS),
    ("/inhouse/index", "post", "Bring the index up to date", None, _EVENTS),
    ("/inhouse/status", "get", "What the owner holds", None, "Status"),
    ("/inhouse/adapters", "get", "Adapter versions, oldest first", None, "Adapters"),
    ("/inhouse/feedback", "post", "Keep a verdict on an answer", FeedbackRequest, "Kept"),
    ("/inhouse/admin", "get", "Adapters, promotions and retrainings", None, "Admin"),
    ("/inhouse/usage", "get", "What was asked, by day and by token", None, "Used"),
    ("/inhouse/promote", "post", "Make a version current", PromoteRequest, "Promoted"),
    ("/inhouse/rollback", "post", "Back to what was current before", RollbackRequest, "Promoted"),
    ("/inhouse/memory", "get", "What the owner's model holds", None, "Memory"),
    ("/inhouse/step-aside", "post", "Lend the model's memory for so long", StepAsideRequest, "Lent"),
    ("/inhouse/come-back", "post", "Load the model again", ComeBackRequest, "Back"),
    ("/inhouse/shutdown", "post", "Stop after the answers in flight", None, "Stopping"),
)


@cache
def openapi() -> Schema:
    """The document. Not in it are the pages with their files, `/lsp` and `/mcp`: HTML, and protocols of their own."""
    bodies = [(body, "validation") for *_, body, _ in _OPERATIONS if body is not None]
    _, made = models_json_schema(bodies, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    paths: dict[str, Any] = {}
    for path, method, summary, body, answer in _OPERATIONS:
        scope = ACCESS[path].scope
        operation: Schema = {
            "operationId": f"{method}{path}".replace("/", "_"),
            "summary": summary,
            "description": f"Needs a token with the scope {scope.value}." if scope else "",
            "responses": {"200": _ok(answer, streams=path.startswith("/v1/") and body is not EmbeddingRequest)}
            | {"default": {"description": "What is wrong", "content": _json("Error")}},
        }
        if scope is None:
            operation["security"] = []
        if body is not None:
            operation["requestBody"] = {"required": True, "content": _json(body.__name__)}
        paths[path] = {method: operation}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "inhouse",
            "version": VERSION,
            "description": "Answers about a repository; where a token opens several, Inhouse-Repository names one.",
        },
        "paths": paths,
        "components": {
            "schemas": {**made["$defs"], **_ANSWERS},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _ok(answer: str, streams: bool) -> Schema:
    events: Schema = {"text/event-stream": {"schema": {}}}
    if answer == _EVENTS:
        return {"description": _EVENTS, "content": events}
    return {"description": "Done", "content": _json(answer) | (events if streams and answer != "Models" else {})}


def _json(name: str) -> Schema:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


async def document(request: Request) -> Response:
    """This document."""
    return JSONResponse(openapi())
