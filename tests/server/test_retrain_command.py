"""`inhouse retrain` before it trains: what it would do, and whether it is time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from inhouse_retrieval import Repository
from inhouse_server.cli import main
from inhouse_server.settings import Settings
from inhouse_training import AdapterManifest, BaseModel, Registry, hold_runs, load_recipe

from ..training.adapters import random_adapter
from ..training.finished import finish_run
from ..training.history import make_history
from .conftest import make_repository

Inhouse = Callable[..., "Answer"]


class Answer(NamedTuple):
    """What one command came to."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return make_history(tmp_path_factory.mktemp("command") / "shop", commits=16).with_wiki(Settings().wiki)


@pytest.fixture
def inhouse(capsys: pytest.CaptureFixture[str]) -> Iterator[Inhouse]:
    """The command line in this process, which spares each call the start of another one."""

    def run(*arguments: str) -> Answer:
        code = main([*arguments])
        return Answer(code, *capsys.readouterr())

    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


def json_of(done: Answer) -> dict[str, Any]:
    assert done.code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_dry_run_leaves_not_even_a_state_directory(
    shop: Repository, inhouse: Inhouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INHOUSE_CACHE", str(tmp_path / "empty"))
    plan = json_of(inhouse("retrain", "--dry-run", "--json", "--repo", str(shop.root)))
    assert plan["decision"] == "train" and plan["rows"] is None
    assert "would be fetched" in plan["reasons"][-1]
    assert not (shop.root / ".inhouse").exists() and not (tmp_path / "empty").exists()


def test_a_dry_run_tells_memory_time_and_cost_and_refuses_what_does_not_fit(
    shop: Repository, inhouse: Inhouse, base_model: BaseModel, tmp_path: Path
) -> None:
    asked = ("--dry-run", "--card", "t4-16gb", "--price", "0.5", "--repo", str(shop.root))
    plan = json_of(inhouse("train", *asked, "--json"))
    assert plan["decision"] == "train" and plan["forecast"]["rows"]["label_tokens"] > 1000
    assert plan["forecast"]["memory"]["total"] < plan["forecast"]["machine"]["memory"]
    assert plan["forecast"]["cost"] == pytest.approx(plan["forecast"]["seconds"] / 3600 * 0.5)
    shipped = Path("training/recipes/cpu-trial.toml").read_text()
    huge = shipped.replace("max_tokens = 768", "max_tokens = 100_000").replace(
        'checkpointing = "auto"', 'checkpointing = "none"'
    )
    (tmp_path / "huge.toml").write_text(huge)
    refused = inhouse("retrain", *asked, "--recipe", str(tmp_path / "huge.toml"))
    assert refused.code == 1 and refused.stdout.startswith("would refuse:\n")
    assert "and would fit" in refused.stdout and "memory: about" in refused.stdout
    assert not (shop.root / ".inhouse").exists()


def test_what_nothing_could_judge_is_refused_beforehand_as_by_the_run_itself(
    tmp_path: Path, inhouse: Inhouse, base_model: BaseModel
) -> None:
    shop = make_history(tmp_path / "shop", commits=14)
    registry = Registry(shop.root / ".inhouse" / "adapters")
    newest = shop.git("rev-parse", "HEAD").decode().strip()
    made = random_adapter(base_model, tmp_path / "made", r=2)
    known = registry.add(made, AdapterManifest(base_model.name, base_model.sha256, newest)).version
    registry.promote(known)
    told = f"The current adapter {known} was trained on all but 0 of the changes that would judge the candidate"
    planned = inhouse("retrain", "--dry-run", "--repo", str(shop.root))
    assert planned.code == 1 and planned.stdout.startswith(f"would refuse:\n  {told}")
    done = inhouse("retrain", "--repo", str(shop.root))
    assert done.code == 1 and told in " ".join(done.stderr.split())
    assert not list((shop.root / ".inhouse" / "runs").glob("*/dataset*"))
    # A training alone judges nothing.
    assert json_of(inhouse("train", "--dry-run", "--json", "--repo", str(shop.root)))["decision"] == "train"


def test_rows_beyond_the_context_are_refused_beforehand_as_by_the_run_itself(
    tmp_path: Path, inhouse: Inhouse, base_model: BaseModel
) -> None:
    shop = make_history(tmp_path / "shop", commits=14)
    long = Path("training/recipes/cpu-trial.toml").read_text().replace("max_tokens = 768", "max_tokens = 9000")
    (tmp_path / "long.toml").write_text(long)
    asked = ("--recipe", str(tmp_path / "long.toml"), "--repo", str(shop.root))
    told = f"makes rows of up to 9000 tokens, and {base_model.name} reads 8192. Lower data.max_tokens to 8192."
    planned = inhouse("retrain", "--dry-run", "--card", "h100", *asked)
    assert planned.code == 1 and told in planned.stdout
    for command in (("retrain",), ("retrain", "--all-data"), ("train",)):
        done = inhouse(*command, *asked)
        assert done.code == 1 and told in " ".join(done.stderr.split()), done.stderr
    assert not list((shop.root / ".inhouse" / "runs").glob("*/training/metrics.jsonl"))


@pytest.mark.parametrize("command", ["train", "retrain"])
@pytest.mark.parametrize("option", [("--card", "h100"), ("--price", "2.79"), ("--price", "0")])
def test_what_belongs_to_a_plan_begins_no_run(
    shop: Repository, inhouse: Inhouse, command: str, option: tuple[str, str]
) -> None:
    for more in ((), ("--all-data",)):
        refused = inhouse(command, *option, *more, "--repo", str(shop.root))
        assert refused.code == 2 and f"{option[0]} goes with --dry-run." in refused.stderr
    assert not (shop.root / ".inhouse").exists()


def test_a_run_that_is_not_due_is_skipped(shop: Repository, inhouse: Inhouse, base_model: BaseModel) -> None:
    def told(*arguments: str) -> dict[str, Any]:
        return json_of(inhouse("retrain", *arguments, "--json", "--repo", str(shop.root)))

    state_dir = shop.root / ".inhouse"
    state_dir.mkdir()
    started = datetime.now(UTC) - timedelta(days=2)
    done = finish_run(shop, state_dir, load_recipe("cpu-trial"), base_model, started)
    (shop.root / "inhouse.toml").write_text('[retrain]\nevery = "7d"\n')
    try:
        result = told()  # as a scheduler calls it: the settings say when
        assert (result["decision"], result["candidate"]) == ("skipped", done.candidate)
        assert f"began {started:%Y-%m-%d %H:%M} UTC" in result["reasons"][0]
        plan = told("--dry-run", "--after-prs", "3")
        assert plan["decision"] == "skip" and "0 changes have landed since" in plan["reasons"][0]
        assert "Nothing to learn from changed" in told("--dry-run", "--every", "0")["reasons"][0]
        status = json_of(inhouse("status", "--json", "--repo", str(shop.root)))
        assert status["last_retrain"]["candidate"] == done.candidate
        assert status["next_retrain"] == (started + timedelta(days=7, hours=-1)).isoformat()
    finally:
        (shop.root / "inhouse.toml").unlink()
    plain = inhouse("retrain", "--dry-run", "--repo", str(shop.root))
    assert plain.stdout.startswith("would skip:\n") and "7 held out" in plain.stdout


def test_adapters_that_nothing_needs_are_collected(tmp_path: Path, inhouse: Inhouse, base_model: BaseModel) -> None:
    shop = make_history(tmp_path / "shop", commits=14)
    assert json_of(inhouse("adapters", "gc", "--json", "--repo", str(shop.root)))["freed_bytes"] == 0
    state_dir = shop.root / ".inhouse"
    state_dir.mkdir()
    done = finish_run(shop, state_dir, load_recipe("cpu-trial"), base_model, datetime.now(UTC))
    engine = "[engine]\nkind = 'openai'\nurl = 'http://127.0.0.1:9/v1'\nmodel = 'm'\n"
    served = f"{engine}adapters = {{'{done.candidate}' = 'a'}}\n"
    (shop.root / "inhouse.toml").write_text(served)
    assert json_of(inhouse("adapters", "gc", "--json", "--repo", str(shop.root)))["removed"] == []
    (shop.root / "inhouse.toml").unlink()
    listed = inhouse("adapters", "list", "--repo", str(shop.root))
    assert f"{done.candidate}  " in listed.stdout and listed.stdout.rstrip().endswith(", never promoted")
    with hold_runs(state_dir):  # a retraining may be about to promote what it has just registered
        assert json_of(inhouse("status", "--json", "--repo", str(shop.root)))["retraining"] == os.getpid()
        busy = inhouse("adapters", "gc", "--repo", str(shop.root))
    assert busy.code == 1 and "being retrained already" in busy.stderr
    would = json_of(inhouse("adapters", "gc", "--dry-run", "--json", "--repo", str(shop.root)))
    did = json_of(inhouse("adapters", "gc", "--json", "--repo", str(shop.root)))
    assert would == {**did, "dry_run": True}
    assert [entry["version"] for entry in did["removed"]] == [done.candidate] and did["freed_bytes"] > 0
    assert not list((state_dir / "adapters").glob("*/manifest.json"))


def test_damaged_versions_are_told_and_not_passed_over(tmp_path: Path, inhouse: Inhouse, base_model: BaseModel) -> None:
    shop = make_history(tmp_path / "shop", commits=14)
    state_dir = shop.root / ".inhouse"
    state_dir.mkdir()
    done = finish_run(shop, state_dir, load_recipe("cpu-trial"), base_model, datetime.now(UTC))
    assert done.candidate
    Registry(state_dir / "adapters").promote(done.candidate)
    weights = state_dir / "adapters" / done.candidate / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    listed = inhouse("adapters", "list", "--repo", str(shop.root))
    assert f"The adapter {done.candidate} is damaged: adapter_model.safetensors" in " ".join(listed.stderr.split())
    weights.with_name("manifest.json").unlink()
    listed = inhouse("adapters", "list", "--repo", str(shop.root))
    assert "its manifest cannot be read" in " ".join(listed.stderr.split()) and "No adapter yet" not in listed.stdout


def test_a_clock_that_was_set_back_is_said_and_not_waited_for(
    tmp_path: Path, inhouse: Inhouse, base_model: BaseModel
) -> None:
    shop = make_history(tmp_path / "shop", commits=14).with_wiki(Settings().wiki)
    (shop.root / ".inhouse").mkdir()
    ahead = datetime.now(UTC) + timedelta(days=900)
    finish_run(shop, shop.root / ".inhouse", load_recipe("cpu-trial"), base_model, ahead)
    told = inhouse("retrain", "--dry-run", "--every", "7d", "--json", "--repo", str(shop.root))
    assert f"is dated {ahead:%Y-%m-%d %H:%M} UTC" in told.stderr and "was set back" in told.stderr
    # It looked, and found nothing new; it did not wait for two years.
    assert "Nothing to learn from changed" in json_of(told)["reasons"][0]


def test_what_was_never_evaluated_is_promoted_only_with_a_warning(
    tmp_path: Path, inhouse: Inhouse, base_model: BaseModel
) -> None:
    shop = make_history(tmp_path / "shop", commits=14)
    (shop.root / ".inhouse").mkdir()
    done = finish_run(shop, shop.root / ".inhouse", load_recipe("cpu-trial"), base_model, datetime.now(UTC))
    assert done.candidate is not None
    assert "not evaluated" in inhouse("adapters", "list", "--repo", str(shop.root)).stdout
    promoted = inhouse("adapters", "promote", done.candidate, "--repo", str(shop.root))
    assert promoted.code == 0 and f"{done.candidate} was never evaluated" in promoted.stderr
    (entry,) = Registry(shop.root / ".inhouse" / "adapters").history()
    assert entry.note == "by hand, not evaluated"
    assert inhouse("train", "--all-data", "--dry-run", "--repo", str(shop.root)).code == 2


def test_a_version_of_another_base_model_is_not_promoted_and_the_base_alone_may_be(
    tmp_path: Path, inhouse: Inhouse, base_model: BaseModel
) -> None:
    root = make_repository(tmp_path / "shop")
    registry = Registry(root / ".inhouse" / "adapters")
    own, foreign = (
        registry.add(random_adapter(base_model, tmp_path / "made", r=2), AdapterManifest(name, digest, "abc")).version
        for name, digest in ((base_model.name, base_model.sha256), ("acme/other-7b", "f" * 64))
    )
    refused = inhouse("adapters", "promote", foreign, "--repo", str(root))
    assert refused.code == 1 and "was made for acme/other-7b" in refused.stderr and registry.current() is None
    assert inhouse("adapters", "promote", own, "--repo", str(root)).code == 0
    assert json_of(inhouse("adapters", "promote", "base", "--json", "--repo", str(root))) == {"current": None}
    assert json_of(inhouse("adapters", "rollback", "--json", "--repo", str(root))) == {"current": own}


@pytest.mark.long  # the real model, loaded and asked
def test_what_the_owner_has_loaded_is_not_collected(
    tmp_path: Path, inhouse: Inhouse, base_model: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INHOUSE_ANSWER_MAX_TOKENS", "8")
    root = make_repository(tmp_path / "owned")
    registry = Registry(root / ".inhouse" / "adapters")
    manifest = AdapterManifest(base_model.name, base_model.sha256, "abc")
    asked, other = (
        registry.add(random_adapter(base_model, tmp_path / f"made{rank}", r=rank), manifest).version for rank in (2, 4)
    )
    command = [sys.executable, "-m", "inhouse_server.cli", "serve", "--repo", str(root), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None and owner.stdout.readline()
        try:
            assert inhouse("ask", "When do couriers come?", "--adapter", asked, "--repo", str(root)).code == 0
            assert json_of(inhouse("status", "--json", "--repo", str(root)))["adapters_loaded"] == [asked]
            gone = json_of(inhouse("adapters", "gc", "--json", "--repo", str(root)))["removed"]
            assert [entry["version"] for entry in gone] == [other]
            assert inhouse("ask", "Where?", "--adapter", asked, "--repo", str(root)).code == 0
            assert inhouse("ask", "Where?", "--adapter", other, "--repo", str(root)).code == 1
        finally:
            assert json_of(inhouse("serve", "--stop", "--json", "--repo", str(root))) == {"stopped": True}
    assert json_of(inhouse("adapters", "gc", "--json", "--repo", str(root)))["removed"][0]["version"] == asked


def test_wrong_use_is_told(inhouse: Inhouse) -> None:
    for arguments, code, problem in (
        (("--every", "often"), 2, "'often' is not a length of time"),
        (("--after-prs", "0"), 2, "--after-prs"),
        (("install", "--timer", "moon"), 2, "moon"),
        (("install", "--timer", "cron", "--at", "24:00"), 2, "24:00"),
        (("--every", "7d", "install", "--timer", "cron"), 2, "come after its name"),
    ):
        done = inhouse("retrain", *arguments)
        assert (done.code, problem in done.stderr) == (code, True), done.stderr
