"""`inhouse serve` in front of vLLM's protocol with a real model behind it, and of two real llama.cpp servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from inhouse_server.cli import main
from inhouse_server.owner import OwnerAddress, find_owner
from inhouse_server.vllm.client import VllmClient
from inhouse_server.vllm.golden_check import check_server
from inhouse_training import (
    BASE,
    AdapterManifest,
    BaseModel,
    GenerationRequest,
    Message,
    Registry,
    ScoredRow,
    TextDelta,
    TransformersEngine,
    keep_golden,
    load_tokenizer,
    make_golden,
    read_golden,
    resolve_base_model,
)

from ..training.adapters import random_adapter
from ..training.conftest import make_tiny
from .conftest import make_repository
from .test_openai_engine import Server
from .test_swaps_under_load import Load
from .vllm_double import BASE_NAME, VllmDouble, serving


class RealModel:
    """A transformers model that loads adapters from the folders it is told, as vLLM does."""

    def __init__(self, base: BaseModel) -> None:
        self._names: dict[Path, str] = {}  # PEFT takes no path for a name
        self._folders: dict[str, Path] = {}
        self._engine = TransformersEngine(base, self._folders.__getitem__)

    def load(self, folder: Path) -> None:
        name = self._names.setdefault(folder, f"adapter{len(self._names)}")
        self._folders[name] = folder
        self.nats(folder, [1, 2])

    def nats(self, folder: Path | None, ids: list[int]) -> list[float]:
        (scores,) = self._engine.score_tokens([ScoredRow(tuple(ids), tuple(ids))], self._name(folder))
        return [float(each) for each in scores.nats]

    def answer(self, folder: Path | None, asked: dict[str, Any]) -> Generator[str, None, str]:
        messages = tuple(Message(each["role"], each["content"]) for each in asked["messages"])
        request = GenerationRequest(messages, self._name(folder), asked["max_tokens"])
        for event in self._engine.stream(request, threading.Event()):
            if not isinstance(event, TextDelta):
                return event.reason
            yield event.text
        raise AssertionError("a stream ends with Finished")

    def _name(self, folder: Path | None) -> str:
        return self._names[folder] if folder else BASE


@dataclass
class Team:
    """A repository whose answers come from two servers, and its versions."""

    root: Path
    base: BaseModel
    registry: Registry
    versions: list[str]
    doubles: tuple[VllmDouble, ...]

    def start(self) -> tuple[subprocess.Popen[bytes], OwnerAddress]:
        command = [sys.executable, "-m", "inhouse_server.cli", "serve", "--repo", str(self.root), "--port", "0"]
        process = subprocess.Popen(command, env={**os.environ, "INHOUSE_LOG": "WARNING"})
        deadline = time.monotonic() + 120
        while (found := find_owner(self.root / ".inhouse")) is None:
            assert time.monotonic() < deadline and process.poll() is None, "the owner did not come up"
            time.sleep(0.1)
        return process, found

    def status(self, owner: OwnerAddress) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {owner.token}"}
        told: dict[str, Any] = httpx.get(f"{owner.url}/inhouse/status", headers=headers, timeout=60).json()
        return told

    def wait_until_serving(self, owner: OwnerAddress, version: str | None) -> None:
        deadline = time.monotonic() + 120
        while (told := self.status(owner)).get("serving", "nobody asked") != version:
            assert time.monotonic() < deadline, told
            time.sleep(0.2)


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    root = make_repository(tmp_path / "shop")
    folder = make_tiny(tmp_path / "tiny", load_tokenizer(resolve_base_model()), initializer_range=0.2)
    base = resolve_base_model(str(folder))
    registry = Registry(root / ".inhouse" / "adapters")
    manifest = AdapterManifest(base.name, base.sha256, "abc")
    versions = [
        registry.add(random_adapter(base, tmp_path / f"made{rank}", r=rank), manifest).version for rank in (4, 8)
    ]
    (root / "inhouse.toml").write_text(f"base_model = '{folder}'\n")
    for version in versions:
        assert main(["adapters", "golden", version, "--repo", str(root)]) == 0
    model = RealModel(base)
    with serving(VllmDouble(model), VllmDouble(model)) as doubles:
        urls = [each.url for each in doubles]
        (root / "inhouse.toml").write_text(
            f"base_model = '{folder}'\n[answer]\npassages = 0\n"
            f"[engine]\nkind = 'vllm'\nservers = {urls}\nmodel = '{BASE_NAME}'\n"
        )
        yield Team(root, base, registry, versions, doubles)


@pytest.mark.long
def test_promotions_a_corrupt_version_and_a_killed_owner_under_load(team: Team) -> None:
    process, owner = team.start()
    first, second = team.versions
    try:
        load = Load(owner)
        for version in (first, second):
            team.registry.promote(version)
            team.wait_until_serving(owner, version)
            text, ended, adapter = load.ask()
            assert adapter == version and ended in ("stop", "length")
            load.expected[version] = text
        assert len(set(load.expected.values())) == 2
        with load:
            load.wait_for(4)
            for swap in range(4):
                team.registry.promote((first, second)[swap % 2])
                team.wait_until_serving(owner, (first, second)[swap % 2])
                load.wait_for(4)
            # A version with a flipped bit: nothing changes for those who ask.
            corrupt = team.registry.add(
                random_adapter(team.base, team.root.parent / "corrupt", r=2),
                AdapterManifest(team.base.name, team.base.sha256, "abc"),
            )
            engine = TransformersEngine(team.base, team.registry.verify)
            keep_golden(team.registry, make_golden(engine, load_tokenizer(team.base), corrupt.version))
            weights = corrupt.path / "adapter_model.safetensors"
            content = bytearray(weights.read_bytes())
            content[-5] ^= 1
            (team.registry.root / "current").write_text(corrupt.version)
            weights.write_bytes(bytes(content))
            deadline = time.monotonic() + 60
            while corrupt.version not in (told := team.status(owner))["servers"][1]["failed"]:
                assert time.monotonic() < deadline, told
                time.sleep(0.2)
            assert "is damaged" in told["servers"][1]["failed"][corrupt.version] and told["serving"] == second
            load.wait_for(4)
            (team.registry.root / "current").write_text(first)
            team.wait_until_serving(owner, first)
        assert load.wrong == [], load.expected
        # Killed while another version is promoted: the next process goes on from what was agreed.
        team.registry.promote(second)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process, owner = team.start()
        team.wait_until_serving(owner, second)
        assert Load(owner).ask()[0] == load.expected[second]
    finally:
        process.terminate()
        process.wait(200)


@pytest.mark.long
def test_what_a_client_and_an_operator_see(team: Team) -> None:
    process, owner = team.start()
    try:
        client = openai.OpenAI(base_url=f"{owner.url}/v1", api_key=owner.token, max_retries=0)
        asked: Any = {"model": "inhouse", "messages": [{"role": "user", "content": "When?"}], "max_tokens": 4}
        assert client.chat.completions.create(**asked).choices[0].message.content
        for double, busy in zip(team.doubles, ((503, "9"), (429, "4")), strict=True):
            double.busy = busy
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as refused:
                client.chat.completions.create(**asked, stream=stream)
            assert refused.value.response.headers["retry-after"] == "4"
            assert refused.value.code == "overloaded"
        team.doubles[1].stop()
        command = [sys.executable, "-m", "inhouse_server.cli", "status", "--repo", str(team.root)]
        deadline = time.monotonic() + 60
        while "is not reached" not in (told := subprocess.run(command, capture_output=True, text=True).stdout):
            assert time.monotonic() < deadline, told
            time.sleep(0.5)
        assert f"server {team.doubles[0].url}: ready for the base model" in told
        headers = {"Authorization": f"Bearer {owner.token}"}
        metrics = httpx.get(f"{owner.url}/metrics", headers=headers).text
        assert f'inhouse_model_server_up{{server="{team.doubles[0].url}"}} 1.0' in metrics
        assert f'inhouse_model_server_up{{server="{team.doubles[1].url}"}} 0.0' in metrics
        assert "inhouse_promotion_waiting 0.0" in metrics
    finally:
        team.doubles[1].__init__(RealModel(team.base), 0)  # type: ignore[misc]  # the fixture stops it again
        process.terminate()
        process.wait(200)


@pytest.mark.long
def test_the_golden_check_tells_rounding_from_a_wrong_adapter(team: Team) -> None:
    import torch

    first, second = team.versions
    rounded = TransformersEngine(team.base, team.registry.verify, dtype=torch.bfloat16)
    golden = make_golden(rounded, load_tokenizer(team.base), first)
    exact = read_golden(team.registry, first)
    double = team.doubles[0]
    client = VllmClient(double.url, "none", verify=False)
    for version in team.versions:
        double.computing.load(team.registry.root / version)
    double.adapters[first] = team.registry.root / first
    verdict = check_server(client, BASE_NAME, golden)
    assert 0 < verdict.adapter < verdict.bound < verdict.effect / 3, verdict
    assert check_server(client, BASE_NAME, exact).adapter < 1e-3
    scaled = team.root.parent / "scaled"
    scaled.mkdir()
    for file in (team.registry.root / first).iterdir():
        (scaled / file.name).write_bytes(file.read_bytes())
    config = json.loads((scaled / "adapter_config.json").read_text())
    (scaled / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] // 2}))
    double.computing.load(scaled)
    for wrong in (scaled, team.registry.root / second, None):
        double.adapters[first] = wrong  # type: ignore[assignment]  # None: the adapter is left out
        with pytest.raises(Exception, match="computes something else"):
            check_server(client, BASE_NAME, golden)


@pytest.mark.long
def test_two_llama_servers_answer_and_one_may_die(shop: Path, base_model: BaseModel) -> None:
    (gguf,) = base_model.path.glob("*.gguf")
    servers = [Server(gguf), Server(gguf)]
    urls = [each.address for each in servers]
    (shop / "inhouse.toml").write_text(
        f"[answer]\npassages = 0\n[engine]\nkind = 'vllm'\nservers = {urls}\nmodel = 'smollm2'\n"
    )
    command = [sys.executable, "-m", "inhouse_server.cli", "ask", "--json", "--repo", str(shop), "Say yes."]
    environment = {**os.environ, "OPENAI_API_KEY": "secret"}
    answers = []
    try:
        for dead in (None, servers[0], servers[1]):
            if dead:
                dead.kill()
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            answers.append((done.returncode, done.stdout, done.stderr))
    finally:
        for each in servers:
            if each.child.poll() is None:
                each.kill()
    texts = [json.loads(out)["answer"] for code, out, _ in answers[:2] if code == 0]
    assert len(texts) == 2 and texts[0] == texts[1], answers
    assert answers[2][0] != 0 and "No model server can answer" in answers[2][2]
