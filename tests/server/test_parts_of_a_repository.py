"""Tokens for a part of a repository: on no route do they see a passage from elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from starlette.testclient import TestClient

from inhouse_retrieval import InhouseError, Within
from inhouse_server.access import Scope, TokenStore
from inhouse_server.cli import main
from inhouse_server.http_api import build_app
from inhouse_server.http_api.routes import ACCESS
from inhouse_server.workspace import Workspace
from inhouse_training import BASE, Finished, GenerationEvent, GenerationRequest, Message, TextDelta

from .conftest import git, make_repository
from .listening import listening

PORT = 8470
ADDRESS = f"http://127.0.0.1:{PORT}"
DAY = timedelta(days=1)
HIDDEN = "quetzal"
"""Stands in every file, page and pull request that the token may not see, and in nothing else."""
QUESTION = "How does `settle_ledger` settle the ledger of a customer, #7?"
FILES = {
    "billing/charge.py": 'def charge_customer(name):\n    """Charge a customer; settle_ledger comes later."""\n',
    "billing/README.md": "# Billing\n\nA customer is charged, then `settle_ledger` settles the ledger.\n",
    "billing-old/ledger.py": f'def settle_ledger({HIDDEN}):\n    """Settle the ledger of a customer: {HIDDEN}."""\n',
    "ledger/settle.py": f'def settle_ledger(name):\n    """Settle the ledger of a customer: {HIDDEN}."""\n',
    "docs/ledger.md": f"# Ledger\n\nHow to settle the ledger of a customer: {HIDDEN}.\n",
}


class Echo:
    """An engine that says all of its prompt, so that whatever reached the prompt shows."""

    base_model = "echo"
    context_tokens = 8192
    loaded_adapters = ()
    streams = 1

    def __init__(self) -> None:
        self.adapters: list[str] = []

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content) for message in messages) // 4

    def stream(self, request: GenerationRequest, cancel: Event) -> Iterator[GenerationEvent]:
        self.adapters.append(request.adapter)
        yield from (TextDelta(message.content) for message in request.messages)
        yield Finished("stop", 1, 1)

    def score(self, rows: object, adapter: str = BASE) -> list[Any]:
        raise AssertionError


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    root = make_repository(tmp_path_factory.mktemp("parts") / "firm")
    (root / "inhouse.toml").write_text('wiki = ["docs", "billing"]\n[server]\nrequests_per_minute = 1000\n')
    for path, text in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", "Settle the ledger (#7)", "-m", f"It says {HIDDEN} from now on.")
    with Workspace.open(root, "test") as held:
        held._engine = Echo()
        held.refresh()
        yield held


@pytest.fixture(scope="module")
def token(workspace: Workspace) -> str:
    """May see ``billing`` alone."""
    store = TokenStore(workspace.state_dir / "tokens.json")
    return store.create("Billing", [Scope.ASK], DAY, Within.of(["billing/"]))[0]


@pytest.fixture(scope="module")
def all_of_it(workspace: Workspace) -> str:
    return TokenStore(workspace.state_dir / "tokens.json").create("Ada", [Scope.ASK], DAY)[0]


@pytest.fixture(scope="module")
def client(workspace: Workspace) -> TestClient:
    return TestClient(build_app(workspace, "owner", "127.0.0.1", PORT), ADDRESS, follow_redirects=False)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


CHAT = [{"role": "user", "content": QUESTION}]
PASSAGE = {"path": "ledger/settle.py", "start_line": 1, "end_line": 2}
LEADS_TO_PASSAGES: dict[str, tuple[str, dict[str, Any] | None]] = {
    "/inhouse/search": ("POST", {"query": QUESTION, "limit": 50}),
    "/inhouse/ask": ("POST", {"question": QUESTION, "passages": True}),
    "/inhouse/passage": ("POST", PASSAGE),
    "/inhouse/uses": ("POST", {"name": "settle_ledger"}),
    "/v1/chat/completions": ("POST", {"model": "inhouse", "messages": CHAT}),
    "/v1/completions": ("POST", {"model": "inhouse", "prompt": QUESTION, "inhouse": {"retrieve": True}}),
}
OTHERS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "/": ("GET", None),
    "/web/{name}": ("GET", None),
    "/v1/models": ("GET", None),
    "/v1/embeddings": ("POST", {"model": "all-MiniLM-L6-v2", "input": QUESTION}),
    "/openapi.json": ("GET", None),
    "/inhouse/repositories": ("GET", None),
    "/inhouse/status": ("GET", None),
    "/inhouse/adapters": ("GET", None),
    "/inhouse/feedback": ("POST", {"question": QUESTION}),
}
BY_THEMSELVES = {"/mcp", "/lsp"}


def test_every_route_that_a_question_opens_is_tried() -> None:
    asked = {path for path, access in ACCESS.items() if access.scope is Scope.ASK}
    assert asked == {*LEADS_TO_PASSAGES, *OTHERS, *BY_THEMSELVES}


@pytest.mark.parametrize("route", [*LEADS_TO_PASSAGES, *OTHERS])
def test_no_route_shows_what_lies_elsewhere(route: str, client: TestClient, token: str, all_of_it: str) -> None:
    method, body = (LEADS_TO_PASSAGES | OTHERS)[route]
    path = route.replace("{name}", "chat.js")
    seen = client.request(method, path, json=body, headers=bearer(token)).text
    assert HIDDEN not in seen
    shown = client.request(method, path, json=body, headers=bearer(all_of_it)).text
    assert (HIDDEN in shown) == (route in LEADS_TO_PASSAGES), "a test that could not fail shows nothing"


def test_what_it_may_see_is_found_and_read(client: TestClient, token: str) -> None:
    found = client.post("/inhouse/search", json={"query": QUESTION, "limit": 50}, headers=bearer(token)).json()
    assert {hit["path"] for hit in found["results"]} == {"billing/charge.py", "billing/README.md"}
    assert {"dense", "lexical"} <= set(found["results"][0]["legs"])
    read = client.post("/inhouse/passage", json=PASSAGE | {"path": "billing/charge.py"}, headers=bearer(token))
    assert read.json()["text"].startswith("def charge_customer")


@pytest.mark.parametrize(
    "path", ["ledger/settle.py", "billing/../ledger/settle.py", "billing-old/ledger.py", "none.py"]
)
def test_what_lies_elsewhere_looks_like_what_does_not_exist(path: str, client: TestClient, token: str) -> None:
    answer = client.post("/inhouse/passage", json=PASSAGE | {"path": path}, headers=bearer(token))
    assert answer.json()["error"]["message"].startswith(f"There is no file {path!r} in the repository.")


def test_a_pull_request_is_neither_found_nor_read(workspace: Workspace, client: TestClient, token: str) -> None:
    (page,) = (hit.path for hit in workspace.index.search("#7").passages if hit.source == "pull_request")
    answer = client.post("/inhouse/passage", json=PASSAGE | {"path": page}, headers=bearer(token))
    assert answer.status_code == 400
    found = client.post("/inhouse/search", json={"query": "#7 ledger"}, headers=bearer(token)).json()
    assert {hit["source"] for hit in found["results"]} <= {"code", "wiki"}


def test_the_base_model_answers_since_adapters_learned_from_everything(
    workspace: Workspace, client: TestClient, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace.registry, "current", lambda: "v1")
    monkeypatch.setattr(workspace.registry, "get", lambda version: None)
    engine = workspace.engine()
    assert isinstance(engine, Echo)
    client.post("/inhouse/ask", json={"question": QUESTION}, headers=bearer(token))
    assert engine.adapters[-1] == BASE
    answer = client.post("/inhouse/ask", json={"question": QUESTION, "adapter": "v1"}, headers=bearer(token)).text
    assert "adapters have learned from all of it" in answer


async def test_the_tools_of_mcp(workspace: Workspace, token: str, all_of_it: str) -> None:
    with listening(workspace) as served:
        for given, sees in ((token, False), (all_of_it, True), (token, False)):
            async with (
                create_mcp_http_client(bearer(given)) as http,
                Client(streamable_http_client(f"{served.url}/mcp", http_client=http)) as tools,
            ):
                names = [tool.name for tool in (await tools.list_tools()).tools]
                assert "review" not in names
                for tool, arguments in (
                    ("search", {"query": QUESTION}),
                    ("ask", {"question": QUESTION}),
                    ("read_passage", PASSAGE),
                ):
                    told = await asyncio.wait_for(tools.call_tool(tool, arguments), 60)
                    assert (HIDDEN in told.model_dump_json()) == sees, tool


def test_an_editor(client: TestClient, token: str, all_of_it: str) -> None:
    elsewhere = {"inhouseCheckout": {"rootUri": "file:///home/ada", "answersUri": "file:///a", "commit": None}}
    uri = "file:///home/ada/billing/charge.py"
    document = {"uri": uri, "languageId": "python", "version": 1, "text": "settle_ledger(1)\n"}
    hover = {"textDocument": {"uri": uri}, "position": {"line": 0, "character": 3}}
    for given, sees in ((token, False), (all_of_it, True)):
        with client.websocket_connect(f"ws://127.0.0.1:{PORT}/lsp", headers=bearer(given)) as session:

            def request(number: int, method: str, params: Any) -> str:
                session.send_json({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
                told: list[Any] = []
                while not told or told[-1].get("id") != number or "method" in told[-1]:
                    told.append(session.receive_json())
                return json.dumps(told)

            request(1, "initialize", {"capabilities": {}, "initializationOptions": elsewhere})
            session.send_json(
                {"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": {"textDocument": document}}
            )
            assert ("ledger/settle.py" in request(2, "textDocument/hover", hover)) == sees
            asked = {"command": "inhouse.ask", "arguments": [QUESTION]}
            for number, (method, params) in enumerate(
                (("inhouse/ask", {"question": QUESTION}), ("workspace/executeCommand", asked)), start=3
            ):
                assert (HIDDEN in request(number, method, params)) == sees, method


def test_rights_that_see_everything_cannot_be_cut(workspace: Workspace) -> None:
    store = TokenStore(workspace.state_dir / "tokens.json")
    for scope in (Scope.REVIEW, Scope.ADMIN, Scope.METRICS):
        with pytest.raises(InhouseError, match="only have the scope 'ask'"):
            store.create(scope.value, [Scope.ASK, scope], DAY, Within.of(["billing"]))


@pytest.mark.parametrize("path", ["", "/", "/etc", "..", "billing/../ledger", "./billing", "a//b"])
def test_what_is_no_part_of_a_repository(path: str) -> None:
    with pytest.raises(InhouseError):
        Within.of([path])


def test_the_command_says_which_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_repository(tmp_path / "firm")
    arguments = ["token", "create", "Ada", "--within", "billing", "--within", "docs/x", "--repo", str(root)]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["within"] == ["billing", "docs/x"]
    assert main(["token", "list", "--repo", str(root)]) == 0
    assert "ask within billing, docs/x" in capsys.readouterr().out
    assert main(["token", "create", "Eve", "--within", "../elsewhere", "--repo", str(root)]) == 1
    assert "names no part of the repository" in capsys.readouterr().err
