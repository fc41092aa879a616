"""The main job on a repository that this test creates: index, fine-tune, evaluate, gate, promote, serve, ask."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from inhouse_server.owner import OwnerAddress, ensure_owner
from inhouse_training import BaseModel
from tests.server.conftest import git

HOUSE_MODULE = '''"""{title} of the ledger."""

from house.result import Outcome, accept, refuse
from house.audit import record_event


def {name}_entry(ledger: "Ledger", pennies: int) -> Outcome[int]:
    """Add {title} to the ledger, in pennies."""
    if pennies < 0:
        return refuse("{name}_negative")
    record_event("ledger.{name}", pennies=pennies)
    return accept(ledger.total + pennies)
'''

TRAIN_TOKENS = 2_500
LEARNING_RATE = "3e-3"
"""More than the recipe's, so that few tokens are enough for the convention."""
NAMES = [f"{colour}_{thing}" for colour in ("red", "blue", "gold", "grey")
         for thing in ("fee", "bonus", "refund", "charge", "rebate", "levy")]  # fmt: skip


def inhouse(*arguments: str, codes: tuple[int, ...] = (0,)) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "inhouse_server.cli", *arguments, "--json"], capture_output=True, text=True
    )
    assert done.returncode in codes, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose every change follows one house convention."""
    root = tmp_path_factory.mktemp("ledger") / "ledger"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    for name in NAMES:
        title = name.replace("_", " ").capitalize()
        (root / f"{name}.py").write_text(HOUSE_MODULE.format(name=name, title=title))
        git(root, "add", ".")
        git(root, "commit", "--quiet", "-m", f"Add the {name.replace('_', ' ')} to the ledger")
    return root


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped trial recipe with smaller budgets, for training and for what is scored."""
    text = Path("training/recipes/cpu-trial.toml").read_text()
    budgets = {"max_train_tokens": TRAIN_TOKENS, "prompt_tokens": 220, "scored_tokens": 32}
    probes = {"probe_questions": 4, "probe_tokens": 16}
    for key, value in {"learning_rate": LEARNING_RATE, **budgets, **probes}.items():
        text, replaced = re.subn(rf"^{key} = \d[\d_e-]*", f"{key} = {value}", text, flags=re.M)
        assert replaced == 1
    path = tmp_path_factory.mktemp("recipe") / "smaller-trial.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def retrained(ledger: Path, recipe: Path, base_model: BaseModel) -> dict[str, Any]:
    result: dict[str, Any] = inhouse("retrain", "--repo", str(ledger), "--recipe", str(recipe), codes=(0, 3))
    return result


@contextmanager
def owner_of(root: Path) -> Iterator[OwnerAddress]:
    try:
        yield ensure_owner(root, timeout_s=60)
    finally:
        inhouse("serve", "--stop", "--repo", str(root))


@pytest.mark.timeout(900)
def test_a_house_convention_is_learned_and_the_gate_decides_by_its_interval(retrained: dict[str, Any]) -> None:
    losses, gain = retrained["metrics"]["held_out"], retrained["metrics"]["gain"]["over_base"]
    assert losses["closed_book"]["candidate"] < losses["closed_book"]["base"] / 2
    # Every module here is a near copy of the next, so that retrieval alone may win: then the gate must say no.
    assert retrained["decision"] == ("promoted" if gain["low"] > 0 else "rejected")
    assert retrained["current"] == (retrained["candidate"] if gain["low"] > 0 else None)
    assert retrained["reasons"]
    assert Path(retrained["report"]).read_text().startswith("<!")


def test_a_second_retraining_is_skipped_and_says_why(ledger: Path, recipe: Path, retrained: dict[str, Any]) -> None:
    again = inhouse("retrain", "--repo", str(ledger), "--recipe", str(recipe))
    assert again["decision"] == "skipped"
    assert again["current"] == retrained["current"]
    assert "changed" in again["reasons"][0]


def test_the_adapter_is_listed_and_can_be_rolled_back(ledger: Path, retrained: dict[str, Any]) -> None:
    inhouse("adapters", "promote", retrained["candidate"], "--repo", str(ledger))
    [version] = inhouse("adapters", "list", "--repo", str(ledger))
    assert version["version"] == retrained["candidate"]
    assert version["current"] is True
    assert inhouse("adapters", "rollback", "--repo", str(ledger))["current"] is None
    assert inhouse("adapters", "promote", version["version"], "--repo", str(ledger))["current"]


def test_every_model_can_be_asked_and_answers_say_which_one_spoke(ledger: Path, retrained: dict[str, Any]) -> None:
    with owner_of(ledger) as owner:
        client = openai.OpenAI(base_url=f"{owner.url}/v1", api_key=owner.token, max_retries=0)
        models = [model.id for model in client.models.list()]
        assert models == ["inhouse", "SmolLM2-135M-Instruct", retrained["candidate"], "all-MiniLM-L6-v2"]
        spoke = {}
        for model in models[:-1]:
            answer = client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": "How is an entry added to the ledger?"}],
                max_tokens=24,
            )
            assert answer.model_extra is not None
            spoke[model] = answer.model_extra["inhouse"]["provenance"]["adapter"]
        assert spoke == {
            "inhouse": retrained["candidate"],
            "SmolLM2-135M-Instruct": None,
            retrained["candidate"]: retrained["candidate"],
        }


def test_a_corrupt_adapter_is_refused_and_the_base_still_answers(
    ledger: Path, retrained: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INHOUSE_ANSWER_MAX_TOKENS", "24")
    weights = ledger / ".inhouse" / "adapters" / retrained["candidate"] / "adapter_model.safetensors"
    sound = weights.read_bytes()
    weights.chmod(0o600)
    weights.write_bytes(sound[: len(sound) // 2])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "inhouse_server.cli", "ask", "x", "--repo", str(ledger)],
            capture_output=True,
            text=True,
            env=os.environ,
        )
        assert done.returncode == 1
        assert retrained["candidate"] in done.stderr
        assert "Traceback" not in done.stderr
        assert inhouse("ask", "What is a refund?", "--adapter", "base", "--repo", str(ledger))["answer"]
    finally:
        weights.write_bytes(sound)
