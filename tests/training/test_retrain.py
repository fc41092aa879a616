"""The whole job with the real model: the loss on later changes falls, the gate promotes it, once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from inhouse_retrieval import Busy, InhouseError, Repository, StateUnwritable
from inhouse_training import BaseModel, Registry, open_run
from inhouse_training.evaluation import Evaluation
from inhouse_training.gate import Decision
from inhouse_training.measures.model import evaluate_version
from inhouse_training.probes import Probes
from inhouse_training.recipe import Recipe, parse_recipe
from inhouse_training.retrain import retrain

from .conftest import TINY, make_tiny
from .history import commit, git, handler, make_history

SMALL = """
base_model = "SmolLM2-135M-Instruct"
[data]
max_tokens = 256
max_train_tokens = 2000
[lora]
rank = 8
alpha = 8
[optimizer]
learning_rate = 3e-3
accumulate = 2
max_passes = 1
[trainer]
kind = "trl"
[evaluation]
prompt_tokens = 256
scored_tokens = 24
probe_questions = 4
probe_tokens = 16
"""


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    folder = tmp_path / ".inhouse"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.long)])  # SmolLM2 takes two minutes
def test_a_repository_is_learned_judged_and_promoted(
    base_model: BaseModel, tokenizer: Any, tmp_path: Path, state_dir: Path, real: bool
) -> None:
    repository = make_history(tmp_path / "shop", commits=16)
    if real:
        base, text = base_model, SMALL
    else:
        # Weights this wide are moved by so few steps: by 0.2 to 0.5 in 11 histories, narrow ones by 0.014 to 0.044.
        path = make_tiny(tmp_path / "tiny", tokenizer, initializer_range=0.1)
        base, text = BaseModel("tiny", path, "0" * 64, ""), TINY.format(budget=6000, rate=5e-2)
    recipe = parse_recipe(text, "small", "small.toml")
    stages: list[str] = []
    result = retrain(repository, state_dir, recipe, base, lambda stage, done, total: stages.append(stage))

    assert result.decision == "promoted", result.reasons
    losses = result.metrics["held_out"]
    for mode in ("closed_book", "with_retrieval"):
        assert losses[mode]["candidate"] < losses[mode]["base"] - 0.1
    assert result.metrics["gain"]["over_base"]["low"] > 0
    registry = Registry(state_dir / "adapters")
    assert result.current == result.candidate == registry.current()
    assert result.candidate is not None
    manifest = registry.get(result.candidate).manifest
    assert manifest.snapshot == git(repository.root, "rev-parse", "HEAD~7")
    assert manifest.evaluated
    assert (registry.verify(result.candidate) / "adapter_model.safetensors").exists()
    assert stages.index("reading the history") < stages.index("training") < stages.index("evaluating")

    assert result.report is not None
    page = result.report.read_text()
    assert result.candidate in page
    assert "data:image/svg+xml;base64," in page
    assert "95 % interval" in result.report.with_suffix(".md").read_text()
    assert "History of versions" in page and "served now" in page
    # Seven changes of one moment: a bin, no curve to show, and no word on how often to retrain.
    (oldest,) = result.metrics["decay"]["bins"]
    assert oldest["changes"] == 7 and oldest["gain"]["mean"] == pytest.approx(
        result.metrics["gain"]["over_base"]["mean"], abs=1e-3
    )
    assert result.metrics["decay"]["advice"] == "" and "Decay" not in page
    told = json.loads(json.dumps(result.to_json()))
    assert set(told) == {"decision", "reasons", "candidate", "current", "metrics", "report"}
    (judged,) = (state_dir / "runs").glob("*/evaluation.json")
    assert json.loads(judged.read_text())["weights"] == "full", "a processor has no others"

    # The same inputs again: skipped, at once, with the same figures.
    again = retrain(repository, state_dir, recipe, base)
    assert (again.decision, again.candidate, again.metrics) == ("skipped", result.candidate, result.metrics)

    # Killed between promotion and result: the same decision; the candidate does not compete with itself.
    (run,) = (state_dir / "runs").iterdir()
    (run / "result.json").unlink()
    resumed = retrain(repository, state_dir, recipe, base)
    assert (resumed.decision, resumed.candidate) == ("promoted", result.candidate)

    # What it saw cannot judge it.
    git(repository.root, "reset", "--quiet", "--hard", "HEAD~3")
    with pytest.raises(InhouseError, match="trained on changes that would judge it"):
        evaluate_version(repository, state_dir, recipe, base)


def test_one_retraining_at_a_time(
    history: Repository, tiny_base: BaseModel, tiny_recipe: Recipe, state_dir: Path
) -> None:
    (state_dir / "retrain.pid").write_text("4711\n")
    with FileLock(state_dir / "retrain.lock"), pytest.raises(Busy, match="process 4711"):
        retrain(history, state_dir, tiny_recipe, tiny_base)


def test_a_short_history_and_a_missing_state_directory_are_told(
    tiny_base: BaseModel, tiny_recipe: Recipe, tmp_path: Path, state_dir: Path
) -> None:
    repository = make_history(tmp_path / "young", commits=5)
    with pytest.raises(InhouseError, match="too short to train"):
        retrain(repository, state_dir, tiny_recipe, tiny_base)
    (tmp_path / "file").write_text("")
    with pytest.raises(StateUnwritable):
        retrain(repository, tmp_path / "file", tiny_recipe, tiny_base)


def test_a_random_model_gains_nothing_and_is_rejected_but_kept(
    history: Repository, tiny_base: BaseModel, tiny_recipe: Recipe, state_dir: Path, tokenizer: Any
) -> None:
    frozen = tiny_recipe.model_copy(
        update={"optimizer": tiny_recipe.optimizer.model_copy(update={"learning_rate": 1e-12})}
    )
    result = retrain(history, state_dir, frozen, tiny_base, retrieval=False)
    assert result.decision == "rejected"
    assert any("Not surely better than the base model" in reason for reason in result.reasons)
    assert "with_retrieval" not in result.metrics["held_out"]
    registry = Registry(state_dir / "adapters")
    assert result.current is None is registry.current()
    assert [version.version for version in registry.list()] == [result.candidate]

    # A new commit is a new input; another look at the same one is not.
    before = open_run(history, state_dir, frozen, tiny_base, retrieval=False)
    assert (before.directory / "result.json").exists()
    commit(history.root, "Let clerks update a stamp", handlers__stamp_py=handler("stamp"))
    try:
        after = open_run(history, state_dir, frozen, tiny_base, retrieval=False)
        assert after.directory != before.directory
    finally:
        git(history.root, "reset", "--quiet", "--hard", "HEAD~1")


@pytest.mark.long  # trains once
def test_memory_that_runs_out_while_judging_is_told(
    history: Repository, tiny_base: BaseModel, tiny_recipe: Recipe, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*given: object) -> Evaluation:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr("inhouse_training.retrain.evaluate", no_room)
    with pytest.raises(InhouseError, match="trained, and the model with what judges it does not fit"):
        retrain(history, state_dir, tiny_recipe, tiny_base, retrieval=False)
    monkeypatch.setattr("inhouse_training.retrain.evaluate", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        retrain(history, state_dir, tiny_recipe, tiny_base, retrieval=False)


@pytest.mark.long  # trains twice, over a minute
def test_only_changes_that_the_current_adapter_did_not_see_judge(
    tiny_base: BaseModel, tiny_recipe: Recipe, tmp_path: Path, state_dir: Path
) -> None:
    repository = make_history(tmp_path / "shop", commits=24)
    first = retrain(repository, state_dir, tiny_recipe, tiny_base, retrieval=False)
    assert first.candidate is not None and first.metrics["held_out"]["changes"] == 11
    registry = Registry(state_dir / "adapters")
    registry.promote(first.candidate)

    # A cut that lies before the current adapter's: it saw two of the ten that are held out now.
    git(repository.root, "reset", "--quiet", "--hard", "HEAD~3")
    second = retrain(repository, state_dir, tiny_recipe, tiny_base, retrieval=False)
    assert second.metrics["held_out"]["changes"] == 8
    assert "current" in second.metrics["held_out"]["closed_book"]
    registry.promote(first.candidate)  # a random model may win by chance

    git(repository.root, "reset", "--quiet", "--hard", "HEAD~5")
    with pytest.raises(InhouseError, match="was trained on all but 3 of the changes"):
        retrain(repository, state_dir, tiny_recipe, tiny_base, retrieval=False)
    untrained = open_run(repository, state_dir, tiny_recipe, tiny_base, retrieval=False)
    assert not untrained.dataset.exists() and not untrained.training.exists(), "it was told first of all"


@pytest.mark.long  # trains twice, over a minute
def test_a_version_that_became_current_meanwhile_is_compared_with(
    tiny_base: BaseModel, tiny_recipe: Recipe, tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = make_history(tmp_path / "shop", commits=24)
    first = retrain(repository, state_dir, tiny_recipe, tiny_base, retrieval=False)
    assert first.candidate is not None
    registry = Registry(state_dir / "adapters")
    registry.use_base()
    commit(repository.root, "Let clerks update a stamp", handlers__stamp_py=handler("stamp"))
    asked: list[bool] = []

    def decide(evaluation: Evaluation, probes: Probes) -> Decision:
        asked.append("current" in evaluation.metrics()["held_out"]["closed_book"])
        if len(asked) == 1:
            registry.promote(str(first.candidate), "by hand, meanwhile")
        return Decision(True, ("So it is.",))

    monkeypatch.setattr("inhouse_training.retrain.decide", decide)
    second = retrain(repository, state_dir, tiny_recipe, tiny_base, retrieval=False)
    assert asked == [False, True] and second.candidate != first.candidate
    assert second.current == second.candidate == registry.current()


@pytest.mark.long
def test_a_damaged_current_adapter_is_said_and_one_that_is_gone_is_made_again(
    tiny_base: BaseModel, tiny_recipe: Recipe, tmp_path: Path, state_dir: Path
) -> None:
    repository = make_history(tmp_path / "shop", commits=24)
    first = retrain(repository, state_dir, tiny_recipe, tiny_base, retrieval=False)
    registry = Registry(state_dir / "adapters")
    assert first.candidate is not None
    registry.promote(first.candidate)
    git(repository.root, "reset", "--quiet", "--hard", "HEAD~5")

    # It cannot be compared, which is said, and does not stand in the way of a new one.
    weights = registry.get(first.candidate).path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    third = retrain(repository, state_dir, tiny_recipe, tiny_base, retrieval=False)
    assert any("not compared with the current adapter" in reason for reason in third.reasons)
    assert "current" not in third.metrics["held_out"]["closed_book"]

    # Nothing changed, but what was made is gone: it is made again.
    assert third.candidate is not None
    shutil.rmtree(registry.get(third.candidate).path)
    fourth = retrain(repository, state_dir, tiny_recipe, tiny_base, retrieval=False)
    assert (fourth.decision, fourth.candidate) == (third.decision, third.candidate)
    assert registry.is_sound(third.candidate)
    assert retrain(repository, state_dir, tiny_recipe, tiny_base, retrieval=False).decision == "skipped"
