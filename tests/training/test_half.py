"""Float16 on GPUs without bfloat16: the choice, its arguments, what it refuses, and steps that a scaler leaves out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from inhouse_training import BaseModel, load_recipe
from inhouse_training.base_model import load_model
from inhouse_training.finetune import check_trainer
from inhouse_training.forecast import RowCount, forecast_training
from inhouse_training.half import SKIPPED_IN_A_ROW, precision_arguments, training_type, training_type_here
from inhouse_training.machines import CARDS
from inhouse_training.recipe import Recipe
from inhouse_training.trainers import Job, Reporter, TrainingStopped
from inhouse_training.trainers.loop import RunCallback, sft_arguments

QWEN = BaseModel("Qwen/Qwen2.5-Coder-7B-Instruct", Path(), "", "")


@pytest.mark.parametrize(
    ("gpu", "bfloat16", "chosen", "arguments"),
    [
        (False, False, "float32", {"bf16": False, "fp16": False}),
        (True, True, "bfloat16", {"bf16": True, "fp16": False}),
        (True, False, "float16", {"bf16": False, "fp16": True}),
    ],
)
def test_a_gpu_without_bfloat16_trains_in_float16(
    gpu: bool, bfloat16: bool, chosen: str, arguments: dict[str, bool]
) -> None:
    assert training_type(gpu, bfloat16) == chosen
    assert precision_arguments(training_type(gpu, bfloat16)) == arguments


def test_the_trainers_arguments_are_those_of_this_machine(
    tiny_base: BaseModel, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    arguments = sft_arguments(Job(tiny_base, tmp_path, "", 1, tiny_recipe), tmp_path, "none")
    assert {"bf16": arguments.bf16, "fp16": arguments.fp16} == precision_arguments(training_type_here())


def test_the_adapter_of_a_base_in_float16_is_in_float32(tiny_base: BaseModel) -> None:
    # A scaler refuses gradients that are themselves in float16.
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(load_model(tiny_base, "cpu", torch.float16), LoraConfig(r=2, target_modules="all-linear"))
    trained = {each.dtype for each in model.parameters() if each.requires_grad}
    assert trained == {torch.float32} and model.dtype == torch.float16


def test_a_dry_run_says_so_and_refuses_what_needs_bfloat16() -> None:
    recipe, rows = load_recipe("small-gpu"), RowCount(100, 200_000, 100_000)
    assert forecast_training(recipe, QWEN, rows, CARDS["t4-16gb"]).precision == "float16"
    assert forecast_training(recipe, QWEN, rows, CARDS["l4-24gb"]).precision == "bfloat16"
    lora = recipe.lora.model_copy(update={"dtype": "bfloat16"})
    trainer = recipe.trainer.model_copy(update={"kind": "trl", "load_in_4bit": False})
    asked = recipe.model_copy(update={"lora": lora, "trainer": trainer})
    assert "does not multiply" in forecast_training(asked, QWEN, rows, CARDS["t4-16gb"]).refusal
    check_trainer(asked, "trl", False, True, bfloat16=True)
    split = recipe.model_copy(update={"trainer": trainer.model_copy(update={"gpus": 2, "sharding": "full"})})
    with pytest.raises(Exception, match="split the model between GPUs"):
        check_trainer(split, "trl", False, True, bfloat16=False)


@pytest.fixture
def callback(tiny_base: BaseModel, tiny_recipe: Recipe, tmp_path: Path) -> RunCallback:
    reporter = Reporter(os.open(tmp_path / "told", os.O_WRONLY | os.O_CREAT))
    return RunCallback(Job(tiny_base, tmp_path, "", 1, tiny_recipe), tmp_path, reporter)


def log(callback: RunCallback, step: int, loss: float, grad_norm: float, fp16: bool = True) -> None:
    entry = {"loss": loss, "grad_norm": grad_norm, "learning_rate": 1e-4}
    history = [{"loss": loss}] * step
    state: Any = SimpleNamespace(
        global_step=step, max_steps=99, log_history=history, num_input_tokens_seen=step, is_world_process_zero=True
    )
    callback.on_log(SimpleNamespace(fp16=fp16), state, SimpleNamespace(should_save=False), entry)  # type: ignore[arg-type]


def test_a_step_that_the_scaler_leaves_out_is_no_broken_run(callback: RunCallback) -> None:
    log(callback, 1, 2.5, float("inf"))
    log(callback, 2, 2.5, float("nan"))
    log(callback, 3, 2.4, 1.5)
    told = [json.loads(line)["grad_norm"] for line in callback.metrics.read_text().splitlines()]
    assert told == [None, None, 1.5]


def test_what_is_no_number_otherwise_still_stops_it(callback: RunCallback) -> None:
    with pytest.raises(TrainingStopped, match="the loss became nan at step 1"):
        log(callback, 1, float("nan"), float("nan"))
    with pytest.raises(TrainingStopped, match="the gradient norm became inf at step 1"):
        log(callback, 1, 2.5, float("inf"), fp16=False)


def test_a_gradient_that_no_scale_makes_small_enough_stops_it(callback: RunCallback) -> None:
    for step in range(1, SKIPPED_IN_A_ROW):
        log(callback, step, 2.5, float("inf"))
    with pytest.raises(TrainingStopped, match="beyond float16 at every scale, up to step 20"):
        log(callback, SKIPPED_IN_A_ROW, 2.5, float("inf"))
