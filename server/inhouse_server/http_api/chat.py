"""`/v1/models`, `/v1/chat/completions` and `/v1/completions`, as the `openai` client expects them.

Models: ``inhouse`` (the current adapter with retrieval), the base model, and each adapter version, so that a client can
ask two of them and compare; and the encoder of the index, for embeddings. Where a caller may use several repositories,
``repository/model`` asks one of them.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from inhouse_retrieval.errors import InhouseError
from inhouse_server.answers import CURRENT, AnswerFinished, Question, Sampling
from inhouse_server.background import cancellable
from inhouse_server.http_api.errors import Refused, error_body
from inhouse_server.http_api.openai_requests import ChatRequest, CompletionRequest
from inhouse_server.http_api.reading import assistant_of, read_openai, within_of
from inhouse_server.http_api.repositories import asked_of, named_by, usable_by, workspace_of
from inhouse_server.http_api.streaming import refused_at_once, server_sent, unless_left
from inhouse_server.json_contracts import answer_json
from inhouse_server.workspace import Workspace
from inhouse_training import BASE, Message, TextDelta

log = logging.getLogger(__name__)

CURRENT_MODEL = "inhouse"


async def models(request: Request) -> Response:
    """List what can be asked, and the encoder."""
    everywhere, usable = within_of(request).everywhere, usable_by(request)
    names = [] if request.scope["repository"] is None else _names(workspace_of(request), everywhere)
    if len(usable) > 1 and named_by(request) is None:
        held = [each for each in usable.values() if isinstance(each, Workspace)]
        names += [f"{each.name}/{name}" for each in held for name in _names(each, everywhere)]
    return JSONResponse(
        {
            "object": "list",
            "data": [{"id": name, "object": "model", "created": 0, "owned_by": "inhouse"} for name in names],
        }
    )


def _names(workspace: Workspace, adapters: bool) -> list[str]:
    """What can be asked of a repository, and its encoder."""
    versions = [version.version for version in workspace.registry.list()] if adapters else []
    return [CURRENT_MODEL, workspace.settings.base_model, *versions, workspace.settings.encoder.name]


async def chat_completions(request: Request) -> Response:
    """Answer the last user message."""
    body = await read_openai(request, ChatRequest, "chat")
    if body.messages[-1].role != "user":
        raise Refused(400, "The last message must have the role 'user'.", "invalid_request_error", "messages")
    workspace, adapter = _asked(request, body.model)
    question = Question(
        text=body.messages[-1].text(),
        history=tuple(
            Message("system" if turn.role == "developer" else turn.role, turn.text()) for turn in body.messages[:-1]
        ),
        adapter=adapter,
        retrieve=body.inhouse.retrieve,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        sampling=_sampling(body, body.response_format.schema_text() if body.response_format is not None else ""),
    )
    return await _answer(request, workspace, question, body, _CHAT)


async def completions(request: Request) -> Response:
    """Answer the prompt as one question, without retrieval unless it is asked for."""
    body = await read_openai(request, CompletionRequest, "completion")
    workspace, adapter = _asked(request, body.model)
    question = Question(
        text=body.prompt,
        adapter=adapter,
        retrieve=body.inhouse.retrieve,
        max_tokens=body.max_tokens,
        sampling=_sampling(body),
    )
    return await _answer(request, workspace, question, body, _COMPLETION)


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a route writes an answer: its names, and the part of a choice that holds text."""

    prefix: str
    whole: str
    chunk: str
    text: Callable[[str], dict[str, Any]]
    delta: Callable[[str | None], dict[str, Any]]
    opening: dict[str, Any] | None = None


_CHAT = _Shape(
    "chatcmpl",
    "chat.completion",
    "chat.completion.chunk",
    text=lambda text: {"message": {"role": "assistant", "content": text, "refusal": None}},
    delta=lambda text: {"delta": {} if text is None else {"content": text}},
    opening={"delta": {"role": "assistant", "content": ""}},
)
_COMPLETION = _Shape(
    "cmpl",
    "text_completion",
    "text_completion",
    text=lambda text: {"text": text},
    delta=lambda text: {"text": text or ""},
)


def _sampling(body: ChatRequest | CompletionRequest, schema: str = "") -> Sampling:
    return Sampling(body.temperature or 0.0, body.top_p or 1.0, tuple(body.stops()), body.seed or 0, schema)


async def _answer(
    request: Request,
    workspace: Workspace,
    question: Question,
    body: ChatRequest | CompletionRequest,
    shape: _Shape,
) -> Response:
    assistant = assistant_of(request, workspace)
    events = cancellable(lambda cancel: assistant.ask(question, cancel))
    identity = {"id": f"{shape.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        begun = await unless_left(request, refused_at_once(events))
        if begun is None:
            return Response(status_code=499)
        return StreamingResponse(_chunks(begun, identity, usage, shape), media_type="text/event-stream")
    answered = await unless_left(request, _whole(events))
    if answered is None:
        return Response(status_code=499)  # as nginx logs it: nobody is there to read this
    text, finished = answered
    reason = "length" if finished.reason == "length" else "stop"
    choice = {"index": 0, **shape.text(text), "finish_reason": reason, "logprobs": None}
    answer = {**identity, "object": shape.whole, "choices": [choice], "usage": _usage(finished)}
    return JSONResponse({**answer, "inhouse": answer_json(text, finished)})


async def _whole(events: AsyncIterator[TextDelta | AnswerFinished]) -> tuple[str, AnswerFinished]:
    text = ""
    async for event in events:
        if isinstance(event, AnswerFinished):
            return text, event
        text += event.text
    raise AssertionError("an answer always ends with AnswerFinished")


def _asked(request: Request, named: str) -> tuple[Workspace, str]:
    """The repository and the adapter that a model's name stands for.

    Raises:
        Refused: there is no such model for this caller, or it does not tell of which repository.
    """
    workspace, model = asked_of(request, named, lambda each: {*_names(each, adapters=True), BASE})
    if model == CURRENT_MODEL:
        return workspace, CURRENT
    if model in (workspace.settings.base_model, BASE):
        return workspace, BASE
    if model not in {version.version for version in workspace.registry.list()}:
        raise Refused(404, f"The model {named!r} does not exist here.", "model_not_found", "model")
    return workspace, model


async def _chunks(
    events: AsyncIterator[TextDelta | AnswerFinished], identity: dict[str, Any], usage: bool, shape: _Shape
) -> AsyncIterator[bytes]:
    def chunk(said: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, **said, "finish_reason": reason, "logprobs": None}
        return server_sent({**identity, "object": shape.chunk, "choices": [choice], **more})

    if shape.opening is not None:
        yield chunk(shape.opening)
    text = ""
    try:
        async for event in events:
            if isinstance(event, TextDelta):
                text += event.text
                yield chunk(shape.delta(event.text))
                continue
            reason = "length" if event.reason == "length" else "stop"
            yield chunk(shape.delta(None), reason, inhouse=answer_json(text, event))
            if usage:
                yield server_sent({**identity, "object": shape.chunk, "choices": [], "usage": _usage(event)})
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
