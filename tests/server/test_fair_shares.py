"""Callers share the engine of this process, on every surface: who asks much waits for itself and crowds nobody out."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from starlette.testclient import TestClient

from inhouse_server.access import Scope, TokenStore
from inhouse_server.admission import Place
from inhouse_server.http_api import build_app
from inhouse_server.workspace import Workspace
from inhouse_training import GenerationEvent, GenerationRequest, load_tokenizer, resolve_base_model

from ..training.conftest import make_tiny
from .conftest import git, make_repository
from .listening import Served, listening
from .test_parts_of_a_repository import Echo

DAY = timedelta(days=1)
PATIENCE_S = 300
"""For what takes a second on a machine with nothing else to do."""
TOKENS, ENDLESS = 12, 1900
EAGER = 24
OF_LIMITS = "[server]\nrequests_per_minute = 0\nrequests_at_once = 0\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = load_tokenizer(resolve_base_model())
    return make_tiny(tmp_path_factory.mktemp("model") / "tiny", tokenizer, initializer_range=0.2)


class House:
    """A served repository, and a token of each of its callers."""

    def __init__(self, workspace: Workspace, served: Served) -> None:
        self._url = served.url
        self._workspace = workspace
        store = TokenStore(workspace.state_dir / "tokens.json")
        made = {who: store.create(who, [Scope.ASK], DAY) for who in ("eager", "modest", "other")}
        self._tokens = {who: text for who, (text, _) in made.items()}
        self.ids = {who: token.id for who, (_, token) in made.items()}
        self._client = httpx.Client(timeout=PATIENCE_S, limits=httpx.Limits(max_connections=None))

    def asked(self, who: str, tokens: int = TOKENS, **more: Any) -> dict[str, Any]:
        """What httpx sends."""
        body = {"model": "base", "messages": [{"role": "user", "content": "When do couriers come?"}], **more}
        headers = {"Authorization": f"Bearer {self._tokens[who]}"}
        return {
            "method": "POST", "url": f"{self._url}/v1/chat/completions", "json": body | {"max_tokens": tokens},
            "headers": headers, "timeout": PATIENCE_S,
        }  # fmt: skip

    def asked_by_the_page(self, who: str) -> dict[str, Any]:
        """The same by the route of the page and the command line."""
        body = {"question": "When do couriers come?", "adapter": "base", "max_tokens": TOKENS}
        return self.asked(who) | {"url": f"{self._url}/inhouse/ask", "json": body}

    def ask(self, who: str, tokens: int = TOKENS, **more: Any) -> httpx.Response:
        return self._client.request(**self.asked(who, tokens, **more))

    @contextmanager
    def answering_without_end(self, who: str, answers: int) -> Iterator[None]:
        """So many answers of a caller are being made."""
        with ThreadPoolExecutor(answers) as pool:
            over = Event()
            begun = [Event() for _ in range(answers)]

            def read(began: Event) -> None:
                with self._client.stream(**self.asked(who, ENDLESS, stream=True)) as answer:
                    for line in answer.iter_lines():
                        if '"content": "' in line and '"content": ""' not in line:
                            began.set()
                        if over.is_set():
                            return

            reading = [pool.submit(read, each) for each in begun]
            try:
                assert all(each.wait(PATIENCE_S) for each in begun)
                yield
            finally:
                over.set()
            for each in reading:
                each.result(PATIENCE_S)

    def wait_for_inside(self, count: int) -> None:
        """Until so many answers are being made or wait."""
        _wait_for(lambda: len(self._workspace._admission._places), count)

    def wait_for_waiting(self, count: int) -> None:
        """Until so many of them wait at the engine."""
        engine: Any = self._workspace._engine
        together = hasattr(engine, "_scheduler")
        _wait_for(lambda: engine._scheduler.waiting if together else len(engine._turn._queue), count)


def _wait_for(counted: Callable[[], int], count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (found := counted()) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.001)


@contextmanager
def house(root: Path, model: Path, batched: str, waiting: int, weights: str = "auto") -> Iterator[House]:
    make_repository(root)
    (root / "inhouse.toml").write_text(
        f"base_model = '{model}'\n[answer]\npassages = 0\n"
        f"[engine]\nbatched = '{batched}'\nweights = '{weights}'\nwaiting = {waiting}\n{OF_LIMITS}"
    )
    with Workspace.open(root, "test") as workspace, listening(workspace) as served:
        workspace.engine()
        yield House(workspace, served)


@pytest.mark.parametrize(
    ("weights", "batched", "at_once"), [("full", "off", 1), ("full", "on", 8), ("8bit", "off", 1), ("8bit", "on", 8)]
)
def test_one_question_waits_for_one_answer_of_another_token_however_many_that_asked(
    tmp_path: Path, model: Path, weights: str, batched: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[str] = []
    begin = Place.begin

    def recorded(place: Place) -> None:
        began.append(place.caller)
        begin(place)

    with house(tmp_path / "shop", model, batched, 64, weights) as served, ThreadPoolExecutor(EAGER + 1) as pool:
        with served.answering_without_end("other", at_once):
            monkeypatch.setattr(Place, "begin", recorded)
            asked = [pool.submit(served.ask, "eager") for _ in range(EAGER)]
            served.wait_for_waiting(EAGER)
            asked.append(pool.submit(served.ask, "modest"))
            served.wait_for_waiting(EAGER + 1)
            assert began == []
        assert {each.result(PATIENCE_S).status_code for each in asked} == {200}
    modest, eager = served.ids["modest"], served.ids["eager"]
    assert began[:3] == [eager, modest, eager] and began.count(eager) == EAGER


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_room_refuses_the_caller_with_the_most_waiting(tmp_path: Path, model: Path, stream: bool) -> None:
    with house(tmp_path / "shop", model, "off", 2) as served, ThreadPoolExecutor(4) as pool:
        with served.answering_without_end("eager", 1):
            waiting: list[Future[httpx.Response]] = []
            for inside in (2, 3):
                waiting.append(pool.submit(served.ask, "eager", stream=stream))
                served.wait_for_inside(inside)
            modest = pool.submit(served.ask, "modest", stream=stream)
            refused = waiting[1].result(PATIENCE_S)
            assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
            assert "most of the questions that wait are yours" in refused.json()["error"]["message"]
            assert served.ask("eager").status_code == 429, "and it has no room for more"
            assert not modest.done() and not waiting[0].done()
        for answered in (modest, waiting[0]):
            assert answered.result(PATIENCE_S).status_code == 200
        served.wait_for_inside(0)


@pytest.mark.parametrize(("batched", "stream"), [("off", False), ("off", True), ("on", True)])
def test_a_client_that_leaves_while_it_waits_frees_its_place_at_once(
    tmp_path: Path, model: Path, batched: str, stream: bool
) -> None:
    at_once = 8 if batched == "on" else 1
    with house(tmp_path / "shop", model, batched, 1) as served, served.answering_without_end("eager", at_once):
        asked = served.asked("eager", stream=stream)
        leaving = asyncio.run(_left_after(asked, lambda: served.wait_for_inside(at_once + 1)))
        served.wait_for_inside(at_once)
        assert time.monotonic() - leaving < 1.5, "not only when its turn came, or a first byte was sent"


def test_a_reader_of_the_page_who_leaves_while_it_waits_frees_its_place_at_once(tmp_path: Path, model: Path) -> None:
    with house(tmp_path / "shop", model, "off", 1) as served, served.answering_without_end("eager", 1):
        leaving = asyncio.run(_left_after(served.asked_by_the_page("eager"), lambda: served.wait_for_inside(2)))
        served.wait_for_inside(1)
        assert time.monotonic() - leaving < 1.5


async def _left_after(asked: dict[str, Any], waits: Any) -> float:
    """When a client hung up that asked and waited."""
    async with httpx.AsyncClient() as client:
        asking = asyncio.create_task(client.request(**asked))
        await asyncio.to_thread(waits)
        assert not asking.done()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    return time.monotonic()


class Noting(Echo):
    """Knows who asked."""

    def __init__(self) -> None:
        super().__init__()
        self.callers: list[str] = []

    def stream(self, request: GenerationRequest, cancel: threading.Event) -> Iterator[GenerationEvent]:
        self.callers.append(request.caller)
        return super().stream(request, cancel)


async def test_every_surface_says_whose_question_it_is(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "shop")
    (root / "inhouse.toml").write_text(f"[review]\nreading = true\n{OF_LIMITS}")
    (root / "billing.py").write_text((root / "billing.py").read_text() + "\n\nVAT = 19\n")
    git(root, "add", "--all")
    chat = {"model": "inhouse", "messages": [{"role": "user", "content": "When?"}]}
    review = {"staged": True}
    with Workspace.open(root, "test") as workspace, listening(workspace) as served:
        engine = workspace._engine = Noting()
        workspace.refresh()
        store = TokenStore(workspace.state_dir / "tokens.json")
        text, token = store.create("Ada", [Scope.ASK, Scope.REVIEW], DAY)
        headers = {"Authorization": f"Bearer {text}"}
        for route, body in (
            ("/inhouse/ask", {"question": "When?"}),
            ("/v1/chat/completions", chat),
            ("/v1/chat/completions", chat | {"stream": True}),
            ("/v1/completions", {"model": "inhouse", "prompt": "When?"}),
            ("/inhouse/review", review),
        ):
            answer = httpx.post(f"{served.url}{route}", json=body, headers=headers, timeout=60)
            assert answer.status_code == 200 and _said(engine) == {token.id}, route
        with httpx.Client(base_url=served.url, timeout=60) as browser:
            browser.get("/", params={"token": text})
            browser.post("/inhouse/ask", json={"question": "When?"}, headers={"X-Inhouse": "1"})
            assert _said(engine) == {token.id}, "the page"
        async with (
            create_mcp_http_client(headers) as http,
            Client(streamable_http_client(f"{served.url}/mcp", http_client=http)) as tools,
        ):
            for tool, arguments in (("ask", {"question": "When?"}), ("review", review)):
                await asyncio.wait_for(tools.call_tool(tool, arguments), 60)
                assert _said(engine) == {token.id}, tool
        address = f"http://127.0.0.1:{served.port}"
        editors = TestClient(build_app(workspace, "the-owners-own", "127.0.0.1", served.port), address)
        for who, caller in ((text, token.id), ("the-owners-own", "owner")):
            _ask_in_an_editor(editors, served.port, who)
            assert _said(engine) == {caller}, "an editor"


def _said(engine: Noting) -> set[str]:
    """Callers since the last look."""
    said, engine.callers = set(engine.callers), []
    return said


def _ask_in_an_editor(client: TestClient, port: int, token: str) -> None:
    elsewhere = {"inhouseCheckout": {"rootUri": "file:///home/ada", "answersUri": "file:///a", "commit": None}}
    asked = (
        ("initialize", {"capabilities": {}, "initializationOptions": elsewhere}),
        ("inhouse/ask", {"question": "When?"}),
        ("workspace/executeCommand", {"command": "inhouse.ask", "arguments": ["When?"]}),
    )
    with client.websocket_connect(
        f"ws://127.0.0.1:{port}/lsp", headers={"Authorization": f"Bearer {token}"}
    ) as session:
        for number, (method, params) in enumerate(asked):
            session.send_text(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
            while (told := session.receive_json()).get("id") != number or "method" in told:
                pass
            assert "result" in told, told
