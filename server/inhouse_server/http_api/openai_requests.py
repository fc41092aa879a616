"""The bodies of the OpenAI-compatible routes, and the documents' schemas with them.

What would change the answer and is not served is refused by name; what would not, such as ``user``, is passed over.
``inhouse`` holds what this server adds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

MAX_INPUTS = 128
MAX_STOPS = 16
NO_TOOLS = "tools", "tool_choice", "functions", "function_call", "parallel_tool_calls"
NOT_SERVED = {
    "chat": (*NO_TOOLS, "logprobs", "top_logprobs", "logit_bias", "audio", "prediction", "web_search_options"),
    "completion": (*NO_TOOLS, "suffix", "logprobs", "logit_bias"),
    "embedding": NO_TOOLS,
}
"""Fields that are refused unless they say nothing."""
_TOOL_FIELDS = "tool_calls", "tool_call_id", "function_call"
_TOOL_ROLES = "tool", "function"
"""What messages hold of tools."""
_NOTHING: tuple[object, ...] = (None, False, 0, [], {}, "", "none")

# Of a field that may be one thing or a list pydantic tells what is wrong with the first of the two alone, so these are
# looked at before.


def _only_text(content: Any) -> Any:
    if isinstance(content, str) or (isinstance(content, list) and all(map(_is_text, content))):
        return content
    raise PydanticCustomError("only_text", "only text can be read here")


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _few_stops(stop: Any) -> Any:
    texts = isinstance(stop, list) and len(stop) <= MAX_STOPS and all(isinstance(each, str) for each in stop)
    if not (texts or stop is None or isinstance(stop, str)):
        raise PydanticCustomError("stops", "one text, or a list of at most {most}", {"most": MAX_STOPS})
    return stop


def _texts(given: Any) -> Any:
    each = given if isinstance(given, list) else [given]
    if not (1 <= len(each) <= MAX_INPUTS and all(isinstance(text, str) and text.strip() for text in each)):
        problem = "one text, or a list of 1 to {most}, none of them blank"
        raise PydanticCustomError("texts", problem, {"most": MAX_INPUTS})
    return given


NotBlank = Annotated[str, StringConstraints(pattern=r"\S")]


def not_served(kind: str, body: dict[str, Any]) -> str | None:
    """The first field of ``body`` that asks for what no model here does, dotted where it is in a message or is one;
    ``None`` when there is none."""
    asked = (field for field in NOT_SERVED[kind] if not _says_nothing(kind, field, body.get(field)))
    return next(asked, None) or (_message_of_tools(body.get("messages")) if kind == "chat" else None)


def is_of_tools(field: str) -> bool:
    """Whether what :func:`not_served` found is about tools."""
    return field in NO_TOOLS or field.startswith("messages.")


def _says_nothing(kind: str, field: str, value: object) -> bool:
    if (kind, field) == ("completion", "logprobs"):  # 0 asks for that of the token itself
        return value is None or value is False
    return value in _NOTHING


def _message_of_tools(messages: object) -> str | None:
    for at, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict):
            if message.get("role") in _TOOL_ROLES:
                return f"messages.{at}"
            for field in _TOOL_FIELDS:
                if message.get(field) not in _NOTHING:
                    return f"messages.{at}.{field}"
    return None


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str | list[TextPart], BeforeValidator(_only_text)]

    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class AskExtensions(BaseModel):
    """What inhouse adds to the request, in one field of its own."""

    model_config = ConfigDict(extra="forbid")

    retrieve: bool = True


class StreamOptions(BaseModel):
    include_usage: bool = False


class JsonSchema(BaseModel):
    name: str = "answer"
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if self.type == "json_schema" and self.json_schema is None:
            raise PydanticCustomError("no_schema", "'json_schema' must hold the schema that the type announces")
        return self

    def schema_text(self) -> str:
        if self.type == "json_schema" and self.json_schema is not None:
            return json.dumps(self.json_schema.schema_)
        return '{"type": "object"}' if self.type == "json_object" else ""


class _Sampled(BaseModel):
    """What chats and completions share; ``null`` asks for the default."""

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=4096)
    temperature: float | None = Field(0, ge=0, le=2)
    top_p: float | None = Field(1, gt=0, le=1)
    stop: Annotated[str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None, BeforeValidator(_few_stops)] = None
    seed: int | None = Field(0, ge=-(2**63), lt=2**63)
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    n: Literal[1] | None = None

    def stops(self) -> Sequence[str]:
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()


class ChatRequest(_Sampled):
    """The last message, of the user, is the question; retrieval is on unless ``inhouse.retrieve`` is false."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=4096)
    response_format: ResponseFormat | None = None
    inhouse: AskExtensions = Field(default_factory=AskExtensions)


class CompletionExtensions(BaseModel):
    """What inhouse adds to a completion."""

    model_config = ConfigDict(extra="forbid")

    retrieve: bool = False


class CompletionRequest(_Sampled):
    """The prompt is put to the model as one user message, since instruct models are tuned on turns."""

    prompt: NotBlank
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    inhouse: CompletionExtensions = Field(default_factory=CompletionExtensions)


class EmbeddingExtensions(BaseModel):
    """What inhouse adds: ``query`` for texts that are searched with, ``truncate`` to read long texts in part."""

    model_config = ConfigDict(extra="forbid")

    query: bool = False
    truncate: bool = False


class EmbeddingRequest(BaseModel):
    """Texts for the encoder of the index."""

    model: str
    input: Annotated[
        NotBlank | Annotated[list[NotBlank], Field(min_length=1, max_length=MAX_INPUTS)], BeforeValidator(_texts)
    ]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    inhouse: EmbeddingExtensions = Field(default_factory=EmbeddingExtensions)

    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input
