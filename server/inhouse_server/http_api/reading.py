"""Reading a request: its body as the model of its route, and what its caller may see."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from inhouse_server.http_api.errors import Refused
from inhouse_server.http_api.openai_requests import is_of_tools, not_served

if TYPE_CHECKING:
    from inhouse_retrieval.within import Within
    from inhouse_server.access import Caller
    from inhouse_server.assistant import Assistant
    from inhouse_server.workspace import Workspace

Body = TypeVar("Body", bound=BaseModel)


def within_of(request: Request) -> Within:
    """The part of the repository whose passages the caller may see."""
    caller: Caller = request.scope["caller"]
    return caller.within


def assistant_of(request: Request, workspace: Workspace) -> Assistant:
    """The assistant over what the caller may see of it; what it does is noted with the request."""
    return workspace.assistant(within_of(request), request.scope["worked"], request.scope["caller"].id)


async def read_body(request: Request, model: type[Body]) -> Body:
    """The body as ``model``.

    Raises:
        Refused: it is none; the first field that is wrong is named.
    """
    return _validated(await request.body(), model)


async def read_openai(request: Request, model: type[Body], kind: str) -> Body:
    """The body of an OpenAI-compatible route, without anything that is not served.

    Raises:
        Refused: it is none, or asks for tools or other things that no model here does.
    """
    raw = await request.body()
    # First of all: a conversation with tools in it is otherwise told that its content must be text.
    field = not_served(kind, _validated(raw, _Anything).model_extra or {})
    if field is not None:
        what = "No model here calls tools" if is_of_tools(field) else f"{field!r} is not served here"
        raise Refused(
            400, f"{what}; leave {field!r} out.", "invalid_request_error", field, code="unsupported_parameter"
        )
    return _validated(raw, model)


class _Anything(BaseModel, extra="allow"):
    """A JSON object."""


def _validated(raw: bytes, model: type[Body]) -> Body:
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        detail = error.errors()[0]
        param = ".".join(str(part) for part in detail["loc"])
        raise Refused(400, f"{param or 'body'}: {detail['msg']}.", "invalid_request_error", param or None) from None
