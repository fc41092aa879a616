"""Messages of editors that are nearly right, 65 of 100 of a million, at the object that serves a connection.

No crash, no hang, no leak, and one answer to each request. FUZZ_MUTATED says how many in all; a million without it. The
seed is fixed, so that what fails fails again. `test_mutated_requests.py` sends the rest; `test_lsp_fuzzing.py` sends
fewer that are drawn with more care.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import logging
import random
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from inhouse_retrieval import EVERYWHERE
from inhouse_server.framing import FrameReader
from inhouse_server.language_server.connection import QueueWriter, receive
from inhouse_server.language_server.server import InhouseServer, build_server
from inhouse_server.review.finding import Finding, Precedent
from inhouse_server.workspace import Workspace

from .mutations import editor_messages
from .watched import WAIT_S, Watched, counts, scripted_house

ON_ONE_CONNECTION = 200
REMARK = Finding(
    "billing.py", 1, 1, "info", "name-spelling", "The house spells it so.", "import os", "import sys",
    (Precedent("shipping.py", 1, 2, "here"),), ("#1 Pay",),
)  # fmt: skip
"""What a review found, under the fingerprint that the messages name."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with scripted_house(tmp_path_factory.mktemp("bent") / "shop") as workspace:
        yield workspace


@counts
@pytest.mark.timeout(7200)
async def test_messages_of_editors(house: Workspace, caplog: pytest.LogCaptureFixture, messages: int) -> None:
    share = messages * 65 // 100
    rng = random.Random(20261128)
    stream = itertools.islice(editor_messages(rng, house.root.as_uri()), share)
    watched, sent = Watched(share, caplog), 0
    while batch := list(itertools.islice(stream, ON_ONE_CONNECTION)):
        gone = await _one_editor(house, batch, greets=rng.random() < 0.9)
        sent += len(batch)
        watched.after(sent, batch)
    gc.collect()
    assert gone() is None, "the server object of a connection that ended is still held"
    watched.end()


async def test_what_comes_without_an_id_is_not_answered_for_ever(house: Workspace) -> None:
    server, writer = build_server(house, EVERYWHERE), QueueWriter()
    server.protocol.set_writer(writer, include_headers=False)
    for method, params, more in (
        ("initialize", {"capabilities": {}}, {"id": 1}),
        ("inhouse/status", None, {}),
        ("textDocument/hover", {"textDocument": {"uri": "a:b"}, "position": {"line": 0, "character": 0}}, {}),
    ):
        receive(server, writer, json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more}))
    assert server.protocol.running_requests()
    async with asyncio.timeout(WAIT_S):
        while running := server.protocol.running_requests():
            await asyncio.wait(running)
    await server.close()


async def test_an_answer_under_the_id_of_a_request_of_the_client_s_own_ends_nothing(
    house: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    server, writer = build_server(house, EVERYWHERE), QueueWriter()
    server.protocol.set_writer(writer, include_headers=False)
    for message in (
        {"id": "first", "method": "initialize", "params": {"capabilities": {}}},
        {"id": "mine", "method": "inhouse/status"},
        {"id": "mine", "result": 5},
    ):
        receive(server, writer, json.dumps({"jsonrpc": "2.0", **message}))
    (running,) = server.protocol.running_requests()
    async with asyncio.timeout(WAIT_S):
        await asyncio.wait([running])
    await asyncio.sleep(0)
    assert Counter(_answers(server, writer)) == Counter({"first": 1, "mine": 1})
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == ["WARNING"]
    await server.close()


async def test_a_second_request_under_an_id_in_use_is_refused_and_the_first_is_answered(house: Workspace) -> None:
    server, writer = build_server(house, EVERYWHERE), QueueWriter()
    server.protocol.set_writer(writer, include_headers=False)
    for message in (
        {"id": "first", "method": "initialize", "params": {"capabilities": {}}},
        {"id": "same", "method": "inhouse/status"},
        {"id": "same", "method": "codeAction/resolve", "params": {"title": "Ask", "data": {}}},
    ):
        receive(server, writer, json.dumps({"jsonrpc": "2.0", **message}))
    (running,) = server.protocol.running_requests()
    async with asyncio.timeout(WAIT_S):
        await asyncio.wait([running])
    await asyncio.sleep(0)
    said = [json.loads(writer.messages.get_nowait() or "{}") for _ in range(writer.messages.qsize())]
    refused, answered = [message for message in said if message.get("id") == "same"]
    assert "under the id 'same'" in refused["error"]["message"] and "adapter" in answered["result"]
    await server.close()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"id": 7, "method": "inhouse/status"}, 7),
        ({"jsonrpc": "1.0", "id": "seven", "method": "inhouse/status"}, "seven"),
        ({"jsonrpc": "2.0", "id": 7, "method": 5}, 7),
        ({"jsonrpc": "2.0", "id": 7, "method": 5, "result": 1}, 7),
        ({"jsonrpc": "2.0", "id": 7}, 7),
        ({"jsonrpc": "2.0", "id": [7], "method": "inhouse/status"}, None),
        ({"id": 7, "result": 5}, None),
        ({"jsonrpc": "1.0", "method": "inhouse/status"}, None),
    ],
)
async def test_a_request_of_the_wrong_shape_is_answered_under_its_id(
    house: Workspace, message: dict[str, Any], told: object
) -> None:
    server, writer = build_server(house, EVERYWHERE), QueueWriter()
    server.protocol.set_writer(writer, include_headers=False)
    receive(server, writer, json.dumps(message))
    answer = json.loads(writer.messages.get_nowait() or "{}")
    assert (answer["id"], answer["error"]["code"]) == (told, -32600)
    await server.close()


async def test_an_answer_that_nobody_waits_for_any_more_is_let_go(
    house: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    server, writer = build_server(house, EVERYWHERE), QueueWriter()
    server.protocol.set_writer(writer, include_headers=False)
    server.protocol.send_request("workspace/applyEdit", {"edit": {}}, msg_id="ours").cancel()
    receive(server, writer, json.dumps({"jsonrpc": "2.0", "id": "ours", "result": {"applied": True}}))
    assert "ours" not in server.protocol._request_futures
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    await server.close()


async def _one_editor(house: Workspace, batch: list[bytes], greets: bool) -> weakref.ref[Any]:
    """One connection's life; a weak reference to its server.

    Raises:
        AssertionError: a request had no answer, or more than one.
    """
    server, writer, frames = build_server(house, EVERYWHERE), QueueWriter(), FrameReader()
    server.protocol.set_writer(writer, include_headers=False)
    server.reviewed.findings = {REMARK.path: {"f": REMARK}}
    asked: Counter[Any] = Counter()
    hello = json.dumps({"jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": {"capabilities": {}}})
    bodies: list[bytes | None] = [hello.encode()] if greets else []
    for number, message in enumerate(batch):
        bodies += frames.feed(message)
        for body in bodies:
            if body is not None:
                asked.update(_asks(body))
                receive(server, writer, body)
        bodies.clear()
        if number % 20 == 0:
            await asyncio.sleep(0)
    last = json.dumps({"jsonrpc": "2.0", "id": "last", "method": "no/such/method"})
    asked["last"] += 1
    receive(server, writer, last)
    answered: Counter[Any] = Counter()
    async with asyncio.timeout(WAIT_S):
        while running := server.protocol.running_requests():
            await asyncio.wait(running, timeout=0.05)
            answered.update(_answers(server, writer))
    await asyncio.sleep(0)  # what was to be said when they ended
    answered.update(_answers(server, writer))
    assert answered == asked, (asked - answered, answered - asked, batch)
    await server.close()
    return weakref.ref(server)


def _asks(body: bytes) -> Iterator[Any]:
    """The id of a request that can be answered under it."""
    with contextlib.suppress(ValueError):
        message = json.loads(body)
        if isinstance(message, dict) and ("method" in message or not message.keys() & {"result", "error"}):
            identifier = message.get("id")
            if isinstance(identifier, int | str) and not isinstance(identifier, bool):
                yield identifier


def _answers(server: InhouseServer, writer: QueueWriter) -> Iterator[Any]:
    """The ids of what was answered; what the server asks of its editor is refused, so that it does not wait for it."""
    while not writer.messages.empty():
        message = json.loads(writer.messages.get_nowait() or "{}")
        if "method" in message and "id" in message:
            refused = {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "not here"}}
            receive(server, writer, json.dumps(refused))
        if "method" not in message and message.get("id") is not None:
            yield message["id"]


@pytest.mark.parametrize("fingerprint", [["f"], {"f": 1}, None, 5])
async def test_data_of_a_diagnostic_that_are_not_ours_name_no_remark(
    house: Workspace, caplog: pytest.LogCaptureFixture, fingerprint: object
) -> None:
    server, writer = build_server(house, EVERYWHERE), QueueWriter()
    server.protocol.set_writer(writer, include_headers=False)
    span = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 0}}
    file, data = {"uri": f"{house.root.as_uri()}/billing.py"}, {"fingerprint": fingerprint}
    diagnostics = [{"range": span, "message": "m", "data": data}]
    for number, (method, params) in enumerate(
        (
            ("initialize", {"capabilities": {}}),
            ("textDocument/codeAction", {"textDocument": file, "range": span, "context": {"diagnostics": diagnostics}}),
            ("codeAction/resolve", {"title": "Fix", "data": {"kind": "quickfix", "textDocument": file, **data}}),
            ("codeAction/resolve", {"title": "Fix", "data": {"kind": "quickfix", "textDocument": {}}}),
            ("codeAction/resolve", {"title": "Fix", "data": {"kind": ["quickfix"]}}),
            ("workspace/executeCommand", {"command": "inhouse.why", "arguments": [{"textDocument": file, **data}]}),
        )
    ):
        receive(server, writer, json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
    async with asyncio.timeout(WAIT_S):
        while running := server.protocol.running_requests():
            await asyncio.wait(running)
    assert Counter(_answers(server, writer)) == Counter(dict.fromkeys(range(6), 1))
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    await server.close()
