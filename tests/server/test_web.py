"""The chat page over HTTP: how a browser signs in, what its cookie opens, what is refused, what is kept."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from inhouse_server.http_api import build_app
from inhouse_server.workspace import Workspace
from inhouse_training import AdapterManifest, Registry

TOKEN = "a-token-of-43-letters"
PORT = 8470
OWNER = f"http://127.0.0.1:{PORT}"
PAGE = {"X-Inhouse": "1"}
PROVENANCE = {"base_model": "SmolLM2-135M-Instruct", "adapter": None, "index_commit": "0" * 40, "pending": 0}
FEEDBACK: dict[str, Any] = {"question": "When do couriers come?", "provenance": PROVENANCE, "verdict": "useful"}


@pytest.fixture(scope="module")
def workspace(shop: Path) -> Iterator[Workspace]:
    with Workspace.open(shop, "test") as held:
        yield held


@pytest.fixture
def stranger(workspace: Workspace) -> TestClient:
    """A browser that knows neither the token nor the cookie."""
    app = build_app(workspace, TOKEN, "127.0.0.1", PORT)
    return TestClient(app, OWNER, follow_redirects=False, raise_server_exceptions=False)


@pytest.fixture
def browser(stranger: TestClient) -> TestClient:
    """A browser that opened the address with the token."""
    assert stranger.get("/", params={"token": TOKEN}).status_code == 303
    return stranger


def test_the_address_with_the_token_leads_to_the_page_without_it(stranger: TestClient) -> None:
    welcome = stranger.get("/", params={"token": TOKEN})
    assert (welcome.status_code, welcome.headers["location"]) == (303, "/")
    name, *attributes = welcome.headers["set-cookie"].split("; ")
    assert name.startswith(f"inhouse-{PORT}=") and TOKEN not in name
    assert {"HttpOnly", "SameSite=strict", "Path=/"} == set(attributes), "a session cookie, for no script"
    page = stranger.get("/")
    assert page.status_code == 200 and "<title>inhouse</title>" in page.text


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?token=%ff%00", "?Token=" + TOKEN])
def test_without_token_or_cookie_a_browser_is_told_what_to_do(stranger: TestClient, query: str) -> None:
    refused = stranger.get(f"/{query}")
    assert refused.status_code == 401
    assert refused.headers["content-type"].startswith("text/html")
    assert "set-cookie" not in refused.headers
    assert "inhouse serve" in refused.text


@pytest.mark.parametrize("cookie", ["", "wrong", TOKEN, "é"])
def test_a_wrong_cookie_opens_nothing(stranger: TestClient, cookie: str) -> None:
    headers = {"Cookie": f"inhouse-{PORT}={cookie}".encode(), **{k: v.encode() for k, v in PAGE.items()}}
    for path in ("/", "/web/chat.js", "/inhouse/status"):
        assert stranger.get(path, headers=headers).status_code == 401


def test_nobody_has_a_cookie_signed_by_asking_whether_the_owner_lives(stranger: TestClient) -> None:
    """``/healthz`` signs what a stranger chooses, with the token that cookies are made from."""
    _, _, signed = stranger.get("/", params={"token": TOKEN}).cookies[f"inhouse-{PORT}"].rpartition(".")
    stranger.cookies.clear()
    expires = str(int(time.time()) + 3600)
    for nonce in (f"browser:{PORT}:owner:{expires}", f"owner.{expires}", f"owner:{expires}", expires):
        forged = stranger.get("/healthz", params={"nonce": nonce}).json()["proof"]
        assert len(forged) == len(signed), "what could stand in a cookie"
        cookie = {"Cookie": f"inhouse-{PORT}=owner.{expires}.{forged}"}
        assert stranger.get("/inhouse/status", headers=PAGE | cookie).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/"), ("GET", "/web/chat.js"), ("GET", "/inhouse/status"), ("GET", "/v1/models"), ("GET", "/mcp")],
)
def test_a_token_in_the_address_opens_the_page_alone(stranger: TestClient, method: str, path: str) -> None:
    refused = stranger.request(method, path, params={"token": TOKEN})
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"


def test_the_page_and_its_files_load_nothing_from_elsewhere(browser: TestClient) -> None:
    page = browser.get("/").text
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(files) == 4
    for path in ("/", *files, "/web/markdown.js", "/web/owner.js", "/web/status.js"):
        answer = browser.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|style=|<script>", answer.text)


@pytest.mark.parametrize(
    "path",
    ["/web/../feedback.py", "/web/..%2ffeedback.py", "/web/%2e%2e/feedback.py", "/web//etc/passwd", "/web/", "/web/x"],
)
def test_only_the_page_s_own_files_are_served(browser: TestClient, path: str) -> None:
    assert browser.get(path, headers=PAGE).status_code in (401, 404)


def test_the_page_may_ask_with_its_header_and_with_nothing_less(browser: TestClient) -> None:
    for path in ("/inhouse/status", "/inhouse/adapters"):
        assert browser.get(path).status_code == 401
        assert browser.get(path, headers={"X-Inhouse": "0"}).status_code == 401
        assert browser.get(path, headers=PAGE).status_code == 200
    for path in ("/inhouse/ask", "/inhouse/feedback"):
        assert browser.post(path, json={}).status_code == 401
        assert browser.post(path, json={}, headers=PAGE).status_code == 400, "let in, and found to be empty"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/inhouse/shutdown"),
        ("POST", "/inhouse/index"),
        ("POST", "/inhouse/search"),
        ("POST", "/inhouse/passage"),
        ("POST", "/inhouse/uses"),
        ("POST", "/inhouse/review"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("POST", "/mcp"),
        ("GET", "/lsp"),
        ("POST", "/"),
        ("GET", "/inhouse/feedback"),
        ("GET", "/no/such/route"),
    ],
)
def test_the_cookie_opens_nothing_that_the_page_does_not_use(browser: TestClient, method: str, path: str) -> None:
    assert browser.request(method, path, headers=PAGE).status_code == 401


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:9999", "http://localhost:8470", "http://127.0.0.1", "https://evil.example", "null"]
)
def test_pages_of_another_origin_are_refused(browser: TestClient, origin: str) -> None:
    headers = {**PAGE, "Origin": origin}
    assert browser.post("/inhouse/feedback", json=FEEDBACK, headers=headers).status_code in (401, 403)
    preflight = browser.options(
        "/inhouse/feedback", headers={"Origin": origin, "Access-Control-Request-Headers": "x-inhouse"}
    )
    assert preflight.status_code in (401, 403)
    assert not [name for name in preflight.headers if name.startswith("access-control")]


def of_origin(server: TestClient, host: str, origin: str) -> int:
    """The status of a request with the token, for ``host``, by a page of ``origin``."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Host": host, "Origin": origin}
    return server.get("/v1/models", headers=headers).status_code


def test_an_origin_is_scheme_host_and_port_whoever_has_the_token(workspace: Workspace, stranger: TestClient) -> None:
    for origin in (OWNER, OWNER.upper()):
        assert of_origin(stranger, f"127.0.0.1:{PORT}", origin) == 200
    for other in (f"https://127.0.0.1:{PORT}", "http://127.0.0.1:3000", "http://127.0.0.1", f"http://localhost:{PORT}"):
        assert of_origin(stranger, f"127.0.0.1:{PORT}", other) == 403
    # The port that a scheme implies is named by neither.
    assert of_origin(stranger, "localhost", "http://localhost") == 200
    assert of_origin(stranger, "localhost", "http://localhost:80") == 200
    assert of_origin(stranger, "localhost", "http://localhost:443") == 403
    for odd in ("null", "", "http://", "//127.0.0.1", f"{OWNER}/", f"file://127.0.0.1:{PORT}"):
        assert of_origin(stranger, f"127.0.0.1:{PORT}", odd) == 403


def test_a_proxy_that_ends_tls_passes_the_host_on_that_the_browser_named(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = workspace.settings.server.model_copy(update={"allowed_hosts": ["inhouse.example"]})
    monkeypatch.setattr(workspace, "settings", workspace.settings.model_copy(update={"server": server}))
    proxied = TestClient(build_app(workspace, TOKEN, "127.0.0.1", PORT, secure=True), OWNER)
    assert of_origin(proxied, "inhouse.example", "https://inhouse.example") == 200
    assert of_origin(proxied, "inhouse.example:8443", "https://inhouse.example:8443") == 200
    for other in ("http://inhouse.example", "https://inhouse.example:8443", "https://sub.inhouse.example"):
        assert of_origin(proxied, "inhouse.example", other) == 403
    assert of_origin(proxied, f"127.0.0.1:{PORT}", OWNER) == 200, "on the proxy's machine, past it"


def test_another_host_name_is_refused_with_the_token_too(browser: TestClient) -> None:
    rebound = browser.get("/", params={"token": TOKEN}, headers={"Host": f"evil.example:{PORT}"})
    assert rebound.status_code == 403 and "set-cookie" not in rebound.headers


def test_a_socket_is_not_opened_by_the_cookie(browser: TestClient) -> None:
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        browser.websocket_connect(f"ws://127.0.0.1:{PORT}/lsp", headers={**PAGE, "Cookie": cookie}),
    ):
        pass
    assert refused.value.code == 1008 and "bearer token" in refused.value.reason


def test_a_verdict_is_kept_without_secrets(browser: TestClient, workspace: Workspace) -> None:
    secret = "ghp_" + "a1B2c3D4" * 4 + "e5F6"
    said = {**FEEDBACK, "verdict": "not useful", "note": f"It repeats {secret}."}
    headers = {**PAGE, "Origin": OWNER}
    assert browser.post("/inhouse/feedback", json=said, headers=headers).json() == {"kept": True}
    assert browser.post("/inhouse/feedback", json=FEEDBACK, headers=PAGE).json() == {"kept": True}
    path = workspace.state_dir / "feedback.jsonl"
    first, second = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert path.stat().st_mode & 0o777 == 0o600
    assert first["provenance"] == PROVENANCE and first["verdict"] == "not useful"
    assert "It repeats" in first["note"] and secret not in first["note"]
    assert second.keys() == {"question", "verdict", "note", "provenance", "at"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"verdict": "great"},
        {"question": ""},
        {"question": "why " * 3000},
        {"note": "x" * 2001},
        {"provenance": {**PROVENANCE, "base_model": "x" * 201}},
        {"provenance": {**PROVENANCE, "pending": -1}},
        {"answer": "more"},
    ],
)
def test_a_verdict_of_another_shape_is_refused(
    browser: TestClient, workspace: Workspace, wrong: dict[str, Any]
) -> None:
    kept = workspace.state_dir / "feedback.jsonl"
    before = kept.read_bytes() if kept.exists() else b""
    refused = browser.post("/inhouse/feedback", json={**FEEDBACK, **wrong}, headers=PAGE)
    assert refused.status_code == 400 and refused.json()["error"]["message"]
    assert (kept.read_bytes() if kept.exists() else b"") == before


def test_a_verdict_that_cannot_be_kept_says_so(browser: TestClient, workspace: Workspace) -> None:
    kept = workspace.state_dir / "feedback.jsonl"
    kept.unlink(missing_ok=True)
    kept.mkdir()
    try:
        refused = browser.post("/inhouse/feedback", json=FEEDBACK, headers=PAGE)
    finally:
        kept.rmdir()
    assert refused.status_code == 400
    assert "cannot be kept" in refused.json()["error"]["message"]


def test_adapters_are_told_with_their_gain_and_which_is_current(
    browser: TestClient, workspace: Workspace, tmp_path: Path
) -> None:
    assert browser.get("/inhouse/adapters", headers=PAGE).json() == {"adapters": []}
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    (tmp_path / "adapter_config.json").write_text("{}")
    gain = {"over_base": {"mean": 0.5, "low": 0.4, "high": 0.6}}
    registry = Registry(workspace.registry.root)
    added = registry.add(tmp_path, AdapterManifest("SmolLM2-135M-Instruct", "0", "f" * 40, metrics={"gain": gain}))
    registry.promote(added.version)
    (told,) = browser.get("/inhouse/adapters", headers=PAGE).json()["adapters"]
    assert told["version"] == added.version and told["current"] is True
    assert told["metrics"]["gain"] == gain
