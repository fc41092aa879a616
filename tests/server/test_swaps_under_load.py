"""Eight clients stream answers while versions are promoted and rolled back: none fails, none is cut, none is mixed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from inhouse_server.owner import OwnerAddress, find_owner
from inhouse_training import AdapterManifest, Registry, load_tokenizer, resolve_base_model

from ..training.adapters import random_adapter
from ..training.conftest import make_tiny
from .conftest import make_repository

CLIENTS, SWAPS, TOKENS = 8, 20, 24


@pytest.fixture
def house(tmp_path: Path) -> Iterator[tuple[OwnerAddress, Registry, list[str]]]:
    """An owner of a small random model with two adapters, and their registry."""
    root = make_repository(tmp_path / "shop")
    folder = make_tiny(tmp_path / "tiny", load_tokenizer(resolve_base_model()), initializer_range=0.2)
    # Without passages: those may change while the index grows, and the answer with them.
    (root / "inhouse.toml").write_text(f"base_model = '{folder}'\n[answer]\npassages = 0\n")
    base = resolve_base_model(str(folder))
    registry = Registry(root / ".inhouse" / "adapters")
    manifest = AdapterManifest(base.name, base.sha256, "abc")
    versions = [
        registry.add(random_adapter(base, tmp_path / f"made{rank}", r=rank), manifest).version for rank in (4, 8)
    ]
    command = [sys.executable, "-m", "inhouse_server.cli", "serve", "--repo", str(root), "--port", "0"]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 120
        while (found := find_owner(root / ".inhouse")) is None:
            assert time.monotonic() < deadline and process.poll() is None, "the owner did not come up"
            time.sleep(0.1)
        yield found, registry, versions
        process.terminate()


class Load:
    """Clients that ask the same question over and over, and everything that was wrong with an answer."""

    def __init__(self, owner: OwnerAddress) -> None:
        self._client = openai.OpenAI(base_url=f"{owner.url}/v1", api_key=owner.token, max_retries=0, timeout=300)
        self.expected: dict[str | None, str] = {}
        self.wrong: list[str] = []
        self.served: dict[str | None, int] = {}
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._ask_on, name=f"client {n}") for n in range(CLIENTS)]

    def ask(self, model: str = "inhouse") -> tuple[str, str | None, str | None]:
        """One streamed answer: its text, how it ended, and the adapter that it says produced it."""
        text, ended, adapter = "", None, "nobody said"
        asked: Any = [{"role": "user", "content": "When do couriers come?"}]
        stream = self._client.chat.completions.create(model=model, messages=asked, max_tokens=TOKENS, stream=True)
        for chunk in stream:
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
                ended = chunk.choices[0].finish_reason or ended
            if chunk.model_extra and "inhouse" in chunk.model_extra:
                adapter = chunk.model_extra["inhouse"]["provenance"]["adapter"]
        return text, ended, adapter

    def _ask_on(self) -> None:
        while not self._stop.is_set():
            try:
                text, ended, adapter = self.ask()
                problem = "" if self.expected.get(adapter) == text and ended == "length" else f"{adapter}: {text!r}"
            except (openai.OpenAIError, OSError) as error:
                adapter, problem = None, repr(error)
            with self._changed:
                self.served[adapter] = self.served.get(adapter, 0) + 1
                self.wrong += [problem] if problem else []
                self._changed.notify_all()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, answers: int) -> None:
        """Until so many more answers have ended."""
        with self._changed:
            wanted = sum(self.served.values()) + answers
            assert self._changed.wait_for(lambda: sum(self.served.values()) >= wanted or self.wrong, 300)


@pytest.mark.long
def test_no_answer_suffers_from_promotions_and_rollbacks(house: tuple[OwnerAddress, Registry, list[str]]) -> None:
    owner, registry, (first, second) = house
    load = Load(owner)
    for model in (first, second):
        text, ended, adapter = load.ask(model)
        assert (ended, adapter) == ("length", model)
        load.expected[adapter] = text
    load.expected[None] = load.ask()[0]  # nothing is promoted yet: the base model answers
    assert len(set(load.expected.values())) == 3, "mixed answers could not be told"
    with load:
        load.wait_for(CLIENTS)
        for swap in range(SWAPS):
            # first, second, back to first, back to the base, and so on.
            if swap % 4 < 2:
                registry.promote((first, second)[swap % 4])
            else:
                registry.rollback()
            load.wait_for(3)
    assert load.wrong == [], load.expected
    assert set(load.served) == {first, second, None} and min(load.served.values()) >= 5
