"""A real owner that makes room for a real retraining, and is back whatever becomes of that. A tiny model on the CPU.

What is free is told to the retraining, as much as training takes and no more: beside the owner it does not fit.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from inhouse_server.cli import main
from inhouse_server.cli.room import RoomForTraining
from inhouse_server.owner import OwnerAddress, find_owner
from inhouse_training import AdapterManifest, BaseModel, Device, Registry, load_tokenizer, resolve_base_model
from inhouse_training.memory import GIB, Conditions, predict_memory, shape_of
from inhouse_training.recipe import Recipe, load_recipe

from ..training.adapters import random_adapter
from ..training.conftest import TINY, make_tiny
from ..training.history import make_history

PATIENCE_S = 300
LEASE_S = 3.0
RETRAIN = """
import json, sys
from pathlib import Path
from inhouse_retrieval import InhouseError, Repository
from inhouse_server.cli.room import RoomForTraining
from inhouse_training import Device, load_recipe, resolve_base_model
from inhouse_training.retrain import retrain
base, root, recipe, free, lease = sys.argv[1:]
base, recipe, state = resolve_base_model(base), load_recipe(recipe), Path(root) / ".inhouse"
def told(stage, done, total):
    print(stage, flush=True)
def measure():
    return (Device("the test's machine", "", 16 * 2**30, int(free)),)
try:
    with RoomForTraining(state, recipe, base, True, told, measure, float(lease)) as room:
        result = retrain(Repository.open(Path(root)), state, recipe, base, told, make_room=room.make)
    print(json.dumps(result.to_json()), flush=True)
except InhouseError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
    sys.exit(1)
"""


@dataclass(frozen=True, slots=True)
class House:
    """A served repository, and what it takes to retrain on it."""

    root: Path
    base: BaseModel
    recipe: Path
    address: OwnerAddress

    @property
    def state_dir(self) -> Path:
        return self.root / ".inhouse"

    def get(self, route: str) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.address.url}{route}", headers=self._headers, timeout=60).json()
        return found

    def post(self, route: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(f"{self.address.url}{route}", json=body, headers=self._headers, timeout=PATIENCE_S)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.address.token}"}

    def ask(self) -> httpx.Response:
        return self.post("/v1/chat/completions", asked())

    @property
    def is_aside(self) -> bool:
        lent = self.get("/inhouse/status")["stepped_aside"]
        return lent is not None and lent["aside"]

    @property
    def is_back(self) -> bool:
        return bool(self.get("/inhouse/status")["model_loaded"])

    @property
    def just_enough(self) -> int:
        """Bytes with which training fits, and nothing more."""
        shape = shape_of(self.base)
        assert shape is not None
        return predict_memory(shape, load_recipe(str(self.recipe)), Conditions(False, "trl", 16 * GIB)).total

    def retrain(self, lease_s: float = LEASE_S) -> subprocess.Popen[str]:
        arguments = map(str, (self.base.path, self.root, self.recipe, self.just_enough, lease_s))
        command = [sys.executable, "-c", RETRAIN, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def asked(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "When does a clerk update a voucher?"}]
    return {"model": "inhouse", "messages": messages, "max_tokens": 4, **more}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module", params=["off", "on"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """An owner whose answers are made one at a time, and one that makes them together."""
    folder = tmp_path_factory.mktemp("aside")
    root = make_history(folder / "shop", commits=12).root
    model = make_tiny(folder / "tiny", load_tokenizer(resolve_base_model()), initializer_range=0.2)
    (root / "inhouse.toml").write_text(
        f"base_model = '{model}'\n[answer]\npassages = 0\n[engine]\nbatched = '{request.param}'\n"
    )
    recipe = folder / "tiny.toml"
    recipe.write_text(TINY.format(budget=3000, rate=1e-3))
    command = [sys.executable, "-m", "inhouse_server.cli", "serve", "--repo", str(root), "--port", "0"]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + PATIENCE_S
        while (found := find_owner(root / ".inhouse")) is None:
            assert time.monotonic() < deadline and process.poll() is None, "the owner did not come up"
            time.sleep(0.1)
        house = House(root, resolve_base_model(str(model)), recipe, found)
        until(lambda: house.is_back)
        yield house
        process.terminate()


def test_a_retraining_that_is_killed_brings_the_owner_back(house: House) -> None:
    before = house.get("/inhouse/memory")
    assert before["lends"] and before["model"] > 0
    with house.retrain() as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.strip() == "training":
                break
        assert "The owner process" in said and "is asked to step aside" in said, said
        refused = house.ask()
        assert refused.status_code == 503 and refused.headers["Retry-After"] == "30"
        assert f"made room for a retraining (process {process.pid})" in refused.json()["error"]["message"]
        assert house.post("/inhouse/ask", {"question": "When?"}).status_code == 503
        with pytest.raises(openai.InternalServerError):
            client = openai.OpenAI(base_url=f"{house.address.url}/v1", api_key=house.address.token, max_retries=0)
            client.chat.completions.create(**asked(stream=True))
        assert house.post("/inhouse/search", {"query": "voucher"}).json()["results"]
        assert house.post("/inhouse/uses", {"name": "update_voucher"}).status_code == 200
        assert house.get("/inhouse/memory")["model"] == 0
        assert house.get("/inhouse/status")["stepped_aside"]["pid"] == process.pid
        killed = time.monotonic()
        process.kill()
    until(lambda: house.is_back)
    assert time.monotonic() - killed < LEASE_S + 30
    assert house.ask().status_code == 200 and house.get("/inhouse/status")["stepped_aside"] is None


def test_after_a_retraining_the_owner_is_back_with_what_it_decided(house: House) -> None:
    with house.retrain(lease_s=60) as process:
        said = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 0, said
    result = json.loads(said.splitlines()[-1])
    assert "waiting for answers" in said or "is asked to step aside" in said
    until(lambda: house.is_back)  # long before the lease would have ended
    answer = house.ask().json()
    assert answer["inhouse"]["provenance"]["adapter"] == result["current"]
    assert result["decision"] in ("promoted", "rejected")


def test_a_failure_brings_the_owner_back_with_the_adapter_that_is_current_then(house: House, tmp_path: Path) -> None:
    registry = Registry(house.state_dir / "adapters")
    manifest = AdapterManifest(house.base.name, house.base.sha256, "abc")
    version = registry.add(random_adapter(house.base, tmp_path / "made", r=2), manifest).version
    with pytest.raises(RuntimeError, match="the disk is full"), room_at(house) as room:
        room.make()
        room.make()  # a second call has nothing to do
        assert house.is_aside and house.ask().status_code == 503
        registry.promote(version, "by hand")
        raise RuntimeError("the disk is full")
    until(lambda: house.is_back)
    assert house.ask().json()["inhouse"]["provenance"]["adapter"] == version
    registry.use_base("by hand")


def room_at(house: House) -> RoomForTraining:
    def measure() -> tuple[Device, ...]:
        return (Device("the test's machine", "", 16 * GIB, house.just_enough),)

    recipe: Recipe = load_recipe(str(house.recipe))
    return RoomForTraining(house.state_dir, recipe, house.base, True, measure=measure, lease_s=60)


def test_an_answer_under_way_ends_first(house: House) -> None:
    endless = asked(max_tokens=400, stream=True)
    client = openai.OpenAI(base_url=f"{house.address.url}/v1", api_key=house.address.token, timeout=PATIENCE_S)
    chunks = client.chat.completions.create(**endless)
    assert next(iter(chunks))
    lease = {"lease": "by-hand-1", "pid": 42, "seconds": 120}
    first = house.post("/inhouse/step-aside", lease).json()
    assert first["answering"] == 1 and not first["aside"]
    assert house.ask().status_code == 503
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[-1] in ("stop", "length")
    until(lambda: bool(house.post("/inhouse/step-aside", lease).json()["aside"]))
    taken = house.post("/inhouse/step-aside", {**lease, "lease": "another-1"})
    assert taken.status_code == 409 and "process 42" in taken.json()["error"]["message"]
    assert house.post("/inhouse/come-back", {"lease": "by-hand-1"}).json() == {"stepped_aside": None}
    until(lambda: house.is_back)
    assert house.ask().status_code == 200


def test_status_says_for_whom_and_until_when(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    lease = {"lease": "by-hand-2", "pid": 42, "seconds": 120}
    house.post("/inhouse/step-aside", lease)
    until(lambda: house.is_aside)
    assert main(["status", "--repo", str(house.root)]) == 0
    told = capsys.readouterr().out
    assert "Stepped aside:" in told and "for a retraining (process 42), until " in told
    assert main(["ask", "When?", "--repo", str(house.root)]) == 1
    assert "search goes on" in " ".join(capsys.readouterr().err.split())
    house.post("/inhouse/come-back", {"lease": "by-hand-2"})
    until(lambda: house.is_back)


def test_wrong_leases_are_refused(house: House) -> None:
    for body in ({}, {"lease": "short", "pid": 1, "seconds": 5}, {"lease": "long-enough", "pid": 1, "seconds": 1e6}):
        assert house.post("/inhouse/step-aside", body).status_code == 400
    assert house.post("/inhouse/come-back", {"lease": "nobodys-lease"}).status_code == 200
    assert house.is_back


def test_two_ask_at_once_and_one_has_it(house: House) -> None:
    told: list[int] = []

    def ask(name: str) -> None:
        told.append(house.post("/inhouse/step-aside", {"lease": name, "pid": 42, "seconds": 60}).status_code)

    askers = [threading.Thread(target=ask, args=(f"asker-{number}-of-two",)) for number in range(2)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert sorted(told) == [200, 409]
    for number in range(2):
        house.post("/inhouse/come-back", {"lease": f"asker-{number}-of-two"})
    until(lambda: house.is_back)
