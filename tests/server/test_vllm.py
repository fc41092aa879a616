"""Several vLLM servers behind one owner, against vLLM's protocol (``vllm_double.py``)."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from inhouse_retrieval import InhouseError
from inhouse_server.engines import OpenAIEngine
from inhouse_server.engines.failures import Overloaded, ServerLost, retry_after
from inhouse_server.vllm import client, server_state
from inhouse_server.vllm.client import VllmClient
from inhouse_server.vllm.engine import VllmEngine
from inhouse_server.vllm.fleet import Fleet, Limits
from inhouse_server.vllm.server_state import ServerState
from inhouse_training import (
    BASE,
    AdapterManifest,
    Finished,
    GenerationRequest,
    Golden,
    Message,
    Registry,
    TextDelta,
    keep_golden,
    read_golden,
)

from .vllm_double import BASE_NAME, HashedModel, VllmDouble, serving

IDS = ((5, 6, 7, 8, 9), (11, 12, 13, 14))


def register(registry: Registry, name: str, golden: bool = True, **config: Any) -> str:
    """A version whose weights are the bytes ``name``."""
    folder = registry.root.parent / f"made-{name}"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_text(name)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, "bias": "none", **config}))
    added = registry.add(folder, AdapterManifest("tiny", "0" * 64, "abc"))
    if golden:
        model = HashedModel()
        figures = [tuple(tuple(model.nats(f, list(ids))) for ids in IDS) for f in (None, added.path)]
        keep_golden(registry, Golden(added.version, "tiny", IDS, *figures))
    return added.version


class House:
    """A registry, its servers, and the fleet that looks after them."""

    def __init__(self, folder: Path, servers: tuple[VllmDouble, ...], linger_s: float = 0.0) -> None:
        self.folder, self.servers, self.linger_s = folder, servers, linger_s
        self.registry = Registry(folder / "adapters")
        self.start()

    def start(self) -> None:
        """What a process begins with."""
        # Without TLS there is nothing to verify, and reading the system's authorities takes longer than a test.
        self.states = [
            ServerState(
                VllmClient(each.url, "none", verify=False), OpenAIEngine(f"{each.url}/v1", BASE_NAME, verify=False)
            )
            for each in self.servers
        ]
        limits = Limits(BASE_NAME, 16, str(self.registry.root))
        self.fleet = Fleet(self.states, self.registry, limits, self.folder, self.linger_s)
        self.engine = VllmEngine(self.fleet, self.states)

    def answer(self, adapter: str | None = None) -> str:
        asked = GenerationRequest((Message("user", "When?"),), adapter or self.fleet.serving or BASE)
        *deltas, last = self.engine.stream(asked, Event())
        assert isinstance(last, Finished) and last.prompt_tokens == 7
        return "".join(each.text for each in deltas if isinstance(each, TextDelta))

    def server(self, at: int) -> dict[str, Any]:
        told: dict[str, Any] = self.fleet.status()["servers"][at]
        return told


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(server_state, "TRY_AGAIN_S", 0.0)
    with serving(VllmDouble(HashedModel()), VllmDouble(HashedModel())) as doubles:
        made = House(tmp_path, doubles)
        yield made
        made.engine.close()


def test_a_promoted_version_answers_once_every_server_has_it_and_computes_it(house: House) -> None:
    first, second = house.servers
    assert house.answer().endswith("says base.")
    version = register(house.registry, "one")
    house.registry.promote(version)
    second.off = 0.5  # as if it read the adapter's scale wrongly
    house.fleet.reconcile()
    assert house.fleet.serving is None and house.answer().endswith("says base.")
    assert house.server(0)["ready"] == [version] and house.server(1)["ready"] == []
    assert "computes something else" in house.server(1)["failed"][version]
    assert house.fleet.status()["waiting"] == version and second.adapters == {}
    second.off = 0.001  # rounding
    house.fleet.reconcile()
    assert house.fleet.serving == version and house.answer().endswith(f"says {version}.")
    assert first.asked("/v1/load_lora_adapter") == [
        {"lora_name": version, "lora_path": str(house.registry.root / version)}
    ]


def test_another_base_model_is_noticed(house: House) -> None:
    version = register(house.registry, "one")
    golden = read_golden(house.registry, version)
    other = tuple(tuple(each + 0.3 for each in row) for row in golden.base)
    keep_golden(house.registry, Golden(version, "tiny", golden.ids, other, golden.adapter))
    house.registry.promote(version)
    house.fleet.reconcile()
    assert house.fleet.serving is None and "is not tiny" in house.server(0)["problem"]
    for _ in range(2):  # nor does it answer for the base, however often it says that it is there
        house.fleet.reconcile()
        with pytest.raises(Overloaded, match="No model server can answer"):
            house.answer(BASE)
    keep_golden(house.registry, golden)
    house.fleet.reconcile()
    assert house.fleet.serving == version and house.answer(BASE).endswith("says base.")


def test_a_server_may_be_late_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    version = register(house.registry, "one")
    house.registry.promote(version)
    house.fleet.reconcile()
    monkeypatch.setattr(client, "ASK_S", 0.05)
    with monkeypatch.context() as patched:
        patched.setattr(VllmDouble, "late_s", 0.2)
        house.fleet.reconcile()
        assert house.server(0)["up"] and house.answer().endswith(f"says {version}.")
        house.fleet.reconcile()
        assert not house.server(0)["up"] and "does not answer within" in house.server(0)["problem"]
    monkeypatch.undo()
    house.fleet.reconcile()
    assert house.server(0)["ready"] == [version]


def test_a_server_too_busy_to_be_checked_keeps_the_adapter(house: House) -> None:
    version = register(house.registry, "one")
    house.registry.promote(version)
    for server in house.servers:
        server.busy = (503, "1")
    house.fleet.reconcile()
    assert house.server(0)["ready"] == [] and house.server(0)["failed"] == {}
    for server in house.servers:
        server.busy = None
    house.fleet.reconcile()
    assert house.fleet.serving == version
    assert len(house.servers[0].asked("/v1/load_lora_adapter")) == 1


def test_an_adapter_too_weak_to_be_seen_is_served_and_said_to_be(house: House) -> None:
    version = register(house.registry, "one")
    golden = read_golden(house.registry, version)
    for server in house.servers:  # computes the base where the adapter should be, which this record cannot tell
        server.computing = type(
            "Plain", (HashedModel,), {"nats": lambda _, folder, ids: HashedModel().nats(None, ids)}
        )()
    keep_golden(house.registry, Golden(version, "tiny", golden.ids, golden.base, golden.base))
    house.registry.promote(version)
    house.fleet.reconcile()
    assert house.fleet.serving == version and house.server(0)["not_telling"] == [version]


def test_the_old_version_stays_until_its_last_answer_ended(house: House) -> None:
    old, new = register(house.registry, "one"), register(house.registry, "two")
    house.registry.promote(old)
    house.fleet.reconcile()
    taken = house.fleet.take(old)
    house.registry.promote(new)
    house.fleet.reconcile()
    assert house.fleet.serving == new
    assert house.answer(old).endswith(f"says {old}."), "a question that was accepted before"
    house.fleet.reconcile()
    assert all(set(server.adapters) == {old, new} for server in house.servers)
    house.fleet.give_back(taken, old)
    house.fleet.reconcile()
    assert all(set(server.adapters) == {new} for server in house.servers)
    assert set(house.engine.loaded_adapters) == {old, new}, "files are collected later still"
    with pytest.raises(InhouseError, match="do not have"):
        house.answer(old)


def test_an_old_version_lingers_for_questions_on_their_way(house: House) -> None:
    house.fleet = Fleet(house.states, house.registry, Limits(BASE_NAME, 16, str(house.registry.root)), house.folder, 60)
    for name in ("one", "two"):
        house.registry.promote(register(house.registry, name))
        house.fleet.reconcile()
    house.fleet.reconcile()
    assert all(len(server.adapters) == 2 for server in house.servers)


def test_what_others_loaded_is_left_alone_and_a_name_from_elsewhere_is_told(house: House, tmp_path: Path) -> None:
    version = register(house.registry, "one")
    stranger, elsewhere = tmp_path / "stranger", tmp_path / "elsewhere"
    theirs = {"0123456789ab": stranger, "..": stranger, "sql-lora": stranger}
    house.servers[0].adapters = {**theirs, version: elsewhere}
    house.registry.promote(version)
    for _ in range(2):
        house.fleet.reconcile()
    assert house.servers[0].adapters == {**theirs, version: elsewhere} and house.fleet.serving is None
    assert "another owner may answer with it" in house.server(0)["failed"][version]
    house.registry.promote(register(house.registry, "two"))
    for _ in range(2):
        house.fleet.reconcile()
    assert version in house.servers[0].adapters, "what another owner answers with is never unloaded"


def test_a_server_that_dies_is_passed_over_and_brought_back_up_to_date(house: House) -> None:
    version = register(house.registry, "one")
    house.registry.promote(version)
    house.fleet.reconcile()
    first, second = house.servers
    port = first.server_address[1]
    first.stop()
    assert [house.answer() for _ in range(4)] == [f"Couriers come at noon, says {version}."] * 4
    assert not house.server(0)["up"] and "cannot be reached" in house.server(0)["problem"]
    house.fleet.reconcile()
    assert not house.server(0)["up"] and house.fleet.serving == version
    again = VllmDouble(HashedModel(), port)
    with serving(again):
        house.fleet.reconcile()
        assert house.server(0)["ready"] == [version] and version in again.adapters
        assert again.asked("/v1/completions"), "it was checked again"
        second.stop()
        assert house.answer().endswith(f"says {version}.")
    second.__init__(HashedModel(), second.server_address[1])  # type: ignore[misc]  # the fixture stops both again
    first.__init__(HashedModel(), port)  # type: ignore[misc]


def test_a_server_that_lost_its_adapters_between_two_looks_is_passed_over(house: House) -> None:
    version = register(house.registry, "one")
    house.registry.promote(version)
    house.fleet.reconcile()
    house.servers[0].adapters.clear()
    assert [house.answer() for _ in range(3)] == [f"Couriers come at noon, says {version}."] * 3
    house.fleet.reconcile()
    assert house.server(0)["ready"] == [version]


def test_a_restart_of_the_owner_goes_on_with_the_version_that_served(house: House) -> None:
    old, new = register(house.registry, "one"), register(house.registry, "two", golden=False)
    house.registry.promote(old)
    house.fleet.reconcile()
    house.registry.promote(new)
    house.engine.close()
    house.start()
    assert house.fleet.serving == old and house.answer().endswith(f"says {old}.")
    assert f"inhouse adapters golden {new}" in house.server(0)["failed"][new]
    assert len(house.servers[0].asked("/v1/load_lora_adapter")) == 1, "it was there already"
    house.registry.rollback()
    (house.folder / "vllm.json").write_text("torn")
    house.start()
    assert house.fleet.serving == old


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"r": 768}, "its rank is 768, and vLLM takes 512 at most. Serve it merged"),
        ({"r": 64}, "has rank 64, and the servers take 16. Start them with --max-lora-rank 64"),
        ({"use_dora": True}, "DoRA"),
    ],
)
def test_what_vllm_does_not_load_is_never_sent_there(house: House, config: dict[str, Any], said: str) -> None:
    version = register(house.registry, "one", **config)
    house.registry.promote(version)
    house.fleet.reconcile()
    assert house.fleet.serving is None and said in house.server(0)["failed"][version]
    assert house.servers[0].asked("/v1/load_lora_adapter") == []


def test_servers_that_take_lower_ranks_than_said_or_see_no_files_say_so(house: House) -> None:
    version = register(house.registry, "one")
    house.registry.promote(version)
    house.servers[0].max_rank = 1
    (house.registry.root / version).rename(house.folder / "elsewhere")
    house.fleet.reconcile()
    assert "There is no adapter version" in house.server(0)["failed"][version]
    (house.folder / "elsewhere").rename(house.registry.root / version)
    house.fleet.reconcile()
    assert "greater than max_lora_rank 1" in house.server(0)["failed"][version]


def test_a_damaged_version_is_not_loaded(house: House) -> None:
    version = register(house.registry, "one")
    house.registry.promote(version)
    (house.registry.root / version / "adapter_model.safetensors").write_text("bit flipped")
    house.fleet.reconcile()
    assert house.fleet.serving is None and "is damaged" in house.server(1)["failed"][version]
    assert house.servers[1].asked("/v1/load_lora_adapter") == []


def test_a_busy_server_is_passed_over_and_when_all_are_its_wait_is_passed_on(house: House) -> None:
    first, second = house.servers
    first.busy = (503, "7")
    assert house.answer().endswith("says base.")
    second.busy = (429, "3")
    with pytest.raises(Overloaded) as refused:
        house.answer()
    assert (refused.value.status, refused.value.retry_s) == (429, 3.0)
    for server in house.servers:
        server.stop()
    with pytest.raises(Overloaded, match="No model server can answer") as refused:
        house.answer()
    assert refused.value.status == 503
    for server in house.servers:
        server.__init__(HashedModel(), server.server_address[1])  # type: ignore[misc]


def test_a_server_lost_in_the_middle_of_an_answer_is_said_and_not_begun_again(house: House) -> None:
    class Dying(HashedModel):
        def answer(self, folder: Path | None, asked: dict[str, Any]) -> Any:
            yield "Couriers "
            raise BrokenPipeError

    for server in house.servers:
        server.computing = Dying()
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(ServerLost, match="before it was complete"):
        house.answer()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), (None, 5.0), ("Fri, 27 Nov 2026 22:00:00 GMT", 5.0), ("-1", 0.0), ("nan", 5.0), ("1e9", 3600.0)],
)
def test_retry_after_is_read_within_bounds(header: str | None, seconds: float) -> None:
    assert retry_after(header) == seconds
