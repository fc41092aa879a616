"""The owner's life: found, stopped while its model loads, killed, started twice; its lock is free when it says so."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import httpx
import pytest

from inhouse_retrieval.errors import Busy, InhouseError
from inhouse_server import owner as owner_module
from inhouse_server.holder import HOLDER_FILE, Holder, note_holder, noting, read_holder
from inhouse_server.owner import (
    ADDRESS_FILE,
    OwnerAddress,
    bind,
    ensure_owner,
    ensure_token,
    find_owner,
    holder_of,
    is_held,
    stop_owner,
    wait_for_owner,
)
from inhouse_server.workspace import Workspace
from inhouse_training import BaseModel

from .conftest import git, make_repository


@pytest.fixture
def root(tmp_path: Path, base_model: BaseModel) -> Path:
    return make_repository(tmp_path / "owned")


def serve_command(root: Path) -> list[str]:
    return [sys.executable, "-m", "inhouse_server.cli", "serve", "--repo", str(root), "--port", "0"]


def start(root: Path) -> tuple[subprocess.Popen[bytes], OwnerAddress]:
    process = subprocess.Popen(serve_command(root), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := find_owner(root / ".inhouse"):
            return process, found
        time.sleep(0.02)
    raise AssertionError("the owner did not come up")


@pytest.mark.parametrize(
    ("delay_s", "signal_number"),
    [
        (0.0, signal.SIGTERM),
        (2.5, signal.SIGINT),
        *(
            pytest.param(delay, number, marks=pytest.mark.long)
            for delay in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
            for number in (signal.SIGTERM, signal.SIGINT)
        ),
    ],
)
def test_a_signal_ends_it_soon_whatever_it_loads(root: Path, delay_s: float, signal_number: signal.Signals) -> None:
    process, _ = start(root)
    time.sleep(delay_s)
    process.send_signal(signal_number)
    # Soon: a few seconds, and several times that beside another worker that trains.
    told = process.communicate(timeout=40)[1].decode()
    assert process.returncode == 0, told
    assert "Traceback" not in told
    assert not is_held(root / ".inhouse")
    assert not (root / ".inhouse" / ADDRESS_FILE).exists()


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.long)])
def test_stopped_means_that_the_repository_is_free(root: Path, times: int) -> None:
    for _ in range(times):
        process, _ = start(root)
        assert stop_owner(root / ".inhouse")
        assert not is_held(root / ".inhouse")
        # The next command takes the index at once, though the process may still be ending.
        with Workspace.open(root, "test") as workspace:
            assert workspace.index.status().files == 2
        process.communicate(timeout=15)
    assert not stop_owner(root / ".inhouse")


def test_after_a_kill_the_stale_address_is_not_an_owner_and_a_new_one_starts(root: Path) -> None:
    process, first = start(root)
    process.kill()
    process.communicate()
    assert (root / ".inhouse" / ADDRESS_FILE).exists()
    assert find_owner(root / ".inhouse") is None
    second = ensure_owner(root, timeout_s=60)
    assert second.url != first.url
    assert stop_owner(root / ".inhouse")


def test_one_at_its_own_port_that_was_killed_may_come_back_before_another_takes_its_place(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bind("127.0.0.1", 0) as free:
        command = [*serve_command(root)[:-1], str(free.getsockname()[1])]
    first = subprocess.Popen(command)
    while (served := find_owner(root / ".inhouse")) is None:
        time.sleep(0.02)
    first.kill()
    first.wait()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ensure_owner, root, 60)
        time.sleep(2)  # as server/deploy/systemd has it
        second = subprocess.Popen(command)
        assert asked.result() == served, "the service, where its clients know it"
    second.kill()
    second.wait()
    monkeypatch.setattr("inhouse_server.owner.COMES_BACK_S", 0.5)
    assert ensure_owner(root, 60).url != served.url, "nobody started it again"
    assert stop_owner(root / ".inhouse")


def test_an_owner_is_started_even_while_the_last_one_is_stopping(root: Path) -> None:
    process, first = start(root)
    process.send_signal(signal.SIGTERM)
    while find_owner(root / ".inhouse"):
        time.sleep(0.01)
    # It answers no more, and may still hold the repository for a moment.
    second = ensure_owner(root, timeout_s=60)
    process.communicate(timeout=15)
    assert second != first
    assert httpx.get(f"{second.url}/healthz").status_code == 200
    stop_owner(root / ".inhouse")


def test_two_that_start_at_once_share_one_owner(root: Path) -> None:
    found: list[OwnerAddress] = []
    callers = [threading.Thread(target=lambda: found.append(ensure_owner(root, 60))) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    stop_owner(root / ".inhouse")


def test_a_search_does_not_wait_for_the_model(root: Path) -> None:
    process, owner = start(root)
    answer = httpx.post(
        f"{owner.url}/inhouse/search",
        json={"query": "courier"},
        headers={"Authorization": f"Bearer {owner.token}"},
        timeout=30,
    )
    status = httpx.get(f"{owner.url}/inhouse/status", headers={"Authorization": f"Bearer {owner.token}"}, timeout=30)
    process.terminate()
    process.communicate(timeout=15)
    assert answer.status_code == 200
    assert status.json()["root"] == str(root)


def test_the_index_follows_files_that_no_editor_saved(root: Path) -> None:
    process, owner = start(root)
    try:
        (root / "refunds.py").write_text("def refund_pennies(customer):\n    return 0\n")
        git(root, "add", ".")
        git(root, "commit", "--quiet", "-m", "Refund")
        found: list[str] = []
        deadline = time.monotonic() + 30
        while "refunds.py" not in found and time.monotonic() < deadline:
            answer = httpx.post(
                f"{owner.url}/inhouse/search",
                json={"query": "refund pennies"},
                headers={"Authorization": f"Bearer {owner.token}"},
                timeout=30,
            )
            found = [result["path"] for result in answer.json()["results"]]
            time.sleep(0.1)
        assert "refunds.py" in found
    finally:
        process.terminate()
        process.communicate(timeout=15)


@pytest.mark.parametrize("said", [b'"ok"', b'{"status": "ok"}', b'{"status": "ok", "pid": 1, "proof": 7}', b"\xff"])
def test_what_took_over_a_dead_owners_port_is_not_given_the_token(root: Path, said: bytes) -> None:
    seen: list[str] = []

    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(str(self.headers))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        state = root / ".inhouse"
        state.mkdir()
        token = ensure_token(state)
        (state / ADDRESS_FILE).write_text(json.dumps({"url": f"http://127.0.0.1:{server.server_port}", "pid": 1}))
        assert find_owner(state) is None
        server.shutdown()
    assert seen and not any(token in headers for headers in seen)


def test_who_holds_the_repository_is_named(root: Path) -> None:
    state = root / ".inhouse"
    with Workspace.open(root, "index --watch"):
        with pytest.raises(Busy, match=rf"'inhouse index --watch' \(process {os.getpid()}\) holds"):
            ensure_owner(root, timeout_s=1)
        assert wait_for_owner(state, timeout_s=5) is None, "nothing to wait for"
        assert not (state / "logs" / "owner.log").exists(), "none was started that could only fail"
    assert not (state / HOLDER_FILE).exists()
    assert holder_of(state) is None


def test_how_far_the_holder_is_can_be_seen(root: Path) -> None:
    state = root / ".inhouse"
    seen: list[Holder | None] = []
    with Workspace.open(root, "index") as house:
        house.refresh(lambda stage, done, total: seen.append(holder_of(state)))
        stages = {holder.stage for holder in seen if holder}
        assert {"reading", "embedding"} <= stages and None not in seen
        assert holder_of(state) == Holder(os.getpid(), "index"), "it is done, and still holds"
        note_holder(state, Holder(os.getpid(), "index", "embedding", 1204, 5210))
        with pytest.raises(Busy, match=r"holds .*: embedding, 1,204 of 5,210\."):
            Workspace.open(root, "index")
    note_holder(state, Holder(1, "index", "embedding", 1, 2))
    assert holder_of(state) is None, "it was killed and left its note"


def test_progress_is_noted_twice_a_second_at_most(tmp_path: Path) -> None:
    clock = [0.0]
    heard: list[int] = []
    update = noting(tmp_path, "index", lambda stage, done, total: heard.append(done), lambda: clock[0])
    for done in range(10):
        update("embedding", done, 10)
        clock[0] += 0.1
    assert heard == list(range(10))
    assert read_holder(tmp_path).done == 5, "at 0.0 and 0.5 s"
    assert Holder(1, "index", "embedding", 0, 5210).how_far == "embedding, 0 of 5,210"
    update("storing vectors", 0, None)
    assert read_holder(tmp_path).how_far == "storing vectors", "a new stage at once"
    (tmp_path / HOLDER_FILE).write_text('{"pid": "many"}')
    assert read_holder(tmp_path) == Holder()


def test_a_command_waits_for_an_owner_that_is_starting(root: Path) -> None:
    process = subprocess.Popen(serve_command(root), stderr=subprocess.DEVNULL)
    try:
        while not is_held(root / ".inhouse"):
            time.sleep(0.01)
        assert wait_for_owner(root / ".inhouse") is not None
    finally:
        process.terminate()
        process.communicate(timeout=15)


def test_a_second_owner_is_told_where_the_first_serves(root: Path) -> None:
    process, owner = start(root)
    try:
        second = subprocess.run(serve_command(root), capture_output=True, text=True, timeout=60)
        assert second.returncode == 1
        told = " ".join(second.stderr.split())
        assert f"is served already, at {owner.url} (process {process.pid})" in told
    finally:
        process.terminate()
        process.communicate(timeout=15)


def test_an_owner_that_does_not_let_go_is_said(root: Path) -> None:
    process, _ = start(root)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        assert find_owner(root / ".inhouse") is None
        assert is_held(root / ".inhouse")
        with pytest.raises(Busy, match="does not answer yet"):
            ensure_owner(root, timeout_s=3)
    finally:
        os.kill(process.pid, signal.SIGCONT)
        process.terminate()
        process.communicate(timeout=15)


def test_why_an_owner_cannot_start_is_said_soon(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "shop")

    (root / "inhouse.toml").write_text("[server]\nhost = '203.0.113.1'\ntls_cert = 'none.pem'\ntls_key = 'none.pem'\n")
    began = time.monotonic()
    with pytest.raises(InhouseError, match=r"The owner process cannot start: .*none\.pem"):
        ensure_owner(root, timeout_s=60)
    assert time.monotonic() - began < 50


def test_what_is_promoted_is_made_ready_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_module, "LOOK_S", 0.01)
    loaded: list[str] = []
    versions = ["one", "one", "one", "two", "two", "two"]
    stopping = threading.Event()

    class Stub:
        def serving(self) -> str:
            if len(versions) == 1:
                stopping.set()
            return versions.pop(0) if len(versions) > 1 else versions[0]

        def load(self) -> None:
            loaded.append(versions[0])

    owner_module._keep_loaded(cast(Workspace, Stub()), stopping)
    assert loaded == ["one", "two"]
