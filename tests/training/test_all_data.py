"""Training on everything: the newest change is learned, nothing judges, and only a person promotes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import Repository
from inhouse_training import BaseModel, Recipe, Registry, last_run, open_run, retrain_on_everything
from inhouse_training.cut import whole_history
from inhouse_training.dataset import build_dataset
from inhouse_training.retrain import retrain

from .history import git


def test_nothing_is_held_out(
    history: Repository, tiny_base: BaseModel, tiny_recipe: Recipe, tokenizer: Any, tmp_path: Path
) -> None:
    data = tiny_recipe.data.model_copy(update={"max_train_tokens": 0})
    recipe = tiny_recipe.model_copy(update={"data": data})
    cut = whole_history(history, recipe)
    assert cut.snapshot == history.head() == cut.training[0].commit and cut.held_out == ()
    dataset = build_dataset(history, tokenizer, recipe, cut, tmp_path / "dataset")
    assert dataset.held_out == () and dataset.manifest["changes"]["held_out"] == 0
    newest = git(history.root, "log", "-1", "--format=%s").rsplit(" ", 1)[-1]
    text = "".join(tokenizer.decode(row["input_ids"]) for row in dataset.rows)
    assert f"update_{newest}(" in text
    # A run of its own, which the one with held-out changes does not continue.
    judged = open_run(history, tmp_path, recipe, tiny_base)
    assert open_run(history, tmp_path, recipe, tiny_base, all_data=True).directory != judged.directory


@pytest.mark.long
def test_such_a_version_is_registered_and_never_promoted_by_itself(
    history: Repository, tiny_base: BaseModel, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    result = retrain_on_everything(history, tmp_path, tiny_recipe, tiny_base)
    assert (result.decision, result.current) == ("not evaluated", None)
    assert result.candidate is not None and result.candidate in result.reasons[0] and "by hand" in result.reasons[0]
    registry = Registry(tmp_path / "adapters")
    manifest = registry.get(result.candidate).manifest
    assert not manifest.evaluated and manifest.snapshot == history.head()
    assert "held_out" not in manifest.metrics and manifest.metrics["training"]["steps"] > 0
    assert retrain_on_everything(history, tmp_path, tiny_recipe, tiny_base).decision == "skipped"
    assert last_run(tmp_path) is None, "the schedule goes by runs that judged something"
    # It has seen all that could judge the next one.
    registry.promote(result.candidate)
    with pytest.raises(Exception, match="was trained on all but 0 of the changes"):
        retrain(history, tmp_path, tiny_recipe, tiny_base, retrieval=False)
