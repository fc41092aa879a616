"""The admin page's routes: what is told, who may promote and roll back, and that a cookie changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from inhouse_server.access import Scope, TokenStore
from inhouse_server.http_api import build_app
from inhouse_server.usage import STRANGERS, add_up
from inhouse_server.workspace import Workspace
from inhouse_training import AdapterManifest, Registry

from .conftest import make_repository

TOKEN = "a-token-of-43-letters"
PORT = 8470
ADDRESS = f"http://127.0.0.1:{PORT}"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PAGE = {"X-Inhouse": "1"}
BASE_MODEL = "SmolLM2-135M-Instruct"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(make_repository(tmp_path / "shop"), "test") as held:
        yield held


@pytest.fixture
def client(workspace: Workspace) -> TestClient:
    app = build_app(workspace, TOKEN, "127.0.0.1", PORT)
    return TestClient(app, ADDRESS, follow_redirects=False, raise_server_exceptions=False)


@pytest.fixture
def browser(client: TestClient) -> TestClient:
    """A browser that opened the page's address with the owner's token."""
    welcome = client.get("/admin", params={"token": TOKEN})
    assert (welcome.status_code, welcome.headers["location"]) == (303, "/admin")
    return client


def add(workspace: Workspace, content: bytes, base_model: str = BASE_MODEL, evaluated: bool = True) -> str:
    """A version whose weights are ``content``."""
    folder = workspace.state_dir / f"made-{content.decode()}"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(content)
    (folder / "adapter_config.json").write_text("{}")
    metrics = {"gain": {"over_base": {"mean": 0.5, "low": 0.4, "high": 0.6}}, "gate": ["It is better."]}
    manifest = AdapterManifest(
        base_model, "0", "f" * 40, {"name": "cpu-trial"}, metrics=metrics, evaluated=evaluated, parent=None
    )
    return workspace.registry.add(folder, manifest).version


def add_run(workspace: Workspace, name: str, candidate: str, finished: str, decision: str = "promoted") -> Path:
    """A finished retraining with its report."""
    run = workspace.state_dir / "runs" / name
    run.mkdir(parents=True)
    told = {"candidate": candidate, "decision": decision, "reasons": ["It is better."], "finished": finished}
    (run / "result.json").write_text(json.dumps({**told, "started": "2026-01-01T00:00:00+00:00"}))
    (run / "report.html").write_text(f"<title>{name}</title>")
    (run / "loss.svg").write_text("<svg/>")
    return run


def test_the_page_loads_nothing_from_elsewhere(browser: TestClient) -> None:
    page = browser.get("/admin")
    assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("admin.css", "admin.js", "plots.js", "repositories.js"):
        answer = browser.get(f"/web/{name}")
        assert answer.status_code == 200
        assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "innerHTML" not in answer.text


def test_it_tells_versions_promotions_and_retrainings(browser: TestClient, workspace: Workspace) -> None:
    first, second = add(workspace, b"one"), add(workspace, b"two", evaluated=False)
    add_run(workspace, "older", first, "2026-01-01T02:00:00+00:00")
    add_run(workspace, "newer", second, "2026-01-02T02:00:00+00:00", "rejected")
    workspace.registry.promote(first, "the gate")
    said = {"question": "When?", "verdict": "useful", "provenance": {
        "base_model": BASE_MODEL, "adapter": first, "index_commit": None, "pending": 0}}  # fmt: skip
    for verdict in ("useful", "useful", "not useful"):
        assert browser.post("/inhouse/feedback", json={**said, "verdict": verdict}, headers=PAGE).status_code == 200

    told = browser.get("/inhouse/admin", headers=PAGE).json()
    adapters = {each["version"]: each for each in told["adapters"]}
    assert adapters[first]["current"] and not adapters[second]["current"]
    assert adapters[first]["verdicts"] == {"useful": 2, "not useful": 1} and adapters[second]["verdicts"] == {}
    assert adapters[first]["files"] == ["report.html", "loss.svg"] and adapters[first]["recipe"] == "cpu-trial"
    assert told["base"] == {"base_model": BASE_MODEL, "verdicts": {}}
    assert [(each["version"], each["note"]) for each in told["history"]] == [(first, "the gate")]
    assert [(each["candidate"], each["decision"]) for each in told["retrainings"]] == [
        (second, "rejected"),
        (first, "promoted"),
    ]
    assert told["status"]["adapter"] == first and told["damaged"] == []


def test_a_damaged_version_is_told(browser: TestClient, workspace: Workspace) -> None:
    version = add(workspace, b"one")
    workspace.registry.promote(version)
    (workspace.registry.root / version / "adapter_model.safetensors").write_bytes(b"two")
    (problem,) = browser.get("/inhouse/admin", headers=PAGE).json()["damaged"]
    assert version in problem and "adapter_model.safetensors is not what was added" in problem


def test_a_report_is_shown_and_runs_nothing(browser: TestClient, workspace: Workspace) -> None:
    version = add(workspace, b"one")
    run = add_run(workspace, "run", version, "2026-01-01T02:00:00+00:00")
    report = browser.get(f"/inhouse/adapters/{version}/report.html")
    assert report.text == "<title>run</title>"
    policy = report.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'") and "script" not in policy
    assert browser.get(f"/inhouse/adapters/{version}/loss.svg").headers["content-type"] == "image/svg+xml"
    (run / "secret.txt").write_text("no")
    for name in ("decay.svg", "result.json", "secret.txt", "..%2ftoken", "%2e%2e"):
        assert browser.get(f"/inhouse/adapters/{version}/{name}").status_code in (401, 404)
    assert browser.get("/inhouse/adapters/..%2fruns/report.html").status_code in (401, 404)


def test_a_promotion_says_who_and_a_rollback_goes_back(client: TestClient, workspace: Workspace) -> None:
    first, second = add(workspace, b"one"), add(workspace, b"two", evaluated=False)
    made = client.post("/inhouse/promote", json={"version": first, "seen": None}, headers=BEARER)
    assert made.json() == {"current": first, "warning": ""}
    made = client.post("/inhouse/promote", json={"version": second, "seen": first}, headers=BEARER)
    assert made.json()["current"] == second and "never evaluated" in made.json()["warning"]
    assert client.post("/inhouse/rollback", json={"seen": second}, headers=BEARER).json()["current"] == first
    assert client.post("/inhouse/promote", json={"version": "base", "seen": first}, headers=BEARER).json() == {
        "current": None,
        "warning": "",
    }
    notes = [each.note for each in workspace.registry.history()]
    assert notes[0] == "by hand, with the owner's token"
    assert notes[1] == "by hand, with the owner's token, not evaluated"


def test_who_looked_at_another_version_changes_nothing(client: TestClient, workspace: Workspace) -> None:
    first, second = add(workspace, b"one"), add(workspace, b"two")
    workspace.registry.promote(first)
    for route, body in (
        ("promote", {"version": second, "seen": None}),
        ("promote", {"version": "base", "seen": second}),
        ("rollback", {"seen": None}),
    ):
        refused = client.post(f"/inhouse/{route}", json=body, headers=BEARER)
        assert refused.status_code == 409, route
        assert refused.json()["error"]["message"] == f"{first} became current meanwhile. Look again, then decide."
    assert workspace.registry.current() == first


@pytest.mark.parametrize("version", ["unknown", "../..", "current", ""])
def test_what_is_no_version_is_refused(client: TestClient, workspace: Workspace, version: str) -> None:
    refused = client.post("/inhouse/promote", json={"version": version, "seen": None}, headers=BEARER)
    assert refused.status_code == 400 and refused.json()["error"]["message"]
    assert workspace.registry.current() is None and workspace.registry.history() == ()


def test_a_version_of_another_base_model_or_with_damage_is_refused(client: TestClient, workspace: Workspace) -> None:
    foreign, damaged = add(workspace, b"one", base_model="Another-7B"), add(workspace, b"two")
    (workspace.registry.root / damaged / "adapter_model.safetensors").write_bytes(b"three")
    for version, why in ((foreign, "was made for Another-7B"), (damaged, "is not what was added")):
        refused = client.post("/inhouse/promote", json={"version": version, "seen": None}, headers=BEARER)
        assert refused.status_code == 400 and why in refused.json()["error"]["message"]
    assert workspace.registry.current() is None


def test_the_cookie_alone_changes_nothing(browser: TestClient, workspace: Workspace) -> None:
    """Every port of a host receives its cookies, so a program on another one may have it."""
    version = add(workspace, b"one")
    workspace.registry.promote(version)
    for route, body in (("promote", {"version": "base", "seen": version}), ("rollback", {"seen": version})):
        assert browser.post(f"/inhouse/{route}", json=body, headers=PAGE).status_code == 401
    assert workspace.registry.current() == version
    for route in ("admin", "usage"):
        assert browser.get(f"/inhouse/{route}").status_code == 401, "without the page's header"
        assert browser.get(f"/inhouse/{route}", headers=PAGE).status_code == 200


def test_a_token_to_ask_with_opens_none_of_it(client: TestClient, workspace: Workspace) -> None:
    version = add(workspace, b"one")
    add_run(workspace, "run", version, "2026-01-01T02:00:00+00:00")
    store = TokenStore(workspace.state_dir / "tokens.json")
    text, _ = store.create("asker", (Scope.ASK, Scope.REVIEW, Scope.METRICS), None)
    headers = {"Authorization": f"Bearer {text}"}
    for path in ("/inhouse/admin", "/inhouse/usage", f"/inhouse/adapters/{version}/report.html"):
        assert client.get(path, headers=headers).status_code == 403
    refused = client.post("/inhouse/promote", json={"version": version, "seen": None}, headers=headers)
    assert refused.status_code == 403 and workspace.registry.current() is None
    client.get("/", params={"token": text})
    page = client.get("/admin")
    assert page.status_code == 403 and page.headers["content-type"].startswith("text/html")
    assert "lacks the scope <code>admin</code>" in page.text


def test_an_administrator_of_the_team_is_named_in_the_history(client: TestClient, workspace: Workspace) -> None:
    version = add(workspace, b"one")
    store = TokenStore(workspace.state_dir / "tokens.json")
    text, _ = store.create("ada", (Scope.ADMIN,), None)
    headers = {"Authorization": f"Bearer {text}"}
    assert client.post("/inhouse/promote", json={"version": version, "seen": None}, headers=headers).status_code == 200
    assert [each.note for each in workspace.registry.history()] == ["by hand, with the token 'ada'"]


def test_usage_is_what_the_audit_log_has(browser: TestClient, workspace: Workspace) -> None:
    store = TokenStore(workspace.state_dir / "tokens.json")
    text, token = store.create("ada", (Scope.ASK,), None)
    headers = {"Authorization": f"Bearer {text}"}
    for _ in range(3):
        assert browser.get("/v1/models", headers=headers).status_code == 200
    assert browser.get("/metrics", headers=headers).status_code == 403
    told = browser.get("/inhouse/usage", headers=PAGE).json()
    ada = next(each for each in told["callers"] if each["token"] == token.id)
    assert (ada["name"], ada["requests"], ada["refused"], ada["answers"]) == ("ada", 4, 1, 0)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert len(told["days"]) == 30 and told["days"][-1]["day"] == today and told["since"] == today
    assert told["days"][-1]["requests"] == sum(each["requests"] for each in told["callers"]) >= 5


@pytest.mark.parametrize("days", ["0", "-1", "367", "ten", "1e2", "9999999999999999999999", "٣"])
def test_a_number_of_days_that_is_none_is_refused(client: TestClient, days: str) -> None:
    refused = client.get("/inhouse/usage", params={"days": days}, headers=BEARER)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "days"


def line(at: str, **more: Any) -> dict[str, Any]:
    """A line of the audit log."""
    return {"at": at, "token": "t1", "name": "ada", "repository": None, "status": 200, **more}


def test_usage_is_added_up_by_day_and_by_token() -> None:
    worked = {"prompt_tokens": 100, "completion_tokens": 10}
    lines = [
        {"at": "2026-03-01T00:00:00.000+00:00", "act": "create", "token": "t1", "name": "ada", "user": 0},
        line("2026-03-01T23:59:59.999+00:00", **worked),
        line("2026-03-09T10:00:00.000+00:00", **worked),
        line("2026-03-10T10:00:00.000+00:00", **worked, count=7, since="2026-03-10T09:59:00.000+00:00"),
        line("2026-03-10T10:00:01.000+00:00", prompt_tokens=50, texts=2),
        line("2026-03-10T10:00:02.000+00:00", status=101),
        line("2026-03-10T10:00:03.000+00:00", token=None, name=None, status=401),
        line("2026-03-10T10:00:04.000+00:00", repository="till", **worked),
    ]
    told = add_up(lines, 2, lambda name: name is None, datetime(2026, 3, 10, 12, tzinfo=UTC))
    assert told["since"] == "2026-03-01", "as far as the log reaches, whatever is asked for"
    assert [(each["day"], each["requests"], each["answers"]) for each in told["days"]] == [
        ("2026-03-09", 1, 1),
        ("2026-03-10", 2, 0),
    ]
    ada, stranger = told["callers"]
    assert (ada["requests"], ada["answers"], ada["completions"], ada["refused"]) == (2, 1, 7, 0)
    assert (ada["prompt_tokens"], ada["completion_tokens"]) == (250, 20)
    assert ada["last"] == "2026-03-10T10:00:02.000+00:00"
    assert (stranger["name"], stranger["token"], stranger["refused"]) == (STRANGERS, None, 1)


def test_lines_of_a_full_file_count_and_broken_ones_do_not(browser: TestClient, workspace: Workspace) -> None:
    at = f"{datetime.now(UTC):%Y-%m-%d}T00:00:00.000+00:00"
    audit = workspace.state_dir / "audit.jsonl"
    audit.with_name("audit.jsonl.2").write_text(json.dumps(line(at, token="t9", name="old")) + "\n")
    audit.with_name("audit.jsonl.1").write_text('{"at": "20\n[1]\n\xff\n' + json.dumps(line(at, token="t9")) + "\n")
    told = browser.get("/inhouse/usage", headers=PAGE).json()
    (old,) = (each for each in told["callers"] if each["token"] == "t9")
    assert (old["requests"], old["name"]) == (2, "old")


def test_rights_to_one_repository_show_that_one_alone(tmp_path: Path) -> None:
    with (
        Workspace.open(make_repository(tmp_path / "shop"), "test") as shop,
        Workspace.open(make_repository(tmp_path / "till"), "test") as till,
    ):
        shop.name, till.name = "shop", "till"
        app = build_app(shop, TOKEN, "127.0.0.1", PORT, beside=[(till, "the-token-of-the-till")])
        client = TestClient(app, ADDRESS, follow_redirects=False)
        version = add(till, b"one")
        add_run(till, "run", version, "2026-01-01T02:00:00+00:00")
        store = TokenStore(shop.state_dir / "tokens.json")
        text, _ = store.create("ada", (Scope.ADMIN,), None, repositories=("shop",))
        ada = {"Authorization": f"Bearer {text}"}
        for name in ("shop", "till"):
            asked = {"Inhouse-Repository": name, **BEARER}
            assert client.get("/inhouse/status", headers=asked).status_code == 200
        body = {"version": version, "seen": None}
        hidden = {"Inhouse-Repository": "till", **ada}
        assert client.post("/inhouse/promote", json=body, headers=hidden).status_code == 404
        assert client.post("/inhouse/promote", json=body, headers=ada).status_code == 400, (
            "the shop has no such version"
        )
        report = f"/inhouse/adapters/{version}/report.html"
        assert client.get(report, params={"repository": "till"}, headers=ada).status_code == 404
        assert client.get(report, params={"repository": "till"}, headers=BEARER).status_code == 200
        assert client.get(report, headers=BEARER).status_code == 404
        seen = client.get("/inhouse/usage", headers=ada).json()["callers"]
        (owner,) = (each for each in seen if each["token"] == "owner")
        everything = client.get("/inhouse/usage", headers=BEARER).json()["callers"]
        (whole,) = (each for each in everything if each["token"] == "owner")
        assert owner["requests"] < whole["requests"]
        assert Registry(till.registry.root).current() is None
