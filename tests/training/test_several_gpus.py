"""One run shared by several workers: on processors here, joined by gloo, as on GPUs by NCCL. A tiny model, real TRL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import Repository
from inhouse_training import BaseModel
from inhouse_training.cut import cut_repository
from inhouse_training.dataset import Dataset, build_dataset
from inhouse_training.finetune import finetune, training_curve
from inhouse_training.recipe import Recipe, parse_recipe

from .conftest import TINY


@pytest.fixture(scope="module")
def dataset(history: Repository, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    recipe = parse_recipe(TINY.format(budget=3000, rate=1e-3), "tiny", "tiny.toml")
    folder = tmp_path_factory.mktemp("data") / "dataset"
    return build_dataset(history, tokenizer, recipe, cut_repository(history, recipe), folder)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processors stand for them."""
    monkeypatch.setattr("inhouse_training.finetune.gpus_here", lambda: 2)


def shared(gpus: int | str, budget: int = 3000, **settings: object) -> Recipe:
    recipe = parse_recipe(TINY.format(budget=budget, rate=1e-3), "tiny", "tiny.toml")
    return recipe.model_copy(update={"trainer": recipe.trainer.model_copy(update={"gpus": gpus, **settings})})


def weights(run: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(run / "adapter" / "adapter_model.safetensors")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_workers_learn_what_one_learns(
    sharding: str, tiny_base: BaseModel, dataset: Dataset, tmp_path: Path
) -> None:
    finetune(tiny_base, dataset.directory, shared(1), tmp_path / "one")
    finetune(tiny_base, dataset.directory, shared(2, sharding=sharding), tmp_path / "two")
    one, two = training_curve(tmp_path / "one"), training_curve(tmp_path / "two")
    assert len(one) > 3
    assert [step.loss for step in two] == pytest.approx([step.loss for step in one], abs=1e-5)
    assert [step.tokens for step in two] == [step.tokens for step in one]
    alone, together = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert alone.keys() == together.keys()
    for name, found in together.items():
        assert found.dtype == alone[name].dtype
        # AdamW divides by the root of the squared gradient, so rounding counts most where the gradient is nearly none.
        assert float((found - alone[name]).abs().max()) < 1e-4, name
