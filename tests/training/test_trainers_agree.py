"""TRL and Unsloth on the same rows: the same loss and the same gradients, step by step.

Needs Unsloth, whose packages are gigabytes and want a GPU, so the environment of the tests does without it. Releases
from 2026.10.9 on also train on a processor: ``make test-4bit-and-unsloth``. ``benchmarks/trainers_on_gpu.py`` compares
the two on a GPU.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from inhouse_retrieval import Repository
from inhouse_training import BaseModel
from inhouse_training.cut import cut_repository
from inhouse_training.dataset import build_dataset
from inhouse_training.finetune import finetune
from inhouse_training.recipe import parse_recipe

from .conftest import TINY, make_tiny

pytestmark = pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="Unsloth is not installed")


def steps(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def test_both_learn_the_same_from_the_same_rows(history: Repository, tokenizer: Any, tmp_path: Path) -> None:
    recipe = parse_recipe(TINY.format(budget=4500, rate=1e-3), "tiny", "tiny.toml")
    path = make_tiny(tmp_path / "base", tokenizer, hidden_size=64, intermediate_size=128, initializer_range=0.2)
    base = BaseModel("tiny", path, "0" * 64, "")
    dataset = build_dataset(history, tokenizer, recipe, cut_repository(history, recipe), tmp_path / "dataset")
    made = {}
    for kind in ("trl", "unsloth"):
        chosen = recipe.model_copy(update={"trainer": recipe.trainer.model_copy(update={"kind": kind})})
        finetune(base, dataset.directory, chosen, tmp_path / kind)
        made[kind] = steps(tmp_path / kind)
    assert len(made["trl"]) == len(made["unsloth"]) >= 7
    for ours, other in zip(made["trl"], made["unsloth"], strict=True):
        assert ours["tokens"] == other["tokens"]
        assert other["loss"] == pytest.approx(ours["loss"], abs=2e-3), ours["step"]
        assert other["grad_norm"] == pytest.approx(ours["grad_norm"], rel=2e-2), ours["step"]
    ours, other = (adapter(tmp_path / kind) for kind in ("trl", "unsloth"))
    assert ours.keys() == other.keys() and len(ours) == 2 * 7 * 2
    for name, tensor in ours.items():  # the second matrices began at zero, so what they are now is the gradients' doing
        assert float(tensor.norm()) > 0, name
        assert float(torch.dist(tensor, other[name])) < 0.02 * float(tensor.norm()), name
