"""What is wrong with a request, told in the words of whoever sent it: no class, no type of a library."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from inhouse_server.http_api.errors import Refused
from inhouse_server.http_api.openai_requests import ChatRequest, EmbeddingRequest
from inhouse_server.http_api.reading import _validated
from inhouse_server.workspace import Workspace

from .direct import Client
from .watched import scripted_house

URI = {"uri": "file:///a.py"}
IMAGE = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
NO_TEXT = "messages.0.content: only text can be read here."
STOPS = "stop: one text, or a list of at most 16."
INPUTS = "input: one text, or a list of 1 to 128, none of them blank."


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with scripted_house(tmp_path_factory.mktemp("plain") / "shop") as workspace:
        yield workspace


@pytest.mark.parametrize(
    ("model", "wrong", "told"),
    [
        (ChatRequest, {"messages": [{"role": "user", "content": IMAGE}]}, NO_TEXT),
        (ChatRequest, {"messages": [{"role": "user", "content": 5}]}, NO_TEXT),
        (ChatRequest, {"stop": ["a"] * 17}, STOPS),
        (ChatRequest, {"stop": [1]}, STOPS),
        (EmbeddingRequest, {"input": ["a", " "]}, INPUTS),
        (EmbeddingRequest, {"input": []}, INPUTS),
        (EmbeddingRequest, {"input": 5}, INPUTS),
    ],
)  # fmt: skip
def test_a_field_that_may_be_one_thing_or_a_list(model: type[BaseModel], wrong: dict[str, Any], told: str) -> None:
    right = {"model": "inhouse", "messages": [{"role": "user", "content": IMAGE[:1]}], "input": ["a"], "stop": ["b"]}
    assert _validated(json.dumps(right).encode(), model)
    with pytest.raises(Refused) as refused:
        _validated(json.dumps(right | wrong).encode(), model)
    assert str(refused.value) == told


@pytest.mark.parametrize(
    ("method", "params", "told"),
    [
        ("inhouse/ask", [1], 'params: an object with "question" is needed'),
        ("inhouse/ask", {"question": "x", "textDocument": "a.py"}, 'textDocument: an object with "uri" is needed'),
        (
            "inhouse/ask",
            {"question": "x", "textDocument": URI, "range": {"start": 1, "end": 2}},
            'range.start: an object with "line" and "character" is needed',
        ),
        ("inhouse/ask", {"question": "x", "workDoneToken": [1]}, "workDoneToken: a number or a string is needed"),
        ("inhouse/ask", {"question": "x", "partialResultToken": True},
         "partialResultToken: a number or a string is needed"),
        ("no/such", {}, "inhouse has no method 'no/such'."),
        (
            "textDocument/codeAction",
            {},
            "The params of 'textDocument/codeAction' are not those that the protocol describes.",
        ),
    ],
)  # fmt: skip
async def test_an_editor_s_request(house: Workspace, method: str, params: Any, told: str) -> None:
    client = Client(house)
    assert (await client.answer(client.start(method, params)))["error"]["message"] == told
    await client.close()


async def test_a_request_that_was_cancelled(house: Workspace) -> None:
    client = Client(house)
    identifier = client.start("inhouse/ask", {"question": "When do couriers come?"})
    await asyncio.sleep(0)
    client.send("$/cancelRequest", {"id": identifier})
    assert (await client.answer(identifier))["error"]["message"] == "The request was cancelled."
    await client.close()
