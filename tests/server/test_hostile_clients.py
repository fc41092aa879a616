"""Clients that mean harm: each is refused within its limit, and meanwhile everybody else is answered as before."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from inhouse_server.workspace import Workspace

from .conftest import make_repository
from .listening import AUTHORISED, TOKEN, Served, listening
from .speaker import speaking

HEAD = f"Host: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
POSTS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/inhouse/search",
    "/inhouse/ask",
    "/inhouse/passage",
    "/inhouse/uses",
    "/inhouse/review",
    "/inhouse/feedback",
    "/mcp",
)
OTHERS_WAIT_S = 4.0
"""How long anybody else may wait while this goes on; on an idle machine it is a few milliseconds."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = make_repository(tmp_path_factory.mktemp("besieged") / "shop")
    with speaking() as speaker:
        url = f"http://127.0.0.1:{speaker.server_port}/v1"
        (root / "inhouse.toml").write_text(f'[engine]\nkind = "openai"\nurl = "{url}"\nmodel = "speaker"\n')
        with Workspace.open(root, "test") as workspace, listening(workspace) as running:
            yield running


@contextmanager
def others_unaffected(served: Served) -> Iterator[None]:
    """Fails when anybody else, who asks all the while, is refused or waits."""
    longest, asked, stop = 0.0, 0, threading.Event()
    wrong: list[object] = []

    def ask() -> None:
        nonlocal longest, asked
        with httpx.Client(headers=AUTHORISED, timeout=30) as client:
            while not stop.is_set() or not asked:
                started = time.perf_counter()
                answer = client.get(f"{served.url}/v1/models")
                longest = max(longest, time.perf_counter() - started)
                asked += 1
                if answer.status_code != 200:
                    wrong.append(answer.status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        stop.set()
        asking.join(60)
    assert not wrong and asked and longest < OTHERS_WAIT_S, (wrong, asked, longest)


def raw(served: Served, *pieces: bytes, timeout: float = 20) -> bytes:
    """What comes back for bytes that are sent as they are; a reset counts as the end."""
    received = b""
    with socket.create_connection(("127.0.0.1", served.port), timeout=timeout) as peer:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for piece in pieces:
                peer.sendall(piece)
        with contextlib.suppress(ConnectionResetError):
            while data := peer.recv(1 << 16):
                received += data
    return received


def test_a_body_of_a_gigabyte_is_refused_unread(served: Served) -> None:
    with others_unaffected(served):
        announced = f"POST /inhouse/ask HTTP/1.1\r\n{HEAD}Content-Length: {2**30}\r\nConnection: close\r\n\r\n"
        assert b" 413 " in raw(served, announced.encode()).split(b"\r\n")[0]
        for length in ("-1", "1e9", "9" * 400, "٣"):
            bent = f"POST /inhouse/ask HTTP/1.1\r\n{HEAD}Content-Length: {length}\r\nConnection: close\r\n\r\n"
            assert raw(served, bent.encode()).split(b" ")[1] in (b"400", b"413"), length


def test_a_chunked_body_without_end_is_cut_off(served: Served) -> None:
    head = f"POST /inhouse/ask HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    sent = 0
    with (
        others_unaffected(served),
        socket.create_connection(("127.0.0.1", served.port), timeout=20) as peer,
        contextlib.suppress(ConnectionResetError, BrokenPipeError),
    ):
        peer.sendall(head.encode())
        for _ in range(2**30 // len(chunk)):
            peer.sendall(chunk)
            sent += len(chunk)
    assert sent < 32 * 2**20, "most of the gigabyte was never taken"


@pytest.mark.parametrize("token", [TOKEN, "wrong"])
def test_ten_thousand_headers_and_endless_ones_are_refused(served: Served, token: str) -> None:
    start = f"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
    with others_unaffected(served):
        small = "".join(f"a{number}:\r\n" for number in range(2000))
        assert b" 431 " in raw(served, (start + small + "\r\n").encode()).split(b"\r\n")[0]
        for many in ("".join(f"x-{number}: yes\r\n" for number in range(10_000)), f"x: {'y' * 2**20}\r\n"):
            answer = raw(served, (start + many + "\r\n").encode())
            assert answer == b"" or answer.split(b" ")[1] in (b"400", b"431")
        assert raw(served, f"GET /{'a' * 2**20} HTTP/1.1\r\n{HEAD}\r\n".encode()).split(b" ")[1:2] in ([b"400"], [])


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("nest", ["[" * 100_000, '{"a":' * 100_000, '{"messages":' + "[" * 50_000 + "]" * 50_000 + "}"])
def test_deep_json_is_refused(served: Served, path: str, nest: str) -> None:
    headers = {**AUTHORISED, "Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    with others_unaffected(served):
        answer = httpx.post(f"{served.url}{path}", content=nest, headers=headers, timeout=30)
    assert answer.status_code == 400, answer.text[:300]


def test_deep_json_of_an_editor_is_answered_and_the_session_goes_on(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        others_unaffected(served),
        connect(f"ws://127.0.0.1:{served.port}/lsp", additional_headers=AUTHORISED) as editor,
    ):
        for nest in ("[" * 200_000, '{"jsonrpc":"2.0","id":1,"method":' + "[" * 500_000):
            editor.send(nest)
            assert json.loads(editor.recv(20))["error"]["code"] == -32700
        editor.send(json.dumps({"jsonrpc": "2.0", "id": 2, "method": "initialize", "params": {"capabilities": {}}}))
        assert json.loads(editor.recv(20))["result"]["capabilities"]
        # Found by fuzzing: the answer to nothing, under an id that cannot be looked up.
        for identifier in ([1], {"a": 1}):
            cancel = {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": identifier}}
            editor.send(json.dumps(cancel))
            editor.send(json.dumps({"jsonrpc": "2.0", "id": identifier, "result": 1}))
        editor.send(json.dumps({"jsonrpc": "2.0", "id": 3, "method": "no/such/method"}))
        assert json.loads(editor.recv(20))["id"] == 3
    assert "Traceback" not in caplog.text


def test_a_message_of_an_editor_that_is_too_long_costs_that_connection_alone(served: Served) -> None:
    with (
        others_unaffected(served),
        pytest.raises(ConnectionClosed) as closed,
        connect(f"ws://127.0.0.1:{served.port}/lsp", additional_headers=AUTHORISED) as editor,
    ):
        editor.send("x" * (17 * 2**20))
        editor.recv(20)
    assert closed.value.rcvd is None or closed.value.rcvd.code == 1009


def test_slow_senders_are_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inhouse_server.http_api.guard.BODY_TIMEOUT_S", 0.3)
    head = f"POST /inhouse/ask HTTP/1.1\r\n{HEAD}Content-Length: 1000\r\nConnection: close\r\n\r\n"
    with others_unaffected(served):
        answer = raw(served, head.encode(), b'{"question":')
    assert b" 408 " in answer.split(b"\r\n")[0] and b"request_timeout" in answer


@pytest.mark.parametrize("ending", ["then silence", "byte by byte", "the rest, then silence", "without end"])
def test_who_is_answered_before_its_body_is_whole_does_not_stay(
    served: Served, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inhouse_server.listening.REST_TIMEOUT_S", 30 if ending == "without end" else 0.5)
    monkeypatch.setattr(served.server.config, "timeout_keep_alive", 0.5)
    length = 2**30 if ending == "without end" else 1000
    with others_unaffected(served), contextlib.ExitStack() as peers:
        strangers = [peers.enter_context(socket.create_connection(("127.0.0.1", served.port), 20)) for _ in range(20)]
        for stranger in strangers:
            stranger.sendall(
                f"POST /inhouse/ask HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n".encode()
            )
        for stranger in strangers:
            assert b" 401 " in stranger.recv(1 << 16).split(b"\r\n")[0]
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                if ending == "without end":
                    for _ in range(32):
                        stranger.sendall(b"x" * 2**20)
                else:
                    stranger.sendall(b"x" * (1000 if ending.startswith("the rest") else 1))
        deadline = time.monotonic() + 4
        while strangers and time.monotonic() < deadline:
            strangers = [stranger for stranger in strangers if not ended(stranger)]
            if ending == "byte by byte":
                for stranger in strangers:
                    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                        stranger.sendall(b"x")
            time.sleep(0.1)
        assert not strangers


def ended(peer: socket.socket) -> bool:
    """Whether the server has ended the connection, from which everything was read."""
    peer.setblocking(False)
    try:
        return peer.recv(1 << 16) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        peer.settimeout(20)


def test_a_slow_sender_that_would_keep_its_connection_is_ended_too(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inhouse_server.http_api.guard.BODY_TIMEOUT_S", 0.3)
    monkeypatch.setattr("inhouse_server.listening.REST_TIMEOUT_S", 0.5)
    with (
        others_unaffected(served),
        socket.create_connection(("127.0.0.1", served.port), timeout=20) as peer,
    ):
        peer.sendall(f"POST /inhouse/ask HTTP/1.1\r\n{HEAD}Content-Length: 1000\r\n\r\n".encode() + b'{"question":')
        assert b" 408 " in peer.recv(1 << 16).split(b"\r\n")[0]
        peer.sendall(b" ")
        deadline = time.monotonic() + 4
        while not (over := ended(peer)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert over


def test_a_body_that_comes_after_its_answer_costs_its_sender_nothing(served: Served) -> None:
    """Neither the answer to it nor the connection."""
    head, length = f"POST /inhouse/ask HTTP/1.1\r\n{HEAD}Content-Length: 8000000\r\n\r\n".encode(), 8_000_000
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as peer:
        for sent_first in (1000, length - 10):
            peer.sendall(head + b"x" * sent_first)
            assert b" 413 " in read_until(peer, b"}}").split(b"\r\n")[0]
            peer.sendall(b"x" * (length - sent_first) + b"GET /v1/mod")
            time.sleep(0.1)
            peer.sendall(f"els HTTP/1.1\r\n{HEAD}\r\n".encode())
            assert b" 200 " in read_until(peer, b"]}").split(b"\r\n")[0]


def read_until(peer: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        received += (piece := peer.recv(1 << 16))
        assert piece, received
    return received


def test_a_client_that_leaves_within_its_body_is_no_error(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    for path in POSTS:
        head = f"POST {path} HTTP/1.1\r\n{HEAD}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as peer:
            peer.sendall(head.encode() + b'{"question":')
    deadline = time.monotonic() + 30
    while served.server.server_state.tasks and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not served.server.server_state.tasks
    assert httpx.get(f"{served.url}/v1/models", headers=AUTHORISED).status_code == 200
    assert "Traceback" not in caplog.text


def test_what_is_not_http_after_a_request_costs_that_connection_alone(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with others_unaffected(served):
        for path in ("/healthz", "/v1/models", "/openapi.json"):
            for head in (HEAD, "Host: 127.0.0.1\r\n"):
                answer = raw(served, f"GET {path} HTTP/1.1\r\n{head}\r\nnot HTTP\r\n\r\n".encode())
                assert answer.split(b" ")[1:2] in ([b"200"], [b"400"], [b"401"], [])
    assert "Traceback" not in caplog.text


def test_slow_readers_are_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inhouse_server.listening.SEND_TIMEOUT_S", 0.3)
    request = f"GET /openapi.json HTTP/1.1\r\n{HEAD}\r\n".encode()
    connections = served.server.server_state.connections
    with others_unaffected(served), contextlib.ExitStack() as peers:
        for _ in range(3):
            peer = peers.enter_context(socket.socket())
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.connect(("127.0.0.1", served.port))
            # 20 MB of answers, and nobody who reads them: more than the system takes in between.
            peer.sendall(request * 800)
        deadline = time.monotonic() + 30
        while len(connections) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        while len(connections) > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(connections) <= 1, "only the one that asks all the while is left"


@pytest.mark.parametrize("last", [f"{{get}}{HEAD}\r\n", f"{{get}}{HEAD}Connection: close\r\n\r\n", "not HTTP\r\n\r\n"])
def test_who_leaves_the_last_few_bytes_unread_is_given_up(
    served: Served, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inhouse_server.listening.SEND_TIMEOUT_S", 0.3)
    monkeypatch.setattr(served.server.config, "timeout_keep_alive", 0.3)
    get, connections = "GET /openapi.json HTTP/1.1\r\n", served.server.server_state.connections
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(("127.0.0.1", served.port))
        address = peer.getsockname()

        def unsent() -> int | None:
            """Bytes that the server holds for the peer; ``None`` when the connection is over."""
            mine = [each.transport for each in list(connections)]
            sizes = [one.get_write_buffer_size() for one in mine if one.get_extra_info("peername") == address]
            return sizes[0] if sizes else None

        deadline = time.monotonic() + 30
        while not unsent() and time.monotonic() < deadline:
            peer.sendall(f"{get}{HEAD}\r\n".encode())
            time.sleep(0.01)
        assert 0 < (unsent() or 0) < 2**16, "fewer than make uvicorn wait"
        peer.sendall(last.format(get=get).encode())
        while unsent() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert unsent() is None


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "0177.0.0.1"])
def test_a_name_that_was_rebound_to_this_address_is_refused(served: Served, host: str) -> None:
    for path in ("/healthz", "/v1/models", "/", "/metrics"):
        answer = httpx.get(f"{served.url}{path}", headers={**AUTHORISED, "Host": host})
        assert answer.status_code == 403
    with pytest.raises(Exception, match="403"):
        connect(f"ws://127.0.0.1:{served.port}/lsp", additional_headers={**AUTHORISED, "Origin": f"http://{host}"})


def test_connections_that_only_stay_open_keep_nobody_out(served: Served) -> None:
    with others_unaffected(served), contextlib.ExitStack() as idle:
        for _ in range(200):
            idle.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=10))
        assert httpx.get(f"{served.url}/v1/models", headers=AUTHORISED).status_code == 200


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)*b", "(.*)*x", "((a{1,100}){1,100}){1,100}", "^(([a-z])+.)+[A-Z]([a-z])+$"]
)
def test_a_pattern_that_explodes_is_no_danger(served: Served, pattern: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    body = {
        "model": "base", "messages": [{"role": "user", "content": "a" * 200}], "inhouse": {"retrieve": False},
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    }  # fmt: skip
    with others_unaffected(served):
        answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, headers=AUTHORISED, timeout=30)
    assert answer.status_code in (200, 400)


def test_the_owner_is_as_it_was(served: Served, tmp_path: Path) -> None:
    assert httpx.get(f"{served.url}/inhouse/status", headers=AUTHORISED, timeout=60).status_code == 200
