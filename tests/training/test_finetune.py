"""A run in a child process: it survives every kind of death and says why it stops. A tiny model, real TRL."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inhouse_retrieval import Cancelled, InhouseError, Repository
from inhouse_training import BaseModel
from inhouse_training.cut import cut_repository
from inhouse_training.dataset import Dataset, build_dataset
from inhouse_training.finetune import finetune, trainer_kind, training_curve, training_passes
from inhouse_training.recipe import Recipe, load_recipe, parse_recipe
from inhouse_training.trainers import last_checkpoint

from .conftest import TINY


@pytest.fixture(scope="module")
def dataset(history: Repository, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    recipe = parse_recipe(TINY.format(budget=4500, rate=1e-3), "tiny", "tiny.toml")
    folder = tmp_path_factory.mktemp("data") / "dataset"
    return build_dataset(history, tokenizer, recipe, cut_repository(history, recipe), folder)


def children(process: int) -> list[int]:
    """Ids of the child processes."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def first_step(run: Path) -> int:
    """The step that the last start began from, as the trainer's own state tells."""
    checkpoint = last_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    return int(json.loads((checkpoint / "trainer_state.json").read_text())["global_step"])


PARENT = """
import sys
from pathlib import Path
from inhouse_training import BaseModel
from inhouse_training.finetune import finetune
from inhouse_training.recipe import load_recipe
base = BaseModel("tiny", Path(sys.argv[1]), "0" * 64, "")
def told(stage, done, total):
    sys.stdout.write(f"{stage} {done}\\n"); sys.stdout.flush()
finetune(base, Path(sys.argv[2]), load_recipe(sys.argv[3]), Path(sys.argv[4]), told)
"""


@pytest.mark.long  # a kill while training is in make test with test_retrain_interrupted
def test_a_run_that_is_killed_in_every_way_ends_as_one_that_was_not(
    tiny_base: BaseModel, dataset: Dataset, tmp_path: Path
) -> None:
    recipe_file = tmp_path / "tiny.toml"
    recipe_file.write_text(TINY.format(budget=4500, rate=1e-3))
    recipe = load_recipe(recipe_file)
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    finetune(tiny_base, dataset.directory, recipe, undisturbed)
    expected = training_curve(undisturbed)
    assert len(expected) >= 7
    assert not (undisturbed / "checkpoints").exists()

    # kill -9 for the parent: the child dies with it.
    command = [sys.executable, "-c", PARENT, *map(str, (tiny_base.path, dataset.directory, recipe_file, run))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        for line in parent.stdout:
            if line.startswith("training") and int(line.split()[1]) >= 2:
                break
        offspring = children(parent.pid)
        parent.kill()
    assert offspring
    deadline = time.monotonic() + 20
    while any(map(is_running, offspring)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, offspring))
    reached = first_step(run)
    assert reached >= 1

    # Cancelled: the child stops after its step, with a checkpoint. Owners that other tests started are not ours.
    began: list[int] = []
    strangers = children(os.getpid())

    def cancel(stage: str, done: int, total: int | None) -> None:
        if stage == "training":
            began.append(done)
            if done >= reached + 1:
                raise Cancelled("Enough.")

    with pytest.raises(Cancelled):
        finetune(tiny_base, dataset.directory, recipe, run, cancel)
    assert began[0] == reached
    assert set(children(os.getpid())) <= set(strangers)
    reached = first_step(run)

    # kill -9 for the child.
    began.clear()

    def kill(stage: str, done: int, total: int | None) -> None:
        if stage == "training":
            began.append(done)
            if done >= reached + 2:
                for child in set(children(os.getpid())) - set(strangers):
                    os.kill(child, signal.SIGKILL)

    with pytest.raises(InhouseError, match="ended by SIGKILL") as told:
        finetune(tiny_base, dataset.directory, recipe, run, kill)
    assert "continue from its last checkpoint" in told.value.remedy
    assert began[0] == reached

    adapter = finetune(tiny_base, dataset.directory, recipe, run)
    assert (adapter / "adapter_model.safetensors").exists()
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"
    curve = training_curve(run)
    assert [step.step for step in curve] == [step.step for step in expected]
    # The same rows in the same order, and the same weights: only rounding may differ.
    assert [step.tokens for step in curve] == [step.tokens for step in expected]
    assert [step.loss for step in curve] == pytest.approx([step.loss for step in expected], abs=1e-4)
    assert curve[-1].tokens == dataset.manifest["row_tokens"]

    # Finished: nothing is done again, and other inputs are refused.
    assert finetune(tiny_base, dataset.directory, recipe, run) == adapter
    with pytest.raises(InhouseError, match="holds a run on another"):
        finetune(tiny_base, dataset.directory, recipe.model_copy(update={"seed": 1}), run)


@pytest.mark.long
def test_a_damaged_adapter_is_trained_again_and_a_moved_dataset_is_the_same(
    tiny_base: BaseModel, dataset: Dataset, tmp_path: Path
) -> None:
    recipe = parse_recipe(TINY.format(budget=1500, rate=1e-3), "tiny", "tiny.toml")
    adapter = finetune(tiny_base, dataset.directory, recipe, tmp_path / "run")
    weights = adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    moved = Path(shutil.copytree(dataset.directory, tmp_path / "moved"))
    assert finetune(tiny_base, moved, recipe, tmp_path / "run") == adapter
    weights.write_bytes(whole[: len(whole) // 2])
    assert finetune(tiny_base, moved, recipe, tmp_path / "run") == adapter
    assert len(weights.read_bytes()) == len(whole)


@pytest.mark.long
def test_layers_that_are_computed_again_change_nothing(tiny_base: BaseModel, dataset: Dataset, tmp_path: Path) -> None:
    curves = {}
    for kind in ("none", "selective", "full", "auto"):
        recipe = parse_recipe(
            TINY.format(budget=1500, rate=1e-3).replace("[trainer]", f'[trainer]\ncheckpointing = "{kind}"'),
            "tiny",
            "t",
        )
        finetune(tiny_base, dataset.directory, recipe, tmp_path / kind)
        curves[kind] = [step.loss for step in training_curve(tmp_path / kind)]
    for curve in curves.values():
        assert curve == pytest.approx(curves["none"], abs=1e-5) and len(curve) > 2


def test_four_bits_need_unsloth(tiny_recipe: Recipe) -> None:
    four = tiny_recipe.model_copy(update={"trainer": tiny_recipe.trainer.model_copy(update={"load_in_4bit": True})})
    with pytest.raises(InhouseError, match="4 bit"):
        trainer_kind(four)


def test_compiling_needs_a_gpu_and_trl(tiny_recipe: Recipe) -> None:
    def recipe(**settings: object) -> Recipe:
        return tiny_recipe.model_copy(update={"trainer": tiny_recipe.trainer.model_copy(update=settings)})

    import torch

    if not torch.cuda.is_available():
        with pytest.raises(InhouseError, match="which needs a CUDA GPU"):
            trainer_kind(recipe(compile=True))
    assert trainer_kind(recipe(kind="auto", attention="documents")) == "trl"


def test_an_adapter_in_bfloat16_needs_a_gpu_and_trl(tiny_recipe: Recipe) -> None:
    import torch

    def recipe(kind: str) -> Recipe:
        settings = {"lora": {"dtype": "bfloat16"}, "trainer": {"kind": kind}}
        update = {name: getattr(tiny_recipe, name).model_copy(update=values) for name, values in settings.items()}
        return tiny_recipe.model_copy(update=update)

    if torch.cuda.is_available():
        assert trainer_kind(recipe("auto")) == trainer_kind(recipe("trl")) == "trl"
    else:
        with pytest.raises(InhouseError, match="in bfloat16, which needs a CUDA GPU"):
            trainer_kind(recipe("auto"))


def test_an_adapter_in_bfloat16_stays_so_when_a_checkpoint_is_read(tiny_base: BaseModel, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from inhouse_training.base_model import load_model
    from inhouse_training.trainers.loop import keep_in_bfloat16

    def adapter() -> Any:
        lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(load_model(tiny_base, "cpu", torch.bfloat16), lora)

    def types(model: Any) -> set[torch.dtype]:
        return {weights.dtype for weights in model.parameters() if weights.requires_grad}

    model = adapter()
    model.save_pretrained(tmp_path)
    assert types(model) == {torch.float32}
    model.load_adapter(tmp_path, "default", is_trainable=True)
    assert types(model) == {torch.float32}
    keep_in_bfloat16(model)
    assert types(model) == {torch.bfloat16}
    model.load_adapter(tmp_path, "default", is_trainable=True)  # as transformers' trainer goes on from a checkpoint
    assert types(model) == {torch.bfloat16}


@pytest.mark.parametrize(("attention", "by_documents"), [("documents", True), ("sdpa", False), ("auto", False)])
def test_attention_is_the_recipe_s(monkeypatch: pytest.MonkeyPatch, attention: str, by_documents: bool) -> None:
    import torch

    from inhouse_training.trainers.loop import documents_here

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    content = TINY.format(budget=1500, rate=1e-3).replace("[trainer]", f'[trainer]\nattention = "{attention}"')
    job: Any = SimpleNamespace(recipe=parse_recipe(content, "tiny", "t"))
    assert documents_here(job, None) is by_documents


@pytest.mark.long  # trains twice; tests/training/test_speed.py compares loss and gradients
def test_attention_by_documents_learns_the_same(tiny_base: BaseModel, dataset: Dataset, tmp_path: Path) -> None:
    curves = []
    for attention in ("sdpa", "documents"):
        content = TINY.format(budget=1500, rate=1e-3).replace("[trainer]", f'[trainer]\nattention = "{attention}"')
        finetune(tiny_base, dataset.directory, parse_recipe(content, "tiny", "t"), tmp_path / attention)
        curves.append([step.loss for step in training_curve(tmp_path / attention)])
    assert curves[1] == pytest.approx(curves[0], abs=1e-5) and len(curves[0]) > 2


def test_a_loss_that_is_no_number_stops_the_run_with_its_reason(
    tiny_base: BaseModel, dataset: Dataset, tmp_path: Path
) -> None:
    recipe = parse_recipe(TINY.format(budget=4500, rate=1e30), "tiny", "tiny.toml")
    with pytest.raises(InhouseError, match=r"Training stopped: the (loss|gradient norm) became (nan|inf) at step"):
        finetune(tiny_base, dataset.directory, recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "adapter").exists()
    assert all(math.isfinite(step.loss) for step in training_curve(tmp_path / "run"))


VOCABULARY = 49_152


@pytest.mark.parametrize(
    ("losses", "reason"),
    [
        ([3.4, 3.8, 15.2, 49.0, 24.5], "the loss broke: it is 24.5 nats a token at step 5, where guessing costs 10.8"),
        ([49.0, 30.0, 24.5], "the loss broke: it is 24.5"),  # from the first step on
        ([2.0] * 20 + [9.0] + [2.0] * 5 + [8.0] * 10, "the loss broke: it is 8.0"),  # an outlier hides no plateau
        ([10.8] * 50 + [17.0] * 3, "the loss broke: it is 17.0"),
        ([2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0], "the loss is as good as 0 since 5 steps, at step 7"),
    ],
)
def test_a_loss_that_spikes_or_collapses_breaks_the_run_and_no_step_before(losses: list[float], reason: str) -> None:
    from inhouse_training.trainers.loop import why_stop

    told = why_stop(losses, VOCABULARY)
    assert told is not None and told[0].startswith(reason) and "optimizer.learning_rate" in told[1]
    assert not any(why_stop(losses[:step], VOCABULARY) for step in range(1, len(losses)))


@pytest.mark.parametrize(
    "losses",
    [
        [1.15, 4.11, 1.46, 2.14, 2.36, 2.96, 2.53, 2.48, 1.82, 3.57],  # SmolLM2 on httpx, two rows a step
        [1.2, 4.5, 4.8, 5.1, 5.3] * 20,  # an easy row first
        [2.0] * 30 + [9.0, 9.0] + [2.0] * 30 + [9.0, 9.0, 8.0] + [2.0] * 30,  # rows that nobody can know
        [10.8] * 40,  # a model that knows nothing yet
        [2.0 / (step + 1) for step in range(400)],  # learned by heart over many passes
        [0.5, 0.0, 0.0, 0.0, 0.0, 0.5] * 9,
    ],
)
def test_ordinary_noise_stops_no_run(losses: list[float]) -> None:
    from inhouse_training.trainers.loop import why_stop

    assert not any(why_stop(losses[:step], VOCABULARY) for step in range(1, len(losses) + 1))


def test_a_checkpoint_in_doubt_takes_no_good_ones_place(
    tiny_base: BaseModel, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    from inhouse_training.trainers import Job, Reporter, TrainingStopped
    from inhouse_training.trainers.loop import RunCallback

    reading, writing = os.pipe()
    callback = RunCallback(Job(tiny_base, tmp_path, "", 1, tiny_recipe), tmp_path, Reporter(writing))
    history: list[dict[str, float]] = []
    saved: list[bool] = []

    def logged(loss: float) -> None:
        history.append({"loss": loss})
        state: Any = SimpleNamespace(
            log_history=history,
            global_step=len(history),
            max_steps=9,
            num_input_tokens_seen=0,
            is_world_process_zero=True,
        )
        control: Any = SimpleNamespace(should_save=True)
        arguments: Any = SimpleNamespace(fp16=False)
        callback.on_log(arguments, state, control, {"loss": loss})
        saved.append(control.should_save)

    for loss in (3.4, 3.8, 15.2, 3.7, 49.0, 24.5):
        logged(loss)
    assert saved == [True, True, False, True, False, False]
    callback.stopping = True  # whoever asks for an end gets what there is
    logged(3.6)
    logged(18.0)
    assert saved[-1] and [step.loss for step in training_curve(tmp_path)][-1] == 18.0
    logged(19.0)
    with pytest.raises(TrainingStopped, match=r"^the loss broke: it is 20\.0"):
        logged(20.0)
    os.close(reading)


def test_a_loss_worse_than_guessing_stops_the_run_before_a_checkpoint(
    tiny_base: BaseModel, dataset: Dataset, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    folder = Path(shutil.copytree(tiny_base.path, tmp_path / "loud"))
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"] * 400
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    recipe = parse_recipe(TINY.format(budget=4500, rate=1e-3), "tiny", "tiny.toml")
    with pytest.raises(InhouseError, match=r"^Training stopped: the loss broke: it is .* at step 3, where") as told:
        finetune(BaseModel("loud", folder, "1" * 64, ""), dataset.directory, recipe, tmp_path / "run")
    assert told.value.remedy == "Lower optimizer.learning_rate in the recipe."
    assert last_checkpoint(tmp_path / "run" / "checkpoints") is None and not (tmp_path / "run" / "adapter").exists()


def test_a_base_model_that_cannot_be_read_is_told(
    tiny_base: BaseModel, dataset: Dataset, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_base.path, tmp_path / "broken"))
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    broken = BaseModel("broken", folder, "1" * 64, "")
    with pytest.raises(InhouseError, match=r"^The base model broken cannot be read from /.*") as told:
        finetune(broken, dataset.directory, tiny_recipe, tmp_path / "run")
    assert "fetched again" in told.value.remedy and "Error" not in told.value.problem.split(": ")[0]
    assert (tmp_path / "run" / "job.json").exists() and not (tmp_path / "run" / "adapter").exists()


def test_half_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    for step in (8, 9, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"x")
    (tmp_path / "checkpoint-8" / "trainer_state.json").write_text('{"global_step": 8}')
    (tmp_path / "checkpoint-9" / "trainer_state.json").write_text('{"global_st')
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-8"
    assert not (tmp_path / "checkpoint-10").exists()
    assert last_checkpoint(tmp_path / "none") is None


def test_small_data_is_seen_more_often_within_the_budget() -> None:
    trial = load_recipe("cpu-trial")
    budget = trial.data.max_train_tokens
    assert training_passes(trial, budget) == 1
    assert training_passes(trial, budget // 2) == 2
    assert training_passes(trial, 100) == trial.optimizer.max_passes
    assert training_passes(load_recipe("article"), 1_600_000) == 3


def test_unsloth_is_taken_only_where_it_is(tiny_recipe: Recipe) -> None:
    assert trainer_kind(tiny_recipe) == "trl"
    auto = tiny_recipe.model_copy(update={"trainer": tiny_recipe.trainer.model_copy(update={"kind": "auto"})})
    import importlib.util

    import torch

    both = torch.cuda.is_available() and importlib.util.find_spec("unsloth") is not None
    assert trainer_kind(auto) == ("unsloth" if both else "trl")
