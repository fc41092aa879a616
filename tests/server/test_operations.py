"""What whoever runs the owner relies on: metrics, logs without credentials, and an end that cuts nobody short."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from inhouse_server.logs import JsonLines, PlainLines, without_credentials
from inhouse_server.owner import find_owner
from inhouse_server.workspace import Workspace

from .conftest import make_repository
from .listening import AUTHORISED, TOKEN, Served, listening
from .speaker import Speaker, speaking


@pytest.fixture(scope="module")
def speaker() -> Iterator[Speaker]:
    with speaking() as running:
        yield running


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, speaker: Speaker) -> Iterator[Workspace]:
    root = make_repository(tmp_path_factory.mktemp("operated") / "shop")
    url = f"http://127.0.0.1:{speaker.server_port}/v1"
    (root / "inhouse.toml").write_text(f'[engine]\nkind = "openai"\nurl = "{url}"\nmodel = "speaker"\n')
    with Workspace.open(root, "test") as held:
        yield held


def ask(served: Served, question: str, **more: Any) -> Any:
    """An open answer."""
    body = {
        "model": "base", "messages": [{"role": "user", "content": question}], "stream": True,
        "inhouse": {"retrieve": False}, **more,
    }  # fmt: skip
    return httpx.stream("POST", f"{served.url}/v1/chat/completions", json=body, headers=AUTHORISED, timeout=30)


def figures(served: Served) -> dict[tuple[str, ...], float]:
    """Samples by name and label values."""
    answer = httpx.get(f"{served.url}/metrics", headers=AUTHORISED)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.text)
    names = ("route", "method", "status", "reason", "kind", "le")
    return {
        (sample.name, *(sample.labels[name] for name in names if name in sample.labels)): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_count_requests_answers_and_tokens_and_quote_nobody(workspace: Workspace) -> None:
    with listening(workspace) as served:
        with ask(served, "When do couriers come?") as answer:
            assert "[DONE]" in answer.read().decode()
        httpx.get(f"{served.url}/no/such/secret-path", headers=AUTHORISED)
        httpx.request("SECRETMETHOD", f"{served.url}/v1/models", headers=AUTHORISED)
        httpx.get(f"{served.url}/v1/models")
        seen = figures(served)
        assert seen["inhouse_requests_total", "/v1/chat/completions", "POST", "200"] == 1
        assert seen["inhouse_requests_total", "unknown", "GET", "404"] == 1
        assert seen["inhouse_requests_total", "/v1/models", "other", "405"] == 1
        assert seen["inhouse_requests_total", "/v1/models", "GET", "401"] == 1
        assert seen["inhouse_answers_total", "stop"] == 1
        assert seen["inhouse_tokens_total", "completion"] > 0
        assert seen["inhouse_first_token_seconds_count",] == 1
        assert seen["inhouse_answering",] == 1, "this request itself"
        assert seen["process_resident_memory_bytes",] > 0
        text = httpx.get(f"{served.url}/metrics", headers=AUTHORISED).text
        assert "secret" not in text.lower() and "courier" not in text


def test_answers_in_flight_end_while_new_requests_are_refused(workspace: Workspace, speaker: Speaker) -> None:
    speaker.finish.clear()
    with listening(workspace, drain_s=30) as served, ask(served, "Speak without end", max_tokens=4000) as answer:
        lines = answer.iter_lines()
        next(lines)
        served.loop.call_soon_threadsafe(served.server.drain)
        while (health := httpx.get(f"{served.url}/healthz")).status_code == 200:
            pass
        assert health.json()["status"] == "stopping"
        refused = httpx.get(f"{served.url}/v1/models", headers=AUTHORISED)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
        assert int(refused.headers["retry-after"]) > 0
        with pytest.raises(InvalidStatus, match="503"):
            connect(f"ws://127.0.0.1:{served.port}/lsp", additional_headers=AUTHORISED)
        speaker.finish.set()
        rest = list(lines)
        assert any("That is all." in line for line in rest) and rest[-2:] == ["data: [DONE]", ""]
        served.thread.join(10)
        assert not served.thread.is_alive()


def test_an_answer_without_end_is_cut_at_the_limit(workspace: Workspace, speaker: Speaker) -> None:
    speaker.finish.clear()
    with listening(workspace, drain_s=0.3) as served, ask(served, "Speak without end", max_tokens=4000) as answer:
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(3)][-1].startswith("data: "), "the opening, and a first word"
        served.loop.call_soon_threadsafe(served.server.drain)
        served.thread.join(15)
        assert not served.thread.is_alive()
        assert speaker.left.acquire(timeout=10), "the model was told to stop"


def test_an_idle_editor_does_not_hold_the_end_up(workspace: Workspace) -> None:
    with (
        listening(workspace, drain_s=60) as served,
        connect(f"ws://127.0.0.1:{served.port}/lsp", additional_headers=AUTHORISED),
    ):
        served.loop.call_soon_threadsafe(served.server.drain)
        served.thread.join(15)
        assert not served.thread.is_alive()


def test_an_owner_that_is_stopping_is_not_found(workspace: Workspace, tmp_path: Path) -> None:
    with listening(workspace) as served:
        state = tmp_path
        (state / "token").write_text(TOKEN)
        pid = httpx.get(f"{served.url}/healthz").json()["pid"]
        (state / "owner.json").write_text(json.dumps({"url": served.url, "pid": pid}))
        assert find_owner(state) is not None
        served.app.state.activity.draining = True
        assert find_owner(state) is None


@pytest.mark.parametrize(
    "text",
    [
        f"> Authorization: Bearer {TOKEN}",
        f"< authorization: bearer {TOKEN}",
        f"headers=[(b'Authorization', b'Bearer {TOKEN}'), (b'Accept', b'*/*')]",
        f"GET /?token={TOKEN} HTTP/1.1",
        f"Cookie: a=b; inhouse-8470={TOKEN}; c=d",
        f"{{'api_key': '{TOKEN}', 'model': 'x'}}",
        "inhouse_0123456789ab_" + "a1B2c3D4e5F" * 4,
    ],
)
def test_no_log_line_holds_a_credential(text: str) -> None:
    written = without_credentials(text)
    assert TOKEN not in written and "a1B2c3D4" not in written and "[removed]" in written
    record = logging.LogRecord("websockets.client", logging.DEBUG, "", 0, "%s", (text,), None)
    for form in (PlainLines(), JsonLines()):
        assert TOKEN not in form.format(record)


def test_json_lines_hold_the_message_and_the_traceback() -> None:
    try:
        raise ValueError(f"Bearer {TOKEN} is wrong")
    except ValueError as error:
        record = logging.LogRecord("a.b", logging.ERROR, "", 0, "it %s\nand more", ("failed",), None)
        record.exc_info = (type(error), error, error.__traceback__)
    line = JsonLines().format(record)
    told = json.loads(line)
    assert "\n" not in line and TOKEN not in line
    assert (told["level"], told["logger"], told["message"]) == ("error", "a.b", "it failed\nand more")
    assert "ValueError" in told["error"]


def test_a_connection_that_stays_silent_is_closed(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inhouse_server.listening.HEAD_TIMEOUT_S", 0.3)
    with listening(workspace) as served:
        for whole, half in (
            (b"", b""),
            (b"", b"GET / HT"),
            (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /he"),
        ):
            with socket.create_connection(("127.0.0.1", served.port), timeout=4) as slow:
                if whole:
                    slow.sendall(whole)
                    assert slow.recv(4096).startswith(b"HTTP/1.1 200")
                slow.sendall(half)
                with contextlib.suppress(ConnectionResetError):
                    while slow.recv(4096):
                        pass
        assert httpx.get(f"{served.url}/healthz").status_code == 200
