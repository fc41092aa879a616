"""One run shared by several workers: on processors here, joined by gloo, as on GPUs by NCCL. A tiny model, real TRL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import Cancelled, InhouseError, Repository
from inhouse_training import BaseModel, load_recipe, named_card
from inhouse_training.cut import cut_repository
from inhouse_training.dataset import Dataset, build_dataset
from inhouse_training.finetune import finetune, trainer_kind, training_curve
from inhouse_training.forecast import RowCount, forecast_training
from inhouse_training.memory import GIB, Conditions, predict_memory, shape_of, share_of
from inhouse_training.recipe import Recipe, parse_recipe
from inhouse_training.sharing import Share, rows_of_a_worker, workers_of

from .conftest import TINY
from .test_finetune import children, first_step, is_running

MISTRAL = BaseModel("mistralai/Mistral-7B-Instruct-v0.2", Path(), "", "")


@pytest.fixture(scope="module")
def dataset(history: Repository, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    recipe = parse_recipe(TINY.format(budget=3000, rate=1e-3), "tiny", "tiny.toml")
    folder = tmp_path_factory.mktemp("data") / "dataset"
    return build_dataset(history, tokenizer, recipe, cut_repository(history, recipe), folder)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processors stand for them."""
    monkeypatch.setattr("inhouse_training.finetune.visible_gpus", lambda: ("0", "1"))


def shared(gpus: int | str, **settings: object) -> Recipe:
    recipe = parse_recipe(TINY.format(budget=3000, rate=1e-3), "tiny", "tiny.toml")
    return recipe.model_copy(update={"trainer": recipe.trainer.model_copy(update={"gpus": gpus, **settings})})


def weights(run: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    loaded: dict[str, Any] = load_file(run / "adapter" / "adapter_model.safetensors")
    return loaded


def gone(processes: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(is_running, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(is_running, processes))


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.long  # 90 s each: every worker imports torch, TRL and PEFT by itself
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_workers_learn_what_one_learns_also_after_one_was_killed(
    sharding: str, tiny_base: BaseModel, dataset: Dataset, tmp_path: Path
) -> None:
    finetune(tiny_base, dataset.directory, shared(1), tmp_path / "one")
    strangers, killed = set(children(os.getpid())), list[int]()

    def kill(stage: str, done: int, total: int | None) -> None:
        if stage == "training" and done >= 2 and not killed:
            killed.extend(sorted(set(children(os.getpid())) - strangers))
            os.kill(killed[-1], signal.SIGKILL)

    recipe = shared(2, sharding=sharding)
    with pytest.raises(InhouseError, match="ended by SIGKILL"):
        finetune(tiny_base, dataset.directory, recipe, tmp_path / "two", kill)
    assert len(killed) == 2 and gone(killed, 0), "none is left"
    assert first_step(tmp_path / "two") >= 1
    finetune(tiny_base, dataset.directory, recipe, tmp_path / "two")

    one, two = training_curve(tmp_path / "one"), training_curve(tmp_path / "two")
    assert len(one) > 3
    assert [step.loss for step in two] == pytest.approx([step.loss for step in one], abs=1e-5)
    # What fills up the last step is counted: two tokens a row.
    assert all(0 <= mine.tokens - alone.tokens <= 4 for mine, alone in zip(two, one, strict=True))
    expected, found = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert expected.keys() == found.keys()
    for name, weight in found.items():
        assert weight.dtype == expected[name].dtype
        # AdamW divides by the root of the squared gradient: rounding counts where the gradient is nearly none.
        assert float((weight - expected[name]).abs().max()) < 1e-4, name


PARENT = """
import sys
from pathlib import Path
import inhouse_training.finetune
from inhouse_training import BaseModel
from inhouse_training.recipe import load_recipe
inhouse_training.finetune.visible_gpus = lambda: ("0", "1")
def told(stage, done, total):
    sys.stdout.write(f"{stage} {done}\\n"); sys.stdout.flush()
base = BaseModel("tiny", Path(sys.argv[1]), "0" * 64, "")
inhouse_training.finetune.finetune(base, Path(sys.argv[2]), load_recipe(sys.argv[3]), Path(sys.argv[4]), told)
"""


@pytest.mark.long  # that the children of a killed parent end is in make test with test_retrain_interrupted
@pytest.mark.usefixtures("two_gpus")
def test_workers_end_with_their_leader_and_stop_after_the_same_step(
    tiny_base: BaseModel, dataset: Dataset, tmp_path: Path
) -> None:
    recipe_file, run = tmp_path / "tiny.toml", tmp_path / "run"
    recipe_file.write_text(TINY.format(budget=3000, rate=1e-3).replace("[trainer]", "[trainer]\ngpus = 2"))
    command = [sys.executable, "-c", PARENT, *map(str, (tiny_base.path, dataset.directory, recipe_file, run))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        for line in parent.stdout:
            if line.startswith("training") and int(line.split()[1]) >= 1:
                break
        offspring = children(parent.pid)
        parent.kill()
    assert len(offspring) == 2 and gone(offspring, 20)

    def cancel(stage: str, done: int, total: int | None) -> None:
        if stage == "training" and done >= 2:
            raise Cancelled("Enough.")

    with pytest.raises(Cancelled):
        finetune(tiny_base, dataset.directory, load_recipe(recipe_file), run, cancel)
    assert first_step(run) >= 2, "all have written their part of one checkpoint"
    finetune(tiny_base, dataset.directory, load_recipe(recipe_file), run)
    assert [step.step for step in training_curve(run)] == list(range(1, len(training_curve(run)) + 1))


def test_a_run_for_one_gpu_sees_one_whatever_the_machine_has(
    tiny_base: BaseModel, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inhouse_training.finetune.visible_gpus", lambda: ("3", "GPU-8f2a"))
    strangers, seen = set(children(os.getpid())), list[bytes]()

    def told(stage: str, done: int, total: int | None) -> None:
        for child in set(children(os.getpid())) - strangers:
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            seen.extend(variable for variable in variables if variable.startswith(b"CUDA_VISIBLE_DEVICES="))
            raise Cancelled("Enough.")

    with pytest.raises(Cancelled):
        finetune(tiny_base, dataset.directory, shared(1), tmp_path / "run", told)
    assert seen == [b"CUDA_VISIBLE_DEVICES=3"]


@pytest.mark.parametrize(
    ("batch_rows", "accumulate", "workers", "expected"),
    [(1, 4, 1, (1, 4)), (1, 4, 2, (1, 2)), (2, 2, 4, (1, 1)), (4, 1, 2, (2, 1)), (3, 2, 2, (3, 1)), (4, 3, 2, (3, 2))],
)
def test_a_step_has_the_same_rows_whatever_the_number_of_workers(
    batch_rows: int, accumulate: int, workers: int, expected: tuple[int, int]
) -> None:
    recipe = shared(workers)
    optimizer = recipe.optimizer.model_copy(update={"batch_rows": batch_rows, "accumulate": accumulate})
    recipe = recipe.model_copy(update={"optimizer": optimizer})
    assert rows_of_a_worker(recipe, workers) == expected
    assert workers * expected[0] * expected[1] == batch_rows * accumulate and expected[0] <= batch_rows


def test_what_cannot_be_shared_is_refused() -> None:
    article = load_recipe("article")
    two = article.model_copy(update={"trainer": article.trainer.model_copy(update={"gpus": 2, "kind": "trl"})})
    with pytest.raises(InhouseError, match="article, 1, cannot be shared evenly by 2 GPUs") as told:
        workers_of(two, 2)
    assert "optimizer.accumulate to a multiple of 2" in told.value.remedy
    with pytest.raises(InhouseError, match="asks for 2 GPUs, and this machine has 1"):
        workers_of(shared(2), 1)
    # "all" are as many as share a step evenly: four rows here.
    assert [workers_of(shared("all"), gpus) for gpus in (0, 1, 2, 3, 4, 8)] == [1, 1, 2, 2, 4, 4]
    assert workers_of(article, 8) == 1
    told_beforehand = forecast_training(two, MISTRAL, RowCount(10, 10_000, 9_000), named_card("h100"))
    assert "cannot be shared evenly" in told_beforehand.refusal


def test_unsloth_is_for_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inhouse_training.finetune.unsloth_installed", lambda: True)
    monkeypatch.setattr("inhouse_training.finetune._has_cuda", lambda: True)
    monkeypatch.setattr("inhouse_training.finetune.multiplies_bfloat16", lambda: True)
    with pytest.raises(InhouseError, match="trains on one GPU") as told:
        trainer_kind(shared(2, kind="unsloth"))
    assert 'trainer.kind to "trl"' in told.value.remedy
    assert trainer_kind(shared(2, kind="auto")) == "trl"
    assert trainer_kind(shared(1, kind="auto")) == "unsloth"


@pytest.mark.parametrize(
    ("rank", "checkpointing", "measured"),
    # Two H200, a 7B model in bf16, by nvidia-smi: whole on one, whole on each, split. benchmarks/several_gpus.py
    [(64, "selective", (49.9, 51.4, 39.2)), (768, "full", (55.0, 63.4, 31.7))],
)
def test_memory_of_each_gpu_is_what_was_measured(
    rank: int, checkpointing: str, measured: tuple[float, float, float]
) -> None:
    shape = shape_of(MISTRAL)
    assert shape is not None
    recipe = load_recipe("article")
    recipe = recipe.model_copy(
        update={
            "lora": recipe.lora.model_copy(update={"rank": rank, "dtype": "float32"}),
            "optimizer": recipe.optimizer.model_copy(update={"batch_rows": 1, "accumulate": 4}),
            "trainer": recipe.trainer.model_copy(update={"checkpointing": checkpointing, "load_in_4bit": False}),
        }
    )
    for share, gib in zip((Share(), Share(2), Share(2, True)), measured, strict=True):
        told = predict_memory(shape, recipe, Conditions(True, "trl", 139 * GIB, share=share))
        assert told.total / GIB == pytest.approx(gib, rel=0.08), share


def test_a_model_is_split_where_one_card_does_not_hold_it() -> None:
    shape = shape_of(MISTRAL)
    assert shape is not None
    recipe = load_recipe("default-7b")

    def with_gpus(**settings: object) -> Recipe:
        return recipe.model_copy(update={"trainer": recipe.trainer.model_copy(update={"gpus": 2, **settings})})

    def share(card: str, **settings: object) -> Share:
        return share_of(shape, with_gpus(**settings), 2, True, named_card(card).memory)

    assert share("h100") == Share(2, False) and share("t4-16gb") == Share(2, True)
    assert share("h100", sharding="full").split and not share("t4-16gb", sharding="none").split
    assert share_of(shape, recipe, 1, True, GIB) == Share(1, False)
    # Split, each has half of the weights; whole, each has the sums of the gradients beside all of the rest.
    full = with_gpus(checkpointing="full", kind="trl")
    peaks = {
        each: predict_memory(shape, full, Conditions(True, "trl", 79 * GIB, share=each))
        for each in (Share(), Share(2), Share(2, True))
    }
    assert peaks[Share(2)].adapter == peaks[Share()].adapter * 5 // 4
    assert peaks[Share(2, True)].adapter == peaks[Share()].adapter // 2
    assert peaks[Share(2, True)].weights < 0.6 * peaks[Share()].weights
    # A run that one card does not hold is begun on two.
    rows = RowCount(100, 100_000, 90_000)
    wide = with_gpus(kind="trl", gpus=1).model_copy(update={"lora": recipe.lora.model_copy(update={"rank": 768})})
    assert forecast_training(wide, MISTRAL, rows, named_card("a100-40gb")).refusal
    both = wide.model_copy(update={"trainer": wide.trainer.model_copy(update={"gpus": 2})})
    told = forecast_training(both, MISTRAL, rows, named_card("a100-40gb"))
    assert not told.refusal and told.share == Share(2, True)
