"""`/v1/models` and `/v1/chat/completions`, as the `openai` client expects them.

Models: ``inhouse`` (the current adapter with retrieval), the base model, and each adapter version, so that a client can
ask two of them and compare. The last user message is the question; retrieval is on unless ``inhouse.retrieve`` is
false.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from inhouse_retrieval.errors import InhouseError
from inhouse_server.answers import CURRENT, AnswerFinished, Question, Sampling
from inhouse_server.background import cancellable
from inhouse_server.http_api.errors import bad_request, error_body, error_response
from inhouse_server.http_api.streaming import server_sent, unless_left
from inhouse_server.json_contracts import answer_json
from inhouse_server.workspace import Workspace
from inhouse_training import BASE, Message, TextDelta

log = logging.getLogger(__name__)

CURRENT_MODEL = "inhouse"


class _TextPart(BaseModel):
    type: Literal["text"]
    text: str


class _ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_TextPart]

    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class _Extensions(BaseModel):
    """What inhouse adds to the request, in one field of its own."""

    model_config = ConfigDict(extra="forbid")

    retrieve: bool = True


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _JsonSchema(BaseModel):
    name: str = "answer"
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class _ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None

    def schema_text(self) -> str:
        if self.type == "json_schema" and self.json_schema is not None:
            return json.dumps(self.json_schema.schema_)
        return '{"type": "object"}' if self.type == "json_object" else ""


class _ChatRequest(BaseModel):
    model: str
    messages: list[_ChatMessage] = Field(min_length=1)
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=4096)
    max_completion_tokens: int | None = Field(None, ge=1, le=4096)
    temperature: float = Field(0, ge=0, le=2)
    top_p: float = Field(1, gt=0, le=1)
    stop: str | list[str] | None = Field(None, max_length=16)
    seed: int = 0
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    n: Literal[1] | None = None
    response_format: _ResponseFormat | None = None
    tools: None = None
    functions: None = None
    inhouse: _Extensions = Field(default_factory=_Extensions)


async def models(request: Request) -> Response:
    """List what can be asked."""
    workspace: Workspace = request.app.state.workspace
    names = [CURRENT_MODEL, workspace.settings.base_model]
    names += [version.version for version in workspace.registry.list()]
    return JSONResponse(
        {
            "object": "list",
            "data": [{"id": name, "object": "model", "created": 0, "owned_by": "inhouse"} for name in names],
        }
    )


async def chat_completions(request: Request) -> Response:
    """Answer the last user message."""
    try:
        body = _ChatRequest.model_validate_json(await request.body())
    except ValidationError as error:
        return bad_request(error)
    workspace: Workspace = request.app.state.workspace
    adapter = _adapter(body.model, workspace)
    if adapter is None:
        return error_response(404, f"The model {body.model!r} does not exist here.", "model_not_found", "model")
    if body.messages[-1].role != "user":
        return error_response(400, "The last message must have the role 'user'.", "invalid_request_error", "messages")
    question = Question(
        text=body.messages[-1].text(),
        history=tuple(
            Message("system" if turn.role == "developer" else turn.role, turn.text()) for turn in body.messages[:-1]
        ),
        adapter=adapter,
        retrieve=body.inhouse.retrieve,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        sampling=Sampling(
            body.temperature,
            body.top_p,
            (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
            body.seed,
            body.response_format.schema_text() if body.response_format is not None else "",
        ),
    )
    assistant = workspace.assistant()
    events = cancellable(lambda cancel: assistant.ask(question, cancel))
    identity = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": body.model,
    }
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return StreamingResponse(_chunks(events, identity, usage), media_type="text/event-stream")
    answered = await unless_left(request, _whole(events))
    if answered is None:
        return Response(status_code=499)  # as nginx logs it: nobody is there to read this
    text, finished = answered
    return JSONResponse(
        {
            **identity,
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "finish_reason": "length" if finished.reason == "length" else "stop",
                    "logprobs": None,
                }
            ],
            "usage": _usage(finished),
            "inhouse": answer_json(text, finished),
        }
    )


async def _whole(events: AsyncIterator[TextDelta | AnswerFinished]) -> tuple[str, AnswerFinished]:
    text = ""
    async for event in events:
        if isinstance(event, AnswerFinished):
            return text, event
        text += event.text
    raise AssertionError("an answer always ends with AnswerFinished")


def _adapter(model: str, workspace: Workspace) -> str | None:
    if model == CURRENT_MODEL:
        return CURRENT
    if model in (workspace.settings.base_model, BASE):
        return BASE
    known = {version.version for version in workspace.registry.list()}
    return model if model in known else None


async def _chunks(
    events: AsyncIterator[TextDelta | AnswerFinished], identity: dict[str, Any], usage: bool
) -> AsyncIterator[bytes]:
    def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return server_sent({**identity, "object": "chat.completion.chunk", "choices": [choice], **more})

    yield chunk({"role": "assistant", "content": ""})
    text = ""
    try:
        async for event in events:
            if isinstance(event, TextDelta):
                text += event.text
                yield chunk({"content": event.text})
                continue
            reason = "length" if event.reason == "length" else "stop"
            yield chunk({}, reason, inhouse=answer_json(text, event))
            if usage:
                yield server_sent(
                    {**identity, "object": "chat.completion.chunk", "choices": [], "usage": _usage(event)}
                )
    except InhouseError as error:
        yield server_sent(error_body(str(error), "inhouse_error"))
    except Exception:
        log.exception("an answer failed unexpectedly")
        yield server_sent(error_body("The server failed; its log says why.", "server_error"))
    yield server_sent("[DONE]")


def _usage(finished: AnswerFinished) -> dict[str, int]:
    timings = finished.timings
    return {
        "prompt_tokens": timings.prompt_tokens,
        "completion_tokens": timings.completion_tokens,
        "total_tokens": timings.prompt_tokens + timings.completion_tokens,
    }
