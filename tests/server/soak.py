"""An owner of a tiny random model under many short questions, and what it holds meanwhile."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from inhouse_server.owner import OwnerAddress, find_owner
from inhouse_training import load_tokenizer, resolve_base_model

from ..training.conftest import make_tiny

CLIENTS = 4
ANSWER_TOKENS = 8
SETTINGS = "base_model = '{folder}'\n[answer]\nmax_tokens = 8\npassages = 2\n"


def tiny_house(root: Path, model: Path) -> Path:
    """Settle a tiny random model, made in ``model``, in the repository at ``root``."""
    folder = make_tiny(model, load_tokenizer(resolve_base_model()), initializer_range=0.2, num_hidden_layers=1)
    (root / "inhouse.toml").write_text(SETTINGS.format(folder=folder))
    return root


@contextmanager
def tiny_owner(root: Path) -> Iterator[tuple[OwnerAddress, int]]:
    """The owner process of such a repository: its address and its process id."""
    command = [sys.executable, "-m", "inhouse_server.cli", "serve", "--repo", str(root), "--port", "0"]
    # Threads that share a product of 32 numbers mostly wait for each other.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        deadline = time.monotonic() + 120
        while (found := find_owner(root / ".inhouse")) is None:
            assert time.monotonic() < deadline and process.poll() is None, "the owner did not come up"
            time.sleep(0.1)
        yield found, process.pid
        process.terminate()


Ask = Callable[[HTTPConnection, dict[str, str], int], None]


def _post(peer: HTTPConnection, headers: dict[str, str], path: str, body: dict[str, Any]) -> bytes:
    peer.request("POST", path, json.dumps(body), headers)
    answer = peer.getresponse()
    said = answer.read()
    assert answer.status == 200, (answer.status, said[:300])
    return said


def ask_one(peer: HTTPConnection, headers: dict[str, str], number: int) -> None:
    """The question of this number, by one of the three routes that answer; every eighth searches first.

    Raises:
        AssertionError: the answer is not eight tokens long, or there is none.
    """
    question = f"Question {number}: when do couriers come?"
    retrieve = number % 8 == 0
    chat = {
        "model": "inhouse", "messages": [{"role": "user", "content": question}], "max_tokens": ANSWER_TOKENS,
        "inhouse": {"retrieve": retrieve},
    }  # fmt: skip
    if number % 3 == 0:
        ask = {"question": question, "max_tokens": ANSWER_TOKENS, "retrieve": retrieve}
        said = _post(peer, headers, "/inhouse/ask", ask)
        assert b'"completion_tokens": 8' in said or b'"completion_tokens":8' in said, said[-600:]
    elif number % 3 == 1:
        usage = json.loads(_post(peer, headers, "/v1/chat/completions", chat))["usage"]
        assert usage["completion_tokens"] == ANSWER_TOKENS, usage
    else:
        said = _post(peer, headers, "/v1/chat/completions", {**chat, "stream": True})
        assert said.endswith(b"data: [DONE]\n\n") and b'"finish_reason":"length"' in said.replace(b": ", b":"), said


class Soak:
    """Clients that share one count of questions, each on a connection that it keeps."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._address = host, port
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._numbers = itertools.count()
        self.wrong: list[str] = []

    def ask(self, questions: int) -> float:
        """So many more questions; the seconds that they took.

        Raises:
            AssertionError: one of them failed.
        """
        until = next(self._numbers) + questions
        began = time.perf_counter()
        clients = [threading.Thread(target=self._client, args=(until,)) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert not self.wrong, self.wrong[:3]
        self._numbers = itertools.count(until)
        return time.perf_counter() - began

    def _client(self, until: int) -> None:
        peer = HTTPConnection(*self._address, timeout=120)
        try:
            while (number := next(self._numbers)) < until + 1 and not self.wrong:
                ask_one(peer, self._headers, number)
        except (OSError, AssertionError) as error:
            self.wrong.append(repr(error))
        finally:
            peer.close()


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds: bytes of resident memory, bytes of it that no file backs, open files, threads."""

    resident: int
    anonymous: int
    files: int
    threads: int


def held(pid: int) -> Held:
    """What the process holds now."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    size = {name: int(status[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon")}
    files = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
    return Held(size["VmRSS"], size["RssAnon"], files, int(status["Threads"]))
