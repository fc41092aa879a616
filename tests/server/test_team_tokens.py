"""A team's tokens: what each opens on every route, when they end, what is written down, and that nothing else leaks."""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from inhouse_retrieval import EVERYWHERE, Within
from inhouse_retrieval.errors import InhouseError
from inhouse_server.access import Audit, Handled, RequestLimits, Scope, TokenStore
from inhouse_server.cli import main
from inhouse_server.http_api import build_app
from inhouse_server.http_api.routes import ACCESS
from inhouse_server.workspace import Workspace

from .conftest import make_repository
from .speaker import Speaker, speaking

OWNER_TOKEN = "the-owners-own-token-of-some-letters"
PORT = 8470
ADDRESS = f"http://127.0.0.1:{PORT}"
LSP = f"ws://127.0.0.1:{PORT}/lsp"
DAY = timedelta(days=1)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    root = make_repository(tmp_path / "team")
    (root / "inhouse.toml").write_text("[server]\nrequests_per_minute = 1000\n")
    with Workspace.open(root, "test") as held:
        yield held


@pytest.fixture
def store(workspace: Workspace) -> TokenStore:
    return TokenStore(workspace.state_dir / "tokens.json")


@pytest.fixture
def app(workspace: Workspace) -> Starlette:
    return build_app(workspace, OWNER_TOKEN, "127.0.0.1", PORT)


@pytest.fixture
def client(app: Starlette) -> TestClient:
    return TestClient(app, ADDRESS, follow_redirects=False, raise_server_exceptions=False)


def bearer(token: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **more}


def audit_lines(workspace: Workspace) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workspace.state_dir / "audit.jsonl").read_text().splitlines()]


_opened: list[str] | None = None
"""Paths that were opened and programs that were started, while somebody listens."""


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event in ("open", "os.listdir", "os.scandir", "sqlite3.connect", "subprocess.Popen"):
        _opened.append(str(arguments[0]))


sys.addaudithook(_hear)


@contextmanager
def reaching_nothing(workspace: Workspace) -> Iterator[None]:
    """Fails when the block opens the model, the index, or a file of the repository other than tokens and audit log."""
    global _opened
    _opened = []
    try:
        yield
        reached = [path for path in _opened if str(workspace.root) in path or path.endswith("git")]
    finally:
        _opened = None
    assert {Path(path).name for path in reached} <= {"tokens.json", "audit.jsonl"}
    assert workspace._index is None and workspace._engine is None


def requests_of(route: BaseRoute) -> list[tuple[str, str]]:
    """Method and path of every request that a route takes."""
    assert isinstance(route, Route | WebSocketRoute), f"{route} hides routes that the table does not name"
    path = route.path.replace("{name}", "chat.js")
    if isinstance(route, WebSocketRoute):
        return [("WEBSOCKET", path)]
    return [(method, path) for method in sorted(route.methods or {"GET", "POST", "DELETE"})]


def answer(client: TestClient, method: str, path: str, headers: dict[str, str]) -> int:
    """The status of an answer; a WebSocket that is refused counts as what it is closed with, less 1000."""
    if method != "WEBSOCKET":
        return int(client.request(method, path, headers=headers, content=b"").status_code)
    try:
        with client.websocket_connect(f"ws://127.0.0.1:{PORT}{path}", headers=headers):
            return 101
    except WebSocketDisconnect as refused:
        return int(refused.code) - 1000


def request(session: Any, identifier: int, method: str, params: Any) -> dict[str, Any]:
    """The answer of the language server."""
    session.send_json({"jsonrpc": "2.0", "id": identifier, "method": method, "params": params})
    return answer_to(session, identifier)


def answer_to(session: Any, identifier: int) -> dict[str, Any]:
    while (told := session.receive_json()).get("id") != identifier or "method" in told:
        pass
    return dict(told)


def test_every_route_is_in_the_table_once_and_nothing_else_is(app: Starlette) -> None:
    paths = [getattr(route, "path", repr(route)) for route in app.routes]
    assert sorted(paths) == sorted(ACCESS)
    assert all(requests_of(route) for route in app.routes)


def test_a_route_that_the_table_forgot_is_opened_by_no_token(app: Starlette, client: TestClient) -> None:
    app.router.routes.append(Route("/new", lambda request: PlainTextResponse("secret")))
    assert client.get("/new").status_code == 401
    refused = client.get("/new", headers=bearer(OWNER_TOKEN))
    assert refused.status_code == 403 and "secret" not in refused.text
    app.router.mount("/hidden", Starlette(routes=[Route("/x", lambda request: PlainTextResponse("secret"))]))
    assert client.get("/hidden/x", headers=bearer(OWNER_TOKEN)).status_code == 403


def test_strangers_and_wrong_scopes_reach_no_model_no_index_no_file(
    workspace: Workspace, app: Starlette, client: TestClient, store: TokenStore
) -> None:
    expired, _ = store.create("expired", [Scope.ADMIN], timedelta())
    revoked, gone = store.create("revoked", [Scope.ADMIN], DAY)
    store.revoke(gone.id)
    valid, _ = store.create("valid", [Scope.ADMIN], DAY)
    strangers = [{}, bearer(""), bearer("wrong"), bearer(expired), bearer(revoked), bearer(valid + "x")]
    strangers += [bearer(valid[:-1]), {"Authorization": f"Basic {valid}"}, bearer("é" * 9)]
    scoped = {scope: store.create(scope.value, [scope], DAY)[0] for scope in Scope}
    tried = 0
    with reaching_nothing(workspace):
        for route in app.routes:
            access = ACCESS[getattr(route, "path", "")]
            if access.scope is None:
                continue
            wrong = [scope for scope in Scope if scope not in (access.scope, Scope.ADMIN)]
            for method, path in requests_of(route):
                for headers in strangers:
                    encoded = {name: value.encode() for name, value in headers.items()}
                    assert answer(client, method, path, encoded) in (401, 8), (method, path, headers)
                for scope in wrong:
                    assert answer(client, method, path, bearer(scoped[scope])) in (403, 8), (method, path, scope)
                    tried += 1
    assert tried > 40
    assert client.get("/healthz").json().keys() == {"status", "pid"}


@pytest.mark.parametrize("path", ["/%2e%2e/inhouse/status", "//inhouse/status", "/inhouse/status/", "/INHOUSE/STATUS"])
def test_another_spelling_of_a_path_opens_nothing(client: TestClient, store: TokenStore, path: str) -> None:
    text, _ = store.create("metrics only", [Scope.METRICS], DAY)
    assert client.get(path).status_code == 401
    assert client.get(path, headers=bearer(text)).status_code in (403, 404)


def test_a_token_opens_what_its_scopes_name(client: TestClient, store: TokenStore) -> None:
    ask, _ = store.create("Ada", [Scope.ASK], DAY)
    assert client.get("/v1/models", headers=bearer(ask)).status_code == 200
    assert client.get("/inhouse/status", headers=bearer(ask)).status_code == 200
    assert client.post("/inhouse/review", headers=bearer(ask), json={}).status_code == 403
    admin, _ = store.create("Grace", [Scope.ADMIN], DAY)
    assert client.get("/v1/models", headers=bearer(admin)).status_code == 200
    assert client.post("/inhouse/feedback", headers=bearer(admin), json={}).status_code == 400
    assert client.post("/inhouse/shutdown", headers=bearer(admin)).status_code == 200


def test_a_token_is_shown_once_and_kept_as_a_hash(workspace: Workspace, store: TokenStore) -> None:
    text, token = store.create("Ada", [Scope.ASK], DAY)
    path = workspace.state_dir / "tokens.json"
    assert path.stat().st_mode & 0o777 == 0o600
    secret = text.removeprefix(f"inhouse_{token.id}_")
    assert len(secret) == 43 and secret not in path.read_text()
    assert store.find(text) == token.caller()


def test_a_change_by_another_process_holds_at_once(client: TestClient, store: TokenStore, workspace: Workspace) -> None:
    elsewhere = TokenStore(workspace.state_dir / "tokens.json")
    text, _ = elsewhere.create("Ada", [Scope.ASK], DAY)
    assert client.get("/v1/models", headers=bearer(text)).status_code == 200
    elsewhere.revoke("Ada")
    assert client.get("/v1/models", headers=bearer(text)).status_code == 401
    assert [each.state(datetime.now(UTC)) for each in elsewhere.all()] == ["revoked"]


def test_a_token_ends_when_it_expires(store: TokenStore) -> None:
    _, token = store.create("Ada", [Scope.ASK], DAY)
    assert token.expires is not None
    assert token.state(token.expires - timedelta(seconds=1)) == "valid"
    assert token.state(token.expires) == "expired"


def test_a_file_that_others_may_read_lets_nobody_in(
    client: TestClient, store: TokenStore, workspace: Workspace
) -> None:
    text, _ = store.create("Ada", [Scope.ASK], DAY)
    path = workspace.state_dir / "tokens.json"
    path.chmod(0o640)
    assert client.get("/v1/models", headers=bearer(text)).status_code == 401
    with pytest.raises(InhouseError, match="chmod 600"):
        build_app(workspace, OWNER_TOKEN, "127.0.0.1", PORT)
    path.chmod(0o600)
    path.write_text("{}")
    assert client.get("/v1/models", headers=bearer(text)).status_code == 401
    assert client.get("/v1/models", headers=bearer(OWNER_TOKEN)).status_code == 200, "the owner is not locked out"


@pytest.mark.parametrize("name", ["", " Ada", "x" * 65, "a\nb", "a/b", "\x1b[31m"])
def test_a_name_is_plain_and_short(store: TokenStore, name: str) -> None:
    with pytest.raises(InhouseError, match="cannot name"):
        store.create(name, [Scope.ASK], DAY)


def test_limits_hold_for_each_token_by_itself(workspace: Workspace, store: TokenStore) -> None:
    server = workspace.settings.server.model_copy(update={"requests_per_minute": 3})
    workspace.settings = workspace.settings.model_copy(update={"server": server})
    client = TestClient(build_app(workspace, OWNER_TOKEN, "127.0.0.1", PORT), ADDRESS)
    ada, _ = store.create("Ada", [Scope.ASK], DAY)
    grace, _ = store.create("Grace", [Scope.ASK], DAY)
    assert [client.get("/v1/models", headers=bearer(ada)).status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = client.get("/v1/models", headers=bearer(ada))
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert client.get("/v1/models", headers=bearer(grace)).status_code == 200
    assert all(client.get("/v1/models", headers=bearer(OWNER_TOKEN)).status_code == 200 for _ in range(9))


def test_a_bucket_refills_with_time_and_no_further_than_full() -> None:
    now = 0.0
    limits = RequestLimits(60, 2, lambda: now)
    assert [limits.take("a") for _ in range(60)] == [0.0] * 60
    assert limits.take("a") == pytest.approx(1)
    now = 0.5
    assert limits.take("a") == pytest.approx(0.5)
    now = 1.0
    assert limits.take("a") == 0
    now = 1e6
    assert sum(limits.take("a") == 0 for _ in range(100)) == 60
    limits.begin("a")
    assert not limits.is_full("a")
    limits.begin("a")
    assert limits.is_full("a") and not limits.is_full("b")
    limits.end("a")
    assert not limits.is_full("a")


def test_the_audit_log_says_who_what_when_and_how_it_ended_and_no_more(
    workspace: Workspace, client: TestClient, store: TokenStore
) -> None:
    text, token = store.create("Ada", [Scope.ASK], DAY)
    question = "why-does-the-harbour-freeze"
    client.post("/inhouse/ask", headers=bearer(text), json={"question": question, "adapter": "none"})
    client.get(f"/no/{question}?token={text}", headers=bearer(text))
    client.get("/", params={"token": text})
    client.post("/inhouse/index", headers=bearer(text))
    client.get("/v1/models", headers=bearer("wrong-token-given"))
    asked, unknown, page, refused, stranger = audit_lines(workspace)
    assert (asked["token"], asked["name"], asked["route"], asked["status"]) == (token.id, "Ada", "/inhouse/ask", 200)
    assert asked.keys() == {"at", "token", "name", "scope", "from", "method", "repository", "route", "status", "ms"}
    assert datetime.fromisoformat(asked["at"]).tzinfo is not None
    assert (unknown["route"], unknown["status"]) == ("unknown", 404)
    assert (page["token"], page["status"]) == (token.id, 303)
    assert (refused["name"], refused["route"], refused["status"]) == ("Ada", "/inhouse/index", 403)
    assert (stranger["token"], stranger["status"]) == (None, 401)
    log = workspace.state_dir / "audit.jsonl"
    written = log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    assert not any(word in written for word in (question, text, OWNER_TOKEN, "wrong-token-given"))


def test_a_full_audit_log_is_set_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    audit = Audit(tmp_path, max_bytes=1000)
    handled = Handled(TokenStore(tmp_path / "t").create("Ada", [Scope.ASK], DAY)[1].caller(), "GET", "/", 200, 0, "")
    for _ in range(100):
        audit.request(handled)
    files = sorted(path.name for path in tmp_path.glob("audit.jsonl*"))
    assert set(files) >= {f"audit.jsonl.{number}" for number in range(1, 6)} and "audit.jsonl.6" not in files
    assert all(json.loads(line) for path in tmp_path.glob("audit.jsonl*") for line in path.read_text().splitlines())


def test_strangers_cannot_flood_the_audit_log(workspace: Workspace, client: TestClient) -> None:
    for _ in range(80):
        client.get("/v1/models")
    assert 60 <= len(audit_lines(workspace)) < 70


def test_an_audit_log_that_cannot_be_written_is_said_and_stops_nobody(
    workspace: Workspace, client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    (workspace.state_dir / "audit.jsonl").mkdir()
    assert client.get("/v1/models", headers=bearer(OWNER_TOKEN)).status_code == 200
    assert "audit log" in caplog.text


def test_a_member_s_browser_has_the_member_s_scopes_and_ends_with_the_token(
    workspace: Workspace, client: TestClient, store: TokenStore
) -> None:
    text, token = store.create("Ada", [Scope.ASK], DAY)
    welcome = client.get("/", params={"token": text})
    assert welcome.status_code == 303 and text not in welcome.headers["set-cookie"]
    page = {"X-Inhouse": "1"}
    assert client.get("/").status_code == 200
    assert client.get("/inhouse/status", headers=page).status_code == 200
    assert audit_lines(workspace)[-1]["name"] == "Ada"
    store.revoke(token.id)
    assert client.get("/").status_code == 401
    assert client.get("/inhouse/status", headers=page).status_code == 401


def test_a_token_that_may_not_ask_opens_no_page(client: TestClient, store: TokenStore) -> None:
    text, _ = store.create("scraper", [Scope.METRICS], DAY)
    refused = client.get("/", params={"token": text})
    assert refused.status_code == 403 and "set-cookie" not in refused.headers


def test_a_link_on_another_site_signs_nobody_in(client: TestClient, store: TokenStore) -> None:
    text, _ = store.create("Mallory", [Scope.ASK], DAY)
    for site, status in (("cross-site", 401), ("same-site", 401), ("none", 303), ("same-origin", 303)):
        assert client.get("/", params={"token": text}, headers={"Sec-Fetch-Site": site}).status_code == status


@pytest.mark.parametrize(
    "bend",
    [
        lambda name, value: (name, value.replace("owner", "other")),
        lambda name, value: (name, value.replace(value.split(".")[1], "99999999999")),
        lambda name, value: (name, value[:-1] + ("0" if value[-1] != "0" else "1")),
        lambda name, value: (f"inhouse-{PORT + 1}", value),
    ],
)
def test_a_bent_cookie_opens_nothing(client: TestClient, bend: Callable[[str, str], tuple[str, str]]) -> None:
    client.get("/", params={"token": OWNER_TOKEN})
    ((name, value),) = client.cookies.items()
    assert client.get("/").status_code == 200
    client.cookies.clear()
    bent_name, bent = bend(name, value)
    assert client.get("/", headers={"Cookie": f"{bent_name}={bent}"}).status_code == 401
    assert client.get("/", headers={"Cookie": f"{name}={value}"}).status_code == 200


def test_a_cookie_of_another_port_or_another_owner_is_none_of_this_one(
    workspace: Workspace, client: TestClient
) -> None:
    client.get("/", params={"token": OWNER_TOKEN})
    ((_, value),) = client.cookies.items()
    for token, port in ((OWNER_TOKEN, PORT + 1), ("another-owner", PORT)):
        other = TestClient(build_app(workspace, token, "127.0.0.1", port), f"http://127.0.0.1:{port}")
        assert other.get("/", headers={"Cookie": f"inhouse-{port}={value}"}).status_code == 401


def test_a_cookie_ends_by_itself(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.get("/", params={"token": OWNER_TOKEN})
    assert client.get("/").status_code == 200
    ((_, value),) = client.cookies.items()
    ends = int(value.split(".")[1])
    monkeypatch.setattr("inhouse_server.http_api.browser.time.time", lambda: float(ends))
    assert client.get("/").status_code == 401


def test_over_tls_the_cookie_is_secure_and_of_this_host_alone(workspace: Workspace) -> None:
    app = build_app(workspace, OWNER_TOKEN, "127.0.0.1", PORT, secure=True)
    client = TestClient(app, f"https://127.0.0.1:{PORT}", follow_redirects=False)
    cookie = client.get("/", params={"token": OWNER_TOKEN}).headers["set-cookie"]
    name, *attributes = cookie.split("; ")
    assert name.startswith(f"__Host-inhouse-{PORT}=") and {"Secure", "HttpOnly", "Path=/"} <= set(attributes)
    page = {"X-Inhouse": "1", "Cookie": name}
    assert client.get("/inhouse/status", headers=page | {"Origin": f"https://127.0.0.1:{PORT}"}).status_code == 200
    assert client.get("/inhouse/status", headers=page | {"Origin": f"http://127.0.0.1:{PORT}"}).status_code == 403


def test_an_editor_of_the_team_cannot_name_files_of_the_server(
    workspace: Workspace, client: TestClient, store: TokenStore
) -> None:
    text, _ = store.create("Ada", [Scope.ASK], DAY)
    secret = workspace.state_dir / "token"
    secret.write_text(OWNER_TOKEN)

    with reaching_nothing(workspace), client.websocket_connect(LSP, headers=bearer(text)) as session:
        refused = request(session, 1, "initialize", {"capabilities": {}, "rootUri": workspace.root.as_uri()})
        assert "checkout" in refused["error"]["message"]
        # Whoever goes on all the same names no file either.
        for number, uri in enumerate([secret.as_uri(), (workspace.root / "billing.py").as_uri()], start=2):
            place = {"textDocument": {"uri": uri}, "position": {"line": 4, "character": 6}}
            assert not request(session, number, "textDocument/hover", place).get("result")
        session.send_json(
            {"jsonrpc": "2.0", "method": "textDocument/didSave", "params": {"textDocument": {"uri": uri}}}
        )
        request(session, 9, "shutdown", None)


def test_questions_of_an_editor_are_counted_and_noted(workspace: Workspace, store: TokenStore) -> None:
    server = workspace.settings.server.model_copy(update={"requests_per_minute": 2})
    workspace.settings = workspace.settings.model_copy(update={"server": server})
    client = TestClient(build_app(workspace, OWNER_TOKEN, "127.0.0.1", PORT), ADDRESS)
    text, _ = store.create("Ada", [Scope.ASK], DAY)
    elsewhere = {"inhouseCheckout": {"rootUri": "file:///home/ada", "answersUri": "file:///a", "commit": None}}
    with client.websocket_connect(LSP, headers=bearer(text)) as session:
        request(session, 1, "initialize", {"capabilities": {}, "initializationOptions": elsewhere})
        empty = [request(session, number, "inhouse/ask", {"question": " "}) for number in (2, 3)]
    assert "empty" in empty[0]["error"]["message"], "let through, and found to ask nothing"
    assert "asked too much" in empty[1]["error"]["message"]
    noted = [(line["name"], line["method"], line["route"], line["status"]) for line in audit_lines(workspace)]
    assert noted[1:3] == [("Ada", "LSP", "inhouse/ask", 400), ("Ada", "LSP", "inhouse/ask", 429)]


def test_a_token_has_so_many_requests_open_and_no_more(tmp_path: Path) -> None:
    """Whether they come over HTTP or over an editor's connection, which counts as one while nothing is asked there."""
    asked, at_home = {"question": "Speak without end."}, {"inhouseCheckout": AT_HOME}
    with spoken_for(tmp_path / "team", "requests_at_once = 3") as (workspace, client, speaker):
        store = TokenStore(workspace.state_dir / "tokens.json")
        ada, grace = (bearer(store.create(name, [Scope.ASK], DAY)[0]) for name in ("Ada", "Grace"))
        with client.websocket_connect(LSP, headers=ada) as session, client.websocket_connect(LSP, headers=ada) as other:
            for number, each in enumerate((session, other)):
                request(each, number, "initialize", {"capabilities": {}, "initializationOptions": at_home})
            for number in (11, 12):
                session.send_json({"jsonrpc": "2.0", "id": number, "method": "inhouse/ask", "params": asked})
            until(lambda: len(speaker.asked) == 2)
            session.send_json({"jsonrpc": "2.0", "id": 13, "method": "inhouse/ask", "params": asked})
            until(lambda: [line["status"] for line in audit_lines(workspace) if line["method"] == "LSP"] == [429])
            assert "too many requests open" in answer_to(session, 13)["error"]["message"]
            over_http = client.get("/v1/models", headers=ada)
            assert over_http.status_code == 429 and int(over_http.headers["retry-after"]) >= 1
            assert over_http.json()["error"]["code"] == "rate_limit_exceeded"
            assert client.get("/v1/models", headers=grace).status_code == 200, "each token by itself"
            other.send_json({"jsonrpc": "2.0", "id": 21, "method": "inhouse/ask", "params": asked})
            until(lambda: len(speaker.asked) == 3)  # in the place of its own connection
            session.send_json({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 12}})
            until(lambda: client.get("/v1/models", headers=ada).status_code == 200)
            assert "noon" in request(session, 14, "inhouse/ask", {"question": "When?"})["result"]["answer"]
            speaker.finish.set()
    noted = [(line["method"], line["status"]) for line in audit_lines(workspace) if line["name"] == "Ada"]
    assert noted.count(("LSP", 429)) == 1 and ("GET", 429) in noted


AT_HOME = {"rootUri": "file:///home/ada", "answersUri": "file:///a", "commit": None}


@contextmanager
def spoken_for(root: Path, limits: str) -> Iterator[tuple[Workspace, TestClient, Speaker]]:
    """A repository at ``root`` with these ``limits``, and a client of it, whose model is a script."""
    make_repository(root)
    with speaking() as speaker:
        engine = f'[engine]\nkind = "openai"\nurl = "http://127.0.0.1:{speaker.server_port}/v1"\nmodel = "speaker"\n'
        (root / "inhouse.toml").write_text(f"{engine}[server]\nrequests_per_minute = 1000\n{limits}\n")
        with (
            Workspace.open(root, "test") as held,
            TestClient(build_app(held, OWNER_TOKEN, "127.0.0.1", PORT), ADDRESS) as client,
        ):
            yield held, client, speaker


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_where_the_repository_and_its_servers_are_is_told_to_who_runs_them(
    workspace: Workspace, store: TokenStore, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = {
        "url": "http://gpu.internal:8000", "up": False, "problem": "http://gpu.internal:8000 does not answer.",
        "ready": ["v1"], "not_telling": [], "failed": {"v2": "http://gpu.internal:8000 refused it."}, "answering": 0,
    }  # fmt: skip
    fleet = {"serving": "v1", "waiting": "v2", "servers": [server]}
    monkeypatch.setattr(workspace, "model_servers", lambda: copy.deepcopy(fleet))
    part = Within.of(["billing.py"])
    admin, ada, bound = (
        store.create(name, [scope], DAY, within)[0]
        for name, scope, within in (
            ("Root", Scope.ADMIN, EVERYWHERE),
            ("Ada", Scope.ASK, EVERYWHERE),
            ("Bo", Scope.ASK, part),
        )
    )
    for token, everything in ((OWNER_TOKEN, True), (admin, True), (ada, False), (bound, False)):
        over_http = client.get("/inhouse/status", headers=bearer(token)).json()
        with client.websocket_connect(LSP, headers=bearer(token)) as session:
            options = {"inhouseCheckout": AT_HOME}
            request(session, 1, "initialize", {"capabilities": {}, "initializationOptions": options})
            in_the_editor = request(session, 2, "inhouse/status", {})["result"]
        for told in (over_http, in_the_editor):
            assert told["serving"] == "v1" and told["servers"][0]["ready"] == ["v1"]
            if everything:
                assert told["root"] == str(workspace.root) and told["servers"] == [server]
            else:
                assert "root" not in told
                assert "gpu.internal" not in json.dumps(told) and str(workspace.root) not in json.dumps(told)


def test_a_revoked_token_s_editor_is_sent_away(client: TestClient, store: TokenStore) -> None:
    text, token = store.create("Ada", [Scope.ASK], DAY)
    with (
        pytest.raises(WebSocketDisconnect) as ended,
        client.websocket_connect(LSP, headers=bearer(text)) as session,
    ):
        store.revoke(token.id)
        session.receive_json()
    assert ended.value.code == 1008 and "not valid any more" in ended.value.reason


def test_the_command_makes_lists_and_revokes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_repository(tmp_path / "shop")
    (root / "inhouse.toml").write_text('[server]\ntokens = "../team.json"\n')
    repo = ["--repo", str(root)]

    def run(*arguments: str) -> Any:
        assert main([*arguments, *repo, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    made = run("token", "create", "Ada", "--scope", "ask", "--scope", "review", "--expires", "12h")
    assert (tmp_path / "team.json").stat().st_mode & 0o777 == 0o600
    assert made["scopes"] == ["ask", "review"]
    caller = TokenStore(tmp_path / "team.json").find(made["token"])
    assert caller is not None and caller.name == "Ada"
    (listed,) = run("token", "list")
    assert (listed["name"], listed["state"]) == ("Ada", "valid") and "sha256" not in listed
    assert main(["token", "create", "Ada", *repo]) == 1, "the name is taken"
    assert main(["token", "create", "Bob", "--scope", "everything", *repo]) == 2
    assert main(["token", "create", "Bob", "--expires", "soon", *repo]) == 2
    assert run("token", "revoke", "Ada") == {"revoked": [made["id"]]}
    assert main(["token", "revoke", "Ada", *repo]) == 1
    acts = [json.loads(line) for line in (root / ".inhouse" / "audit.jsonl").read_text().splitlines()]
    assert [(act["act"], act["name"]) for act in acts] == [("token create", "Ada"), ("token revoke", "Ada")]
    assert made["token"] not in (root / ".inhouse" / "audit.jsonl").read_text()
