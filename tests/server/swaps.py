"""A supervised owner, clients that ask it the same question over and over, and everything that they got."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai

from inhouse_server.owner import OwnerAddress, bind, find_owner

from .editor import editor
from .house import INHOUSE

CLIENTS, TOKENS = 8, 24
RESTART_S = 2.0
"""As ``RestartSec`` in server/deploy/systemd."""
PATIENCE_S = 300
QUESTION = "When do couriers come?"
_NOBODY = "nobody said"
_NOT_CONNECTED = "cannot be reached"
"""What the relay says of a question that it could pass on to nobody."""


class Supervised:
    """`inhouse serve` as a service: always on the same port, and started again when it has failed."""

    def __init__(self, root: Path) -> None:
        self._state_dir = root / ".inhouse"
        with bind("127.0.0.1", 0) as free:
            port = free.getsockname()[1]
        self._command = [sys.executable, "-m", "inhouse_server.cli", "serve", "--repo", str(root), "--port", str(port)]
        self._over = threading.Event()
        self._process = subprocess.Popen(self._command)
        self._watching = threading.Thread(target=self._restart)

    def _restart(self) -> None:
        while self._process.wait() != 0 and not self._over.wait(RESTART_S):
            self._process = subprocess.Popen(self._command)

    def __enter__(self) -> Supervised:
        self._watching.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._process.terminate()
        self._watching.join()

    def kill(self) -> None:
        """``kill -9``."""
        self._process.kill()
        self._process.wait()

    def address(self) -> OwnerAddress:
        """Where it listens, once it does."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := find_owner(self._state_dir)) is None:
            assert time.monotonic() < deadline, "the owner did not come up"
            time.sleep(0.1)
        return found


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got.

    Attributes:
        ended: how the answer says that it ended; ``None`` where it does not.
        adapter: which it says produced it.
        error: what its client was told in place of an end.
        refused: nobody listened.
    """

    text: str = ""
    ended: str | None = None
    adapter: str | None = _NOBODY
    error: str = ""
    refused: bool = False


def client_of(owner: OwnerAddress) -> openai.OpenAI:
    """A client that tries nothing again."""
    return openai.OpenAI(base_url=f"{owner.url}/v1", api_key=owner.token, max_retries=0, timeout=PATIENCE_S)


def ask_streaming(
    client: openai.OpenAI, model: str = "inhouse", tokens: int = TOKENS, began: Callable[[], None] = lambda: None
) -> Answer:
    """One streamed answer; ``began`` is called after its first text."""
    text, ended, adapter = "", None, _NOBODY
    asked: Any = [{"role": "user", "content": QUESTION}]
    try:
        for chunk in client.chat.completions.create(model=model, messages=asked, max_tokens=tokens, stream=True):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
                ended = chunk.choices[0].finish_reason or ended
            if chunk.model_extra and "inhouse" in chunk.model_extra:
                adapter = chunk.model_extra["inhouse"]["provenance"]["adapter"]
            if text:
                began()
    except (openai.OpenAIError, httpx2.HTTPError, OSError) as error:
        refused = isinstance(error.__cause__, httpx2.ConnectError)
        return Answer(text, ended, adapter, repr(error), refused)
    return Answer(text, ended, adapter)


class Load:
    """Six OpenAI clients, an editor on the owner's machine and one elsewhere, which ask again when they were answered.

    Attributes:
        expected: the right text by adapter.
        right: answers by adapter.
        cut: what was in flight when the owner was killed. Each ended as an error and is the beginning of a right text.
        wrong: everything else.
    """

    def __init__(self, root: Path, owner: OwnerAddress) -> None:
        self._root = root
        self._owner = owner
        self._client = client_of(owner)
        self.expected: dict[str | None, str] = {}
        self.right: Counter[str | None] = Counter()
        self.cut: list[Answer] = []
        self.wrong: list[Answer] = []
        self._edited: Counter[str] = Counter()  # right answers of each editor
        self._stop = threading.Event()
        self._there = threading.Event()
        self._there.set()
        self._changed = threading.Condition()
        editors = {"here": [], "elsewhere": ["--server", owner.url]}
        self._threads = [threading.Thread(target=self._stream_on) for _ in range(CLIENTS - len(editors))]
        self._threads += [threading.Thread(target=self._edit_on, args=each) for each in editors.items()]

    @property
    def answered(self) -> int:
        return self.right.total()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, answers: int) -> None:
        """Until so many right ones have ended, or one was wrong."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.answered >= answers or self.wrong, 4 * PATIENCE_S), self.answered

    def kill(self, service: Supervised) -> Answer:
        """Kill the owner while it writes, and come back when it is there again; the answer that was being written."""

        def kill() -> None:
            if self._there.is_set():
                self._there.clear()
                service.kill()

        cut = ask_streaming(self._client, tokens=1000, began=kill)
        assert service.address() == self._owner, "clients know it by its address"
        self._there.set()
        with self._changed:
            before = self._edited.copy()
            again = self._changed.wait_for(
                lambda: all(self._edited[name] > before[name] for name in before), PATIENCE_S
            )
        assert again and len(before) == 2, "the editors are connected again"
        return cut

    def _take(self, answer: Answer, editor: str = "") -> None:
        with self._changed:
            if self.expected.get(answer.adapter) == answer.text and answer.ended == "length":
                self.right[answer.adapter] += 1
                if editor:
                    self._edited[editor] += 1
            elif self._there.is_set() or answer.ended is not None or not self._begins(answer.text):
                self.wrong.append(answer)
            elif not answer.refused:
                self.cut.append(answer)
            self._changed.notify_all()
        if answer.error:
            self._there.wait(PATIENCE_S)

    def _begins(self, text: str) -> bool:
        return any(expected.startswith(text) for expected in self.expected.values())

    def _stream_on(self) -> None:
        while not self._stop.is_set():
            self._take(ask_streaming(self._client))

    def _edit_on(self, name: str, options: list[str]) -> None:
        asyncio.run(self._edit(name, [INHOUSE, "lsp", "--repo", self._root, *options]))

    async def _edit(self, name: str, command: list[str | Path]) -> None:
        async with editor(command, INHOUSE_TOKEN=self._owner.token) as connected:
            await connected.initialize(self._root, {}, PATIENCE_S)
            while not self._stop.is_set():
                asked = connected.start("inhouse/ask", {"question": QUESTION})
                told = await connected.response(asked, PATIENCE_S)
                connected.received.clear()
                if _NOT_CONNECTED in told.get("error", {}).get("message", ""):
                    await asyncio.sleep(0.2)
                else:
                    await asyncio.to_thread(self._take, _of_editor(told), name)


def _of_editor(told: dict[str, Any]) -> Answer:
    if "error" in told:
        return Answer(error=told["error"]["message"])
    result = told["result"]
    return Answer(result["answer"], result["reason"], result["provenance"]["adapter"])
