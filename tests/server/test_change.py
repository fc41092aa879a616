"""A change of the marked code: offered as an edit of the open text where it applies and parses, refused with the reason
elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inhouse_server.position_encodings import ENCODINGS
from inhouse_server.text_sync import Edit, Position, apply_edits, split_lines
from inhouse_server.workspace import Workspace
from tests.server.conftest import BILLING
from tests.server.direct import Client
from tests.server.speaker import Speaker, speaking

Json = dict[str, Any]
LAZY: Json = {
    "workspace": {"applyEdit": True, "workspaceEdit": {"documentChanges": True}},
    "textDocument": {"codeAction": {"dataSupport": True, "resolveSupport": {"properties": ["edit"]}}},
}
# Line 1 holds a character of two UTF-16 units and four bytes, line 3 one of one unit and two bytes.
TILL = '"""Tills. 😀"""\ndef total(prices):\n    # TODO(ada): skip prices below zero\n    return sum(prices)  # é'
BETTER = "def total(prices):\n    return sum(price for price in prices if price > 0)  # ü"


@pytest.fixture
def speaker() -> Iterator[Speaker]:
    with speaking() as running:
        yield running


@pytest.fixture
def house(shop: Path, speaker: Speaker) -> Iterator[Workspace]:
    url = f"http://127.0.0.1:{speaker.server_port}/v1"
    (shop / "inhouse.toml").write_text(
        f'[answer]\npassages = 0\n[engine]\nkind = "openai"\nurl = "{url}"\nmodel = "m"\n'
    )
    with Workspace.open(shop, "test") as house:
        yield house


def marked(file: Path, first: int = 1, last: int = 4) -> Json:
    return {"textDocument": {"uri": file.as_uri()}, "range": {"start": at(first), "end": at(last)}}


def at(line: int) -> Json:
    return {"line": line, "character": 0}


async def actions(client: Client, file: Path, diagnostics: list[Json] | None = None) -> list[Json]:
    context = {"diagnostics": diagnostics or [], "only": ["inhouse.change"]}
    found: list[Json] = await client.request("textDocument/codeAction", {**marked(file), "context": context})
    return found


def changed(text: str, edit: Json, encoding: str) -> str:
    span = edit["range"]
    start, end = (Position(span[side]["line"], span[side]["character"]) for side in ("start", "end"))
    return apply_edits(text, [Edit(edit["newText"], start, end)], encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
async def test_what_the_code_asks_for_becomes_an_edit_of_the_unsaved_text(
    house: Workspace, speaker: Speaker, encoding: str, end: str
) -> None:
    speaker.reply = f"Sure:\n\n```python\n{BETTER}\n```\n\nIt skips them."
    client = Client(house, capabilities={**LAZY, "general": {"positionEncodings": [encoding]}})
    file, text = house.root / "till.py", TILL.replace("\n", end)
    client.open(file.as_uri(), "")
    # The insertion ends behind the last character, which each encoding counts differently.
    for version, piece in ((2, text[:-1]), (3, text[-1])):
        before = text[:-1] if version == 3 else ""
        line = split_lines(before)[-1]
        counts = {"utf-8": len(line.encode()), "utf-16": len(line.encode("utf-16-le")) // 2, "utf-32": len(line)}
        place = {"line": len(split_lines(before)) - 1, "character": counts[encoding]}
        change = {"range": {"start": place, "end": place}, "text": piece}
        document = {"uri": file.as_uri(), "version": version}
        client.send("textDocument/didChange", {"textDocument": document, "contentChanges": [change]})
    [action] = await actions(client, file)
    assert action["title"] == "Change the selection: skip prices below zero"
    assert "edit" not in action and not speaker.asked, "the model is asked when it is chosen"
    resolved = await client.request("codeAction/resolve", action)
    [part] = resolved["edit"]["documentChanges"]
    assert part["textDocument"] == {"uri": file.as_uri(), "version": 3}
    [edit] = part["edits"]
    assert changed(text, edit, encoding) == '"""Tills. 😀"""\n'.replace("\n", end) + BETTER.replace("\n", end)
    asked = speaker.asked[-1]["messages"][-1]["content"]
    assert "till.py:2-4" in asked and "# é" in asked and "skip prices below zero" in asked


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("```\ndef total(prices:\n    return 1\n```", "it would add a syntax error"),
        ("```\n" + "\n".join(TILL.split("\n")[1:]) + "\n```", "it changes nothing"),
        ("I cannot do that.", "answered without code"),
    ],
)
async def test_what_cannot_be_applied_is_told_and_not_offered(
    house: Workspace, speaker: Speaker, reply: str, why: str
) -> None:
    speaker.reply = reply
    client, file = Client(house, capabilities=LAZY), house.root / "till.py"
    client.open(file.as_uri(), TILL)
    [action] = await actions(client, file)
    resolving = client.start("codeAction/resolve", action)
    assert why in (await client.told("window/showMessage"))["params"]["message"]
    assert (await client.answer(resolving))["result"].get("edit") is None


async def test_the_command_sends_the_edit_of_a_given_block_to_any_client(house: Workspace) -> None:
    client, file = Client(house, capabilities={"workspace": {"applyEdit": True}}), house.root / "till.py"
    client.open(file.as_uri(), TILL)
    [action] = await actions(client, file)
    assert action["command"]["command"] == "inhouse.change", "it cannot resolve, so a command does it"
    argument = {**marked(file), "code": BETTER}
    running = client.start("workspace/executeCommand", {"command": "inhouse.change", "arguments": [argument]})
    asked = await client.told("workspace/applyEdit")
    [edit] = asked["params"]["edit"]["changes"][file.as_uri()]
    assert changed(TILL, edit, "utf-16").endswith(BETTER)
    client.reply(asked, {"applied": True})
    assert (await client.answer(running))["result"] == {"applied": True, "reason": None}

    wrong = {"command": "inhouse.change", "arguments": [{**argument, "instruction": "Sort it."}]}
    assert (await client.answer(client.start("workspace/executeCommand", wrong)))["error"]["code"] == -32602
    assert await actions(Client(house), file) == [], "a client that takes no edit is offered none"


async def test_an_edit_of_the_user_meanwhile_and_a_secret_are_refused(house: Workspace, speaker: Speaker) -> None:
    client, file = Client(house, capabilities=LAZY), house.root / "till.py"
    client.open(file.as_uri(), TILL)
    argument = {**marked(file), "instruction": "Write without end."}
    speaker.closing = f"\n```\n{BETTER}\n```\n"
    running = client.start(
        "workspace/executeCommand", {"command": "inhouse.change", "arguments": [argument], "workDoneToken": "bar"}
    )
    await client.told("$/progress")
    edit = {"range": {"start": at(3), "end": at(3)}, "text": "    # mine\n"}
    client.send(
        "textDocument/didChange",
        {"textDocument": {"uri": file.as_uri(), "version": 2}, "contentChanges": [edit]},
    )
    speaker.finish.set()
    assert "changed since they were read" in (await client.answer(running))["result"]["reason"]

    key = "AKIA" + "Q3EGRWTHJ5KLZXC7"
    client.open(file.as_uri(), f'KEY = "{key}"\n')
    argument = {**marked(file, 0, 1), "instruction": "Rename it."}
    running = client.start("workspace/executeCommand", {"command": "inhouse.change", "arguments": [argument]})
    assert "looks like a secret" in (await client.answer(running))["result"]["reason"]


async def test_cancelling_ends_the_question(house: Workspace, speaker: Speaker) -> None:
    client, file = Client(house, capabilities=LAZY), house.root / "billing.py"
    argument = {**marked(file, 3, 6), "instruction": "Write without end."}
    running = client.start(
        "workspace/executeCommand", {"command": "inhouse.change", "arguments": [argument], "workDoneToken": "bar"}
    )
    while "answering" not in str((await client.told("$/progress"))["params"]["value"].get("message")):
        pass
    client.send("window/workDoneProgress/cancel", {"token": "bar"})
    assert "cancelled" in (await client.answer(running))["result"]["reason"]
    assert speaker.left.acquire(timeout=20)
    assert file.read_text() == BILLING


async def test_code_of_the_last_answer_and_reported_problems_are_offered(house: Workspace, speaker: Speaker) -> None:
    speaker.reply = f"Like this:\n\n```python\n{BETTER}\n```\n"
    client, file = Client(house, capabilities=LAZY), house.root / "till.py"
    client.open(file.as_uri(), TILL.replace("TODO", "NB"))
    await client.request("inhouse/ask", {"question": "How do I skip them?"})
    problem = {"range": {"start": at(1), "end": at(2)}, "message": "prices is not typed", "source": "checker"}
    fix, put = await actions(client, file, [problem])
    assert fix["title"] == "Change the selection: fix 'prices is not typed'"
    assert put["title"] == "Put the last answer's code here: def total(prices):"
    asked = len(speaker.asked)
    resolved = await client.request("codeAction/resolve", put)
    assert changed(TILL, resolved["edit"]["documentChanges"][0]["edits"][0], "utf-16").endswith(BETTER)
    assert len(speaker.asked) == asked, "the code is there already"
