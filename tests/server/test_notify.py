"""The webhook of a retraining, against a real HTTP server in this process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from inhouse_server.cli import notify as notify_module
from inhouse_server.cli.notify import notify
from inhouse_training import BaseModel, load_tokenizer

from ..training.conftest import TINY, make_tiny
from ..training.history import make_history
from .command_line import inhouse

CONTENT = {"repository": "shop", "decision": "promoted"}


class Receiver(ThreadingHTTPServer):
    """Keeps what is posted; its path says how it answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[str, object]] = []
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, json.loads(body)))
        if self.path == "/drip":
            while not self.server.release.wait(0.05):  # each read of the client succeeds, and the whole never ends
                self.wfile.write(b"H")
            return
        self.send_response({"/moved": 307, "/broken": 500}.get(self.path.split("?")[0], 204))
        if self.path == "/moved":
            self.send_header("Location", f"http://localhost:{self.server.server_port}/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, base_model: BaseModel) -> Path:
    """A random model with a real tokenizer."""
    return make_tiny(tmp_path_factory.mktemp("tiny"), load_tokenizer(base_model))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_posts_once_and_says_what_went_wrong(receiver: Receiver) -> None:
    assert notify(f"{receiver.url}/hook", CONTENT) is None
    assert receiver.received == [("/hook", CONTENT)]
    moved = notify(f"{receiver.url}/moved", CONTENT)
    assert moved is not None and "answered 307, and no redirect is followed" in moved
    assert [path for path, _ in receiver.received] == ["/hook", "/moved"], "nobody was sent elsewhere"
    broken = notify(f"{receiver.url}/broken?token=s3cret", CONTENT)
    assert broken is not None and "answered 500" in broken and "s3cret" not in broken
    nobody = notify("http://127.0.0.1:9/s3cret", CONTENT)
    assert nobody is not None and "ConnectError" in nobody and "s3cret" not in nobody


def test_a_receiver_that_never_finishes_is_left_after_the_limit(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_module, "LIMIT_S", 0.4)
    started = time.monotonic()
    failure = notify(f"{receiver.url}/drip", CONTENT)
    assert failure is not None and "longer than" in failure
    assert time.monotonic() - started < 3


def test_a_run_that_fails_is_told_with_its_reason(receiver: Receiver, tmp_path: Path, tiny_folder: Path) -> None:
    shop = make_history(tmp_path / "shop", commits=3).root  # too few to hold any out
    settings = f'base_model = "{tiny_folder}"\n[answer]\npassages = 0\n'
    (shop / "inhouse.toml").write_text(f'{settings}[retrain]\nwebhook = "{receiver.url}/hook"\n')
    (tmp_path / "tiny.toml").write_text(TINY.format(budget=1000, rate=1e-3))
    done = inhouse("retrain", "--recipe", str(tmp_path / "tiny.toml"), "--repo", str(shop))
    assert done.returncode == 1
    ((_, content),) = receiver.received
    assert isinstance(content, dict) and (content["repository"], content["decision"]) == ("shop", "failed")
    assert content["reasons"][0] in done.stderr


@pytest.mark.long  # two trainings of a tiny model
def test_each_finished_run_is_told_and_none_fails_by_it(receiver: Receiver, tmp_path: Path, tiny_folder: Path) -> None:
    shop = make_history(tmp_path / "shop", commits=16).root
    (tmp_path / "tiny.toml").write_text(TINY.format(budget=1000, rate=1e-12))

    def retrain(webhook: str) -> tuple[int, str]:
        settings = f'base_model = "{tiny_folder}"\nrecipe = "{tmp_path}/tiny.toml"\n[answer]\npassages = 0\n'
        (shop / "inhouse.toml").write_text(settings + f'[retrain]\nwebhook = "{webhook}"\n')
        done = inhouse("retrain", "--repo", str(shop))
        return done.returncode, done.stderr

    code, _ = retrain(f"{receiver.url}/hook")
    assert code == 3
    ((path, content),) = receiver.received
    assert path == "/hook" and isinstance(content, dict)
    assert (content["repository"], content["decision"]) == ("shop", "rejected") and content["metrics"]
    assert retrain(f"{receiver.url}/hook")[0] == 0 and len(receiver.received) == 1, "a skipped run is not told"

    (shop / ".inhouse" / "runs").rename(tmp_path / "runs of before")
    code, said = retrain("http://127.0.0.1:9/s3cret")
    assert code == 3 and "warning: The webhook at 127.0.0.1 was not told" in said and "s3cret" not in said
