"""What is counted, limited and noted of everything that a model or the encoder does for somebody, whichever the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.testclient import TestClient

from inhouse_server.access import Audit, Caller, Handled, Scope, TokenStore, Work
from inhouse_server.access.tokens import OWNER_CALLER
from inhouse_server.http_api import build_app
from inhouse_server.workspace import Workspace

from .conftest import git, make_repository
from .speaker import speaking
from .test_inline_completion import AUTOMATIC, FIM, INVOKED, METHOD, Filler

OWNER_TOKEN = "the-owners-own-token-of-some-letters"
SECRET = "zanzibar"
"""A word that everybody asks about, and that is to be written down nowhere."""
LSP = "ws://127.0.0.1:8470/lsp"
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noted")
    root = make_repository(folder / "shop")
    (folder / "model").mkdir()
    tokens = [{"content": each} for each in FIM]
    (folder / "model" / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    with Workspace.open(root, "test") as held:
        held.refresh()
    return root


@pytest.fixture
def workspace(root: Path) -> Iterator[Workspace]:
    """Answers come from a script, over HTTP."""
    with speaking() as speaker:
        url = f"http://127.0.0.1:{speaker.server_port}/v1"
        (root / "inhouse.toml").write_text(f'[engine]\nkind = "openai"\nurl = "{url}"\nmodel = "speaker"\n')
        with fresh(root) as held:
            yield held


@pytest.fixture
def filled(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Workspace, Filler]]:
    """Completions come from a script; the model's vocabulary has the tokens for them."""
    settings = "[inline_completion]\nenabled = true\n[server]\ncompletions_per_minute = 3\n"
    (root / "inhouse.toml").write_text(f"base_model = '{root.parent / 'model'}'\n{settings}")
    filler = Filler()
    with fresh(root) as held:
        monkeypatch.setattr(held, "filler", lambda: filler)
        monkeypatch.setattr(held.registry, "current", lambda: "v1")
        yield held, filler


def fresh(root: Path) -> Workspace:
    (root / ".inhouse" / "audit.jsonl").unlink(missing_ok=True)
    (root / ".inhouse" / "tokens.json").unlink(missing_ok=True)
    return Workspace.open(root, "test")


def app_of(workspace: Workspace) -> Starlette:
    return build_app(workspace, OWNER_TOKEN, "127.0.0.1", 8470)


def connected(app: Starlette) -> TestClient:
    return TestClient(app, "http://127.0.0.1:8470")


def token_of(workspace: Workspace, name: str = "Ada") -> dict[str, str]:
    text, _ = TokenStore(workspace.state_dir / "tokens.json").create(name, [Scope.ASK], DAY)
    return {"Authorization": f"Bearer {text}"}


def noted(workspace: Workspace) -> list[dict[str, Any]]:
    text = (workspace.state_dir / "audit.jsonl").read_text()
    assert SECRET not in text
    return [json.loads(line) for line in text.splitlines()]


def figures(client: TestClient) -> dict[tuple[str, ...], float]:
    text = client.get("/metrics", headers={"Authorization": f"Bearer {OWNER_TOKEN}"}).text
    assert SECRET not in text
    names = ("route", "method", "status", "reason", "kind")
    return {
        (sample.name, *(sample.labels[name] for name in names if name in sample.labels)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }


@pytest.mark.parametrize("retrieve", [True, False])
@pytest.mark.parametrize(
    ("route", "asked"),
    [
        ("/v1/completions", {"model": "base", "prompt": f"When does {SECRET} come?"}),
        ("/v1/completions", {"model": "base", "prompt": f"When does {SECRET} come?", "stream": True}),
        ("/v1/chat/completions", {"model": "base", "messages": [{"role": "user", "content": f"Is {SECRET} late?"}]}),
    ],
)
def test_an_answer_is_noted_with_what_made_it(
    workspace: Workspace, root: Path, route: str, asked: dict[str, Any], retrieve: bool
) -> None:
    client, ada = connected(app_of(workspace)), token_of(workspace)
    answer = client.post(route, json=asked | {"inhouse": {"retrieve": retrieve}}, headers=ada)
    assert answer.status_code == 200 and "noon" in answer.text
    (line,) = noted(workspace)
    assert (line["name"], line["scope"], line["route"], line["status"]) == ("Ada", "ask", route, 200)
    assert line["adapter"] is None, "the base model was asked"
    assert line["commit"] == (git(root, "rev-parse", "HEAD").strip() if retrieve else None)
    assert line["prompt_tokens"] > 0 and line["completion_tokens"] > 0
    seen = figures(client)
    assert seen["inhouse_tokens_total", "prompt"] == line["prompt_tokens"]
    assert seen["inhouse_answers_total", "stop"] == 1


def test_questions_by_the_other_ways_are_noted_alike(workspace: Workspace, root: Path) -> None:
    client, ada = connected(app_of(workspace)), token_of(workspace)
    question = {"question": f"Is {SECRET} late?"}
    assert "finished" in client.post("/inhouse/ask", json=question, headers=ada).text
    elsewhere = {"inhouseCheckout": {"rootUri": "file:///home/ada", "answersUri": "file:///a", "commit": None}}
    with client.websocket_connect(LSP, headers=ada) as session:
        request(session, 1, "initialize", {"capabilities": {}, "initializationOptions": elsewhere})
        assert "noon" in request(session, 2, "inhouse/ask", question)["result"]["answer"]
    page, editor, _ = (line for line in noted(workspace) if line["status"] != 101)
    assert (editor["method"], editor["route"], editor["scope"], editor["name"]) == ("LSP", "inhouse/ask", "ask", "Ada")
    assert editor["ms"] > 0
    head = git(root, "rev-parse", "HEAD").strip()
    for line in (page, editor):
        assert line["commit"] == head and line["adapter"] is None and line["completion_tokens"] > 0


def test_embeddings_are_counted_noted_and_limited(workspace: Workspace) -> None:
    server = workspace.settings.server.model_copy(update={"requests_per_minute": 2})
    workspace.settings = workspace.settings.model_copy(update={"server": server})
    client, ada = connected(app_of(workspace)), token_of(workspace)
    asked = {"model": workspace.settings.encoder.name, "input": [f"{SECRET} pays", "couriers"]}
    answers = [client.post("/v1/embeddings", json=asked, headers=ada) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[2].headers["retry-after"]) > 0
    read = answers[0].json()["usage"]["prompt_tokens"]
    first, second, refused = noted(workspace)
    for line in (first, second):
        assert (line["name"], line["texts"], line["prompt_tokens"], line["status"]) == ("Ada", 2, read, 200)
        assert line["adapter"] is None and line["commit"] is None and "completion_tokens" not in line
    assert refused["status"] == 429 and "texts" not in refused
    seen = figures(client)
    assert seen["inhouse_tokens_total", "embedded"] == 2 * read
    assert seen["inhouse_embedded_texts_total",] == 4
    assert seen["inhouse_requests_total", "/v1/embeddings", "POST", "429"] == 1


def test_completions_are_counted_limited_and_noted_together(
    filled: tuple[Workspace, Filler], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, filler = filled
    filler.middle = f"{SECRET}, pennies"
    app, ada = app_of(workspace), token_of(workspace)
    with connected(app) as client, client.websocket_connect(LSP, headers=ada) as session:
        open_at_home(session)
        found = [request(session, number, METHOD, at_the_cursor()) for number in (2, 3, 4)]
        assert [SECRET in json.dumps(each["result"]) for each in found] == [True] * 3
        by_itself = request(session, 5, METHOD, at_the_cursor(AUTOMATIC))
        assert by_itself["result"] is None, "nobody asked, so nobody is told"
        told = request(session, 6, METHOD, at_the_cursor())
        assert "asked too much" in told["error"]["message"]
        assert len(filler.asked) == 3, "the model was asked no more"
        assert "empty" in request(session, 7, "inhouse/ask", {"question": " "})["error"]["message"], (
            "typing uses up no questions"
        )
        seen = figures(client)
        assert seen["inhouse_requests_total", METHOD, "LSP", "200"] == 3
        assert seen["inhouse_requests_total", METHOD, "LSP", "429"] == 2
        assert seen["inhouse_request_seconds_count", METHOD] == 5
        assert seen["inhouse_tokens_total", "inline prompt"] == 30
        assert seen["inhouse_tokens_total", "inline completion"] == 12
        assert METHOD not in [line["route"] for line in noted(workspace)], "they wait for more of their like"
    made, refused = (line for line in noted(workspace) if line["route"] == METHOD)
    assert (made["name"], made["scope"], made["method"], made["status"]) == ("Ada", "ask", "LSP", 200)
    assert (made["count"], made["prompt_tokens"], made["completion_tokens"]) == (3, 30, 12)
    assert (made["adapter"], made["commit"]) == ("v1", None)
    assert datetime.fromisoformat(made["since"]) <= datetime.fromisoformat(made["at"])
    assert (refused["status"], refused["count"]) == (429, 2)


def test_a_completion_that_a_key_stroke_ended_is_noted_with_what_it_cost(
    filled: tuple[Workspace, Filler], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, filler = filled
    monkeypatch.setattr("inhouse_server.access.audit.TOGETHER_S", 0.05)
    filler.waits = True
    with connected(app_of(workspace)) as client, client.websocket_connect(LSP, headers=token_of(workspace)) as session:
        open_at_home(session)
        session.send_json({"jsonrpc": "2.0", "id": 2, "method": METHOD, "params": at_the_cursor()})
        assert filler.begun.wait(10)
        session.send_json({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 2}})
        while session.receive_json().get("id") != 2:
            pass
        assert filler.ended.wait(10)
        while not [line for line in noted(workspace) if line["route"] == METHOD]:
            pass  # after a while, and not only when the owner ends
    (ended,) = (line for line in noted(workspace) if line["route"] == METHOD)
    assert (ended["status"], ended["count"], ended["prompt_tokens"]) == (499, 1, 10)


async def test_only_what_is_alike_is_noted_together(tmp_path: Path) -> None:
    audit = Audit(tmp_path)
    eve = Caller("e", "Eve", frozenset({Scope.ASK}), OWNER_CALLER.within)
    for caller, adapter in ((OWNER_CALLER, "v1"), (eve, "v1"), (OWNER_CALLER, "v2"), (OWNER_CALLER, "v1")):
        work = Work("completion", adapter, None, 5, 2)
        audit.request(Handled(caller, "LSP", METHOD, 200, 0.25, "", "ask", work, by_itself=True))
    audit.close()
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    counted = [(line["name"], line["adapter"], line["count"], line["ms"], line["prompt_tokens"]) for line in lines]
    assert counted == [("owner", "v1", 2, 500.0, 10), ("Eve", "v1", 1, 250.0, 5), ("owner", "v2", 1, 250.0, 5)]


def open_at_home(session: Any) -> None:
    """An editor of the team whose checkout lies at home."""
    elsewhere = {"inhouseCheckout": {"rootUri": "file:///home/ada", "answersUri": "file:///a", "commit": None}}
    request(session, 1, "initialize", {"capabilities": {}, "initializationOptions": elsewhere})
    document = {"uri": "file:///home/ada/billing.py", "languageId": "python", "version": 1}
    opened = {"textDocument": document | {"text": f"total = charge_customer()  # {SECRET}\n"}}
    session.send_json({"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": opened})


def at_the_cursor(kind: int = INVOKED) -> dict[str, Any]:
    return {
        "textDocument": {"uri": "file:///home/ada/billing.py"},
        "position": {"line": 0, "character": 24},
        "context": {"triggerKind": kind},
    }


def request(session: Any, identifier: int, method: str, params: Any) -> dict[str, Any]:
    """The answer of the language server."""
    session.send_json({"jsonrpc": "2.0", "id": identifier, "method": method, "params": params})
    while (told := session.receive_json()).get("id") != identifier or "method" in told:
        pass
    return dict(told)
