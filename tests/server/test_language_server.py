"""The language server as an editor meets it: the real owner and model, through the relay."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from websockets.asyncio.client import connect

from inhouse_retrieval import EVERYWHERE, Repository
from inhouse_server.framing import frame
from inhouse_server.language_server.checkout import Checkout
from inhouse_server.language_server.open_documents import OpenDocuments
from inhouse_server.language_server.questions import current_text
from inhouse_server.language_server.server import build_server
from inhouse_server.language_server.uris import path_in
from inhouse_server.lsp_capabilities import initialize_result
from inhouse_server.owner import find_owner
from inhouse_server.text_sync import Edit
from inhouse_server.workspace import Workspace
from tests.server.direct import Client
from tests.server.editor import FULL_CAPABILITIES, Editor, editor
from tests.server.house import INHOUSE, LONG, NAME, PRICES, make_repository, owner
from tests.server.speaker import saying, speaking

QUESTION = "How is the tax added to a price?"
LONG_QUESTION = "Write a very long story about a shop, with many chapters."


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = make_repository(tmp_path_factory.mktemp("shop") / "a shop", LONG)
    with owner(root):
        yield root


@pytest.fixture
async def connected(root: Path) -> AsyncIterator[Editor]:
    async with editor([INHOUSE, "lsp", "--repo", root]) as client:
        await client.initialize(root)
        yield client


def uri(root: Path, path: str = NAME) -> str:
    return (root / path).as_uri()


def git_in(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True)


def span(first: int, last: int) -> dict[str, Any]:
    return {"start": {"line": first, "character": 0}, "end": {"line": last, "character": 0}}


async def test_an_answer_streams_and_says_where_it_comes_from(connected: Editor, root: Path) -> None:
    params = {"question": QUESTION, "partialResultToken": "text", "workDoneToken": "work"}
    result = await connected.request("inhouse/ask", params)
    assert connected.streamed("text").strip()
    assert result["answer"] == "", "a streamed answer is not sent again"
    assert uri(root) in [citation["uri"] for citation in result["citations"]]
    assert result["provenance"]["base_model"] == "SmolLM2-135M-Instruct"
    assert result["provenance_line"].startswith("Answered by SmolLM2-135M-Instruct with no adapter, index at ")
    assert len(result["provenance"]["index_commit"]) == 40
    assert result["timings"]["completion_tokens"] >= 1
    kinds = [value["kind"] for value in connected.progress("work")]
    assert kinds[0] == "begin" and kinds[-1] == "end"


async def test_a_question_may_follow_others(connected: Editor) -> None:
    history = [
        {"role": "user", "content": "Which taxes are there?"},
        {"role": "assistant", "content": "Value-added tax alone, of 19 percent, which is added last."},
    ]
    alone = await connected.request("inhouse/ask", {"question": QUESTION})
    following = await connected.request("inhouse/ask", {"question": QUESTION, "history": history})
    # The passages are the same, so the earlier turns are what makes the prompt longer.
    assert following["timings"]["prompt_tokens"] > alone["timings"]["prompt_tokens"] + 20
    wrong = await connected.response(
        connected.start("inhouse/ask", {"question": QUESTION, "history": [{"role": "system", "content": "x"}]})
    )
    assert wrong["error"]["code"] == -32602


async def test_an_unsaved_buffer_is_what_is_read(connected: Editor, root: Path) -> None:
    far_down = "# filler\n" * 80
    connected.open(uri(root), PRICES)
    change = {
        "range": span(3, 3),
        "text": far_down + "def zebra_discount(amount):\n    return amount * 0.5\n",
    }
    connected.notify(
        "textDocument/didChange",
        {"textDocument": {"uri": uri(root), "version": 2}, "contentChanges": [change]},
    )
    result = await connected.request("inhouse/ask", {"question": "What does zebra_discount do?"})
    lines = [c["range"]["end"]["line"] for c in result["citations"] if c["uri"] == uri(root)]
    assert max(lines) > 80, "only the buffer has so many lines"

    connected.notify("textDocument/didClose", {"textDocument": {"uri": uri(root)}})
    result = await connected.request("inhouse/ask", {"question": "What does zebra_discount do?"})
    lines = [c["range"]["end"]["line"] for c in result["citations"] if c["uri"] == uri(root)]
    assert all(line <= 3 for line in lines), "the buffer is closed, so the file counts"


async def test_a_selection_outside_the_repository_is_not_read(connected: Editor) -> None:
    params = {"question": QUESTION, "textDocument": {"uri": "file:///etc/passwd"}, "range": span(0, 1)}
    result = await connected.request("inhouse/ask", params)
    assert "was not read" in result["notes"][0]


async def test_a_stock_client_gets_the_answer_as_a_document(connected: Editor, root: Path) -> None:
    connected.open(uri(root), PRICES)
    context = {"diagnostics": [], "triggerKind": 1}
    params = {"textDocument": {"uri": uri(root)}, "range": span(0, 2), "context": context}
    actions = await connected.request("textDocument/codeAction", params)
    assert [action["title"] for action in actions] == ["Explain", "How do we usually do this here?"]
    assert all("command" not in action for action in actions), "filled in when it is chosen"

    command = (await connected.request("codeAction/resolve", actions[0]))["command"]
    result = await connected.request(
        "workspace/executeCommand", {"command": command["command"], "arguments": command["arguments"]}
    )
    shown = await connected.wait_for(lambda m: m.get("method") == "window/showDocument")
    assert shown["params"]["uri"] == result["uri"]
    document = Path(unquote(result["uri"].removeprefix("file://"))).read_text(encoding="utf-8")
    assert f"({uri(root)}#L1)" in document
    assert document.rstrip().splitlines()[-1].startswith("Answered by SmolLM2-135M-Instruct with no adapter")
    created = [m for m in connected.received if m.get("method") == "window/workDoneProgress/create"]
    assert len(created) == 2, "one while models load, one for the answer"


async def test_a_client_that_can_nothing_gets_its_answer(root: Path) -> None:
    answers = root / ".inhouse" / "answers"
    answers.mkdir(parents=True, exist_ok=True)
    for number in range(250):
        (answers / f"20200101-{number:06}-old-0000.md").touch()
    async with editor([INHOUSE, "lsp", "--repo", root]) as client:
        await client.initialize(root, capabilities={})
        client.open(uri(root), PRICES)
        params = {"textDocument": {"uri": uri(root)}, "range": span(0, 2), "context": {"diagnostics": []}}
        actions = await client.request("textDocument/codeAction", params)
        assert actions[0]["command"]["command"] == "inhouse.ask", "it cannot resolve, so nothing is left out"
        result = await client.request("workspace/executeCommand", {"command": "inhouse.ask", "arguments": [QUESTION]})
        assert [m for m in client.received if "id" in m and "method" in m] == []
        written = Path(unquote(result["uri"].removeprefix("file://")))
        assert str(written) in client.shown()[-1]
        kept = {file.name for file in answers.iterdir()}
        assert len(kept) == 200 and written.name in kept, "the oldest give way"
        assert "20200101-000000-old-0000.md" not in kept and "20200101-000249-old-0000.md" in kept


async def test_an_answer_that_cannot_be_kept_is_shown(root: Path) -> None:
    answers = root / ".inhouse" / "answers"
    moved = answers.rename(answers.with_name("moved")) if answers.exists() else None
    answers.touch()
    try:
        async with editor([INHOUSE, "lsp", "--repo", root]) as client:
            await client.initialize(root, capabilities={})
            asked = {"command": "inhouse.ask", "arguments": [QUESTION]}
            assert await client.request("workspace/executeCommand", asked) == {"uri": None}
            assert "The answer cannot be written to" in client.shown()[-1] and QUESTION in client.shown()[-1]
    finally:
        answers.unlink()
        if moved is not None:
            moved.rename(answers)


async def test_actions_are_offered_where_they_make_sense(connected: Editor, root: Path) -> None:
    async def titles(document: str, selected: dict[str, Any], **context: Any) -> list[str]:
        params = {
            "textDocument": {"uri": document},
            "range": selected,
            "context": {"diagnostics": [], **context},
        }
        return [action["title"] for action in await connected.request("textDocument/codeAction", params)]

    assert await titles(uri(root), span(1, 1), triggerKind=2) == [], "no light bulb on a bare cursor"
    assert len(await titles(uri(root), span(1, 1), triggerKind=1)) == 2
    assert await titles(uri(root), span(0, 2), only=["refactor"]) == []
    assert await titles(uri(root), span(0, 2), only=["inhouse.explain"]) == ["Explain"]
    assert await titles("untitled:one", span(0, 2)) == []


async def test_a_hover_says_where_a_name_is_defined_and_who_changed_that(connected: Editor, root: Path) -> None:
    document = uri(root, "till.py")
    connected.open(document, "price_with_tax(1)\n")
    while (await connected.request("inhouse/status"))["files"] < 2:
        pass  # asking opens the index, which the owner then fills
    asked = {"textDocument": {"uri": document}, "position": {"line": 0, "character": 3}}
    text = (await connected.request("textDocument/hover", asked))["contents"]["value"]
    assert "def price_with_tax(amount):" in text and f"({uri(root)}#L1)" in text
    assert "Last changed by Test, " in text and "Start the shop" in text


async def first_delta(client: Editor, token: str) -> None:
    await client.wait_for(lambda m: m.get("method") == "$/progress" and m["params"]["token"] == token)


async def test_a_cancelled_request_stops(connected: Editor) -> None:
    request = connected.start("inhouse/ask", {"question": LONG_QUESTION, "partialResultToken": "long"})
    await first_delta(connected, "long")
    connected.notify("$/cancelRequest", {"id": request})
    answer = await connected.response(request, timeout=2)
    assert answer["error"]["code"] == -32800
    so_far = len(connected.progress("long"))
    assert (await connected.request("inhouse/ask", {"question": QUESTION}))["answer"], "the engine is free"
    assert len(connected.progress("long")) == so_far


async def test_cancelling_the_progress_stops_within_one_token(connected: Editor) -> None:
    params = {"question": LONG_QUESTION, "partialResultToken": "story", "workDoneToken": "bar"}
    request = connected.start("inhouse/ask", params)
    await first_delta(connected, "story")
    connected.notify("window/workDoneProgress/cancel", {"token": "bar"})
    deltas = len(connected.progress("story"))
    result = (await connected.response(request, timeout=5))["result"]
    assert result["reason"] == "cancelled"
    assert result["timings"]["completion_tokens"] < 40
    assert len(connected.progress("story")) - deltas <= 6, "what was under way when the cancel arrived"


async def test_cancelling_the_command_shows_nothing(connected: Editor) -> None:
    request = connected.start("workspace/executeCommand", {"command": "inhouse.ask", "arguments": [LONG_QUESTION]})
    begun = await connected.wait_for(
        lambda m: m.get("method") == "$/progress" and m["params"]["value"].get("cancellable") is True
    )
    connected.notify("window/workDoneProgress/cancel", {"token": begun["params"]["token"]})
    assert (await connected.response(request, timeout=10))["result"] == {"uri": None}
    assert not [m for m in connected.received if m.get("method") == "window/showDocument"]


async def test_saving_refreshes_the_index(connected: Editor, root: Path) -> None:
    before = (await connected.request("inhouse/status"))["files"]
    (root / "saved.py").write_text("def saved_just_now():\n    return 1\n", encoding="utf-8")
    connected.notify("textDocument/didSave", {"textDocument": {"uri": uri(root, "saved.py")}})
    async with asyncio.timeout(30):
        while (await connected.request("inhouse/status"))["files"] == before:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"{not json", -32700),
        (b"\xff\xfe\x00", -32700),
        (b"[" * 100_000, -32700),
        (b"[]", -32600),
        (b"17", -32600),
        (b'{"jsonrpc": "1.0", "id": 900, "method": "inhouse/status"}', -32600),
        (b'{"jsonrpc": "2.0", "id": 900}', -32600),
        (b'{"jsonrpc": "2.0", "id": {}, "method": "inhouse/status"}', -32600),
        (b'{"jsonrpc": "2.0", "id": 900, "method": 5}', -32600),
        (b'{"jsonrpc": "2.0", "id": 900, "method": "no/such"}', -32601),
        (b'{"jsonrpc": "2.0", "id": 900, "method": "initialize", "params": {"capabilities": {}}}', -32600),
        (b'{"jsonrpc": "2.0", "id": 900, "method": "textDocument/codeAction", "params": {}}', -32602),
        (b'{"jsonrpc": "2.0", "id": 900, "method": "textDocument/codeAction"}', -32602),
        (b'{"jsonrpc": "2.0", "id": 900, "method": "inhouse/ask", "params": [1]}', -32602),
        (b'{"jsonrpc": "2.0", "id": 900, "method": "inhouse/ask", "params": {"question": 7}}', -32602),
        (b'{"jsonrpc": "2.0", "id": 900, "method": "inhouse/ask", "params": {"question": " "}}', -32803),
        (
            b'{"jsonrpc": "2.0", "id": 900, "method": "inhouse/ask",'
            b' "params": {"question": "x", "adapter": "none-such"}}',
            -32803,
        ),
        (
            b'{"jsonrpc": "2.0", "id": 900, "method": "workspace/executeCommand", "params": {"command": "rm"}}',
            -32602,
        ),
        (
            b'{"jsonrpc": "2.0", "id": 900, "method": "workspace/executeCommand",'
            b' "params": {"command": "inhouse.ask", "arguments": [1, 2]}}',
            -32602,
        ),
        (b'{"jsonrpc": "2.0", "id": 900, "method": "codeAction/resolve", "params": {"title": "x"}}', -32602),
        (
            b'{"jsonrpc": "2.0", "id": 900, "method": "workspace/executeCommand", "params": '
            b'{"command": "inhouse.ask", "arguments": ["When?"], "workDoneToken": [[]]}}',
            -32602,
        ),
    ],
)
async def test_a_malformed_message_gets_an_error_and_the_connection_lives(
    connected: Editor, message: bytes, code: int
) -> None:
    connected.send_raw(frame(message))
    answer = await connected.wait_for(lambda m: "error" in m, timeout=20)
    assert answer["error"]["code"] == code
    assert answer["id"] == (900 if b'"id": 900' in message else None)
    assert "Traceback" not in json.dumps(answer)
    assert (await connected.request("inhouse/status"))["files"] >= 2


async def test_malformed_notifications_are_survived(connected: Editor, root: Path) -> None:
    for method, params in (
        ("textDocument/didChange", {}),
        ("textDocument/didChange", {"textDocument": {"uri": "file:///x", "version": 1}, "contentChanges": 3}),
        ("textDocument/didOpen", None),
        ("textDocument/didClose", {"textDocument": {"uri": uri(root, "never opened")}}),
        ("$/cancelRequest", {"id": 12345}),
        ("window/workDoneProgress/cancel", {"token": "unknown"}),
        ("no/such", {"x": 1}),
    ):
        connected.notify(method, params)
    connected.send({"id": "unasked", "result": None})
    assert (await connected.request("inhouse/status"))["files"] >= 2


@pytest.mark.parametrize("encodings", [None, ["utf-8"], ["utf-32", "utf-16"], ["ucs-7"]])
async def test_the_relay_answers_initialize_as_the_server_does(root: Path, encodings: list[str] | None) -> None:
    address = find_owner(root / ".inhouse")
    assert address is not None
    capabilities = {**FULL_CAPABILITIES, "general": {"positionEncodings": encodings} if encodings else {}}
    params = {"processId": None, "rootUri": root.as_uri(), "capabilities": capabilities}
    header = {"Authorization": f"Bearer {address.token}"}
    async with connect(f"ws{address.url.removeprefix('http')}/lsp", additional_headers=header) as socket:
        await socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "inhouse/status"}))
        assert json.loads(await socket.recv())["error"]["code"] == -32002, "nothing before initialize"
        await socket.send(json.dumps({"jsonrpc": "2.0", "id": 2, "method": "initialize", "params": params}))
        told = json.loads(await socket.recv())["result"]
        assert told == initialize_result(params)
        assert "workspaceFolders" not in told["capabilities"]["workspace"], "one folder is served"


async def test_two_editors_share_one_owner(root: Path) -> None:
    async with (
        editor([INHOUSE, "lsp", "--repo", root]) as one,
        editor([INHOUSE, "lsp", "--repo", root]) as two,
    ):
        await one.initialize(root)
        await two.initialize(root)
        assert await one.request("inhouse/status")
        assert await one.leave() == 0
        assert await two.request("inhouse/status"), "the first one's exit is its own"


def test_paths_of_uris(tmp_path: Path) -> None:
    root = (tmp_path / "root").resolve()
    (root / "a b").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(root)
    assert path_in(root, (root / "a b" / "é#?%.py").as_uri()) == "a b/é#?%.py"
    assert path_in(root, f"{link.as_uri()}/a%20b/x.py") == "a b/x.py"
    assert path_in(root, f"file://localhost{root}/x.py") == "x.py"
    assert path_in(root, f"FILE://{root}/x.py") == "x.py"
    outside = (
        root.as_uri(),
        f"{root.as_uri()}-other/x.py",
        f"{root.as_uri()}/../x.py",
        f"{root.as_uri()}/%2e%2e/x.py",
        f"{root.as_uri()}/a%00b",
        f"{root.as_uri()}/a\ud800b",
        f"file://elsewhere{root}/x.py",
        f"vscode-remote://host{root}/x.py",
        "untitled:Untitled-1",
        "file:x",
        "http://[",
        "",
    )
    assert [path_in(root, each) for each in outside] == [None] * len(outside)


async def test_only_files_of_the_repository_are_read(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "shop")
    (root / ".git" / "info" / "exclude").write_text("*.local\n")
    documents = OpenDocuments(Repository.open(root), root / ".inhouse", Checkout(root))
    for path in ("a.py", ".inhouse/answers/old.md", ".git/COMMIT_EDITMSG", "secrets.local"):
        documents.open((root / path).as_uri(), path)
    documents.open("file:///etc/passwd", "secret")
    documents.open(f"{root.as_uri()}/{'x' * 200_000}.py", "git cannot be asked for that name")
    assert await documents.by_path() == {"a.py": "a.py"}
    assert await documents.searched_text(f"{root.as_uri()}/%61.py") == "a.py", "a URI may be spelled in two ways"
    assert await documents.searched_text((root / "secrets.local").as_uri()) is None
    documents.close(f"{root.as_uri()}/%61.py")
    assert await documents.by_path() == {}


async def test_what_one_editor_has_open_has_a_bound_and_git_is_not_asked_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inhouse_server.language_server.open_documents.MAX_OPEN_BYTES", 100_000)
    root = make_repository(tmp_path / "shop")
    asked_in: list[str] = []
    is_ignored = Repository.is_ignored

    def watched(repository: Repository, path: str) -> bool:
        asked_in.append(f"{path} {'loop' if threading.current_thread() is threading.main_thread() else 'thread'}")
        return is_ignored(repository, path)

    monkeypatch.setattr(Repository, "is_ignored", watched)
    documents = OpenDocuments(Repository.open(root), root / ".inhouse", Checkout(root))
    first, second, third = ((root / name).as_uri() for name in ("a.py", "b.py", "c.py"))
    documents.open(first, "a" * 40_000)
    documents.open(second, "b" * 40_000)
    assert not documents.refused and not asked_in
    taken = documents.by_path()
    documents.open(third, "c" * 40_000)
    assert documents.refused and documents.text(third) is documents.version(third) is None
    assert (await taken).keys() == (await documents.by_path()).keys() == {"a.py", "b.py"}
    assert asked_in == ["a.py thread", "b.py thread"], "once for each, and nobody else waits for it"
    documents.change(second, [Edit("x" * 70_000)])
    assert documents.text(second) is None, "it grew"
    documents.open(third, "c" * 40_000)
    documents.change(third, [Edit("d" * 50_000)])
    assert await documents.by_path() == {"a.py": "a" * 40_000, "c.py": "d" * 50_000}
    for _ in range(9):
        documents.close(third), documents.open(third, "c" * 50_000)
    assert documents.text(third)


async def test_an_editor_is_told_once_that_it_has_too_much_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inhouse_server.language_server.open_documents.MAX_OPEN_BYTES", 100_000)
    root = make_repository(tmp_path / "shop")
    (root / NAME).write_text("saved\n")
    with Workspace.open(root, "test") as house:
        server, client = build_server(house, EVERYWHERE), Client(house)
        server.documents.open((root / NAME).as_uri(), "b" * 110_000)
        assert current_text(server, (root / NAME).as_uri()) == ("saved\n", None), "as if it were not open"
        client.open((root / "a.py").as_uri(), "a" * 90_000)
        for name in ("b.py", "c.py"):
            client.open((root / name).as_uri(), "b" * 90_000)
        told = await client.told("window/showMessage")
        assert "read as they were last saved" in told["params"]["message"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.told("window/showMessage"), 0.2)


async def test_the_model_reads_for_the_command_and_not_at_each_save(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "house")
    git_in(root, "branch", "-M", "main")
    git_in(root, "checkout", "-qb", "change")
    price, other = root / "price.py", root / "other.py"
    price.write_text("def gross(amount):\n    return amount * 1.19\n")
    other.write_text("def nothing():\n    return None\n")
    remark = {"quote": "return amount * 1.19", "problem": "The rate is a magic number.", "confidence": 9}
    with speaking() as speaker, saying(root, speaker, "[review]\nreading = true\n"):
        speaker.reply = json.dumps({"findings": [{**remark, "better": "return amount * RATE"}]})
        async with editor([INHOUSE, "lsp", "--repo", root]) as client:
            await client.initialize(root, FULL_CAPABILITIES)

            async def shown(there: bool) -> list[Any]:
                told = await client.wait_for(
                    lambda m: (
                        m.get("method") == "textDocument/publishDiagnostics"
                        and m["params"]["uri"] == price.as_uri()
                        and bool(m["params"]["diagnostics"]) == there
                    )
                )
                diagnostics: list[Any] = told["params"]["diagnostics"]
                return diagnostics

            result = await client.request("workspace/executeCommand", {"command": "inhouse.review"})
            assert result["findings"] == 1, result
            [found] = await shown(True)
            assert (found["code"], found["range"]["start"]["line"]) == ("reading", 1)
            asked = len(speaker.asked)
            assert asked == 2, "one for each hunk"

            # Another file is saved: nobody waits for the model, and what it said of this one stays.
            other.write_text("def nothing():\n    return 0\n")
            client.notify("textDocument/didSave", {"textDocument": {"uri": other.as_uri()}})
            assert await shown(True) == [found]
            price.write_text("RATE = 1.19\n\n\ndef gross(amount):\n    return amount * RATE\n")
            client.notify("textDocument/didSave", {"textDocument": {"uri": price.as_uri()}})
            assert await shown(False) == []
            assert len(speaker.asked) == asked


@pytest.mark.parametrize(("end", "last"), [("\n", "\n\nget_json(os)\n"), ("\r\n", "")])
async def test_a_review_shows_diagnostics_and_fixes_them(tmp_path: Path, end: str, last: str) -> None:
    root = make_repository(tmp_path / "house")
    git_in(root, "branch", "-M", "main")
    for number in range(6):
        (root / f"c{number}.py").write_text("from house.http import get_json\n\nget_json()\n")
    git_in(root, "add", "-A")
    git_in(root, "commit", "-qm", "Clients")
    git_in(root, "checkout", "-qb", "change")
    new = root / "new.py"
    new.write_bytes(f"import os{end}from requests import get_json{last}".encode())
    capabilities = json.loads(json.dumps(FULL_CAPABILITIES))
    capabilities["textDocument"]["codeAction"]["resolveSupport"]["properties"] = ["command", "edit"]
    with owner(root):
        async with editor([INHOUSE, "lsp", "--repo", root]) as client:
            await client.initialize(root, capabilities)
            client.open(new.as_uri(), new.read_bytes().decode())
            result = await client.request("workspace/executeCommand", {"command": "inhouse.review"})
            assert result["findings"] == 1, result
            published = await client.wait_for(lambda m: m.get("method") == "textDocument/publishDiagnostics")
            [diagnostic] = published["params"]["diagnostics"]
            assert published["params"]["uri"] == new.as_uri()
            assert (diagnostic["code"], diagnostic["range"]["start"]["line"]) == ("import-spelling", 1)
            assert "house.http" in diagnostic["message"]
            assert diagnostic["relatedInformation"][0]["location"]["uri"].startswith(root.as_uri())

            asked = {
                "textDocument": {"uri": new.as_uri()}, "range": diagnostic["range"],
                "context": {"diagnostics": [diagnostic], "only": ["quickfix"]},
            }  # fmt: skip
            [action] = await client.request("textDocument/codeAction", asked)
            assert "edit" not in action, "made when it is asked for"
            resolved = await client.request("codeAction/resolve", action)
            [edit] = resolved["edit"]["changes"][new.as_uri()]
            # The line's own end stays, whichever it is and whether there is one.
            assert edit["newText"] == "from house.http import get_json"
            assert edit["range"] == {"start": {"line": 1, "character": 0}, "end": {"line": 1, "character": 29}}

            asked["context"]["only"] = ["inhouse.why"]
            [why] = await client.request("textDocument/codeAction", asked)
            shown = await client.request("workspace/executeCommand", why["command"])
            told = Path(unquote(shown["uri"].removeprefix("file://"))).read_text()
            assert "6 of 6 places" in told
            assert f"({root.as_uri()}/c0.py#L1)" in told and "from house.http import get_json" in told
            assert (await client.response(client.start("workspace/executeCommand", {
                "command": "inhouse.why", "arguments": [{**why["command"]["arguments"][0], "fingerprint": "0" * 20}],
            })))["error"]["message"].startswith("This remark is not known any more.")  # fmt: skip

            # Applied and saved: the review follows, and the diagnostic goes.
            new.write_text("import os\nfrom house.http import get_json\n\nget_json(os)\n")
            client.notify("textDocument/didSave", {"textDocument": {"uri": new.as_uri()}})
            await client.wait_for(
                lambda m: m.get("method") == "textDocument/publishDiagnostics" and not m["params"]["diagnostics"]
            )
            stale = await client.response(client.start("codeAction/resolve", action))
            assert "not known any more" in stale["error"]["message"]
