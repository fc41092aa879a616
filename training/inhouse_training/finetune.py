"""One fine-tuning run in a child process: progress, continuation after any kind of death, plain reasons for
stopping.

The child keeps torch, CUDA and Unsloth's patches out of the caller. It dies with the caller, and a run that
was killed goes on from its last checkpoint when it is started again with the same job.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inhouse_retrieval import Cancelled, InhouseError, Progress, no_progress

from .base_model import BaseModel
from .child import Child, wait_for, why_it_ended
from .dataset import Dataset
from .recipe import Recipe
from .trainers import STOPPED_EXIT_CODE, Job

_GRACE_SECONDS = 30.0
_TICK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """One optimiser step: mean training loss in nats per token, tokens seen so far, seconds it took."""

    step: int
    loss: float
    tokens: int
    seconds: float


def finetune(
    base: BaseModel, dataset_dir: Path, recipe: Recipe, run_dir: Path, progress: Progress = no_progress
) -> Path:
    """Train one adapter, or continue a run that was interrupted.

    Args:
        run_dir: holds the run; start again with the same folder to continue.
        progress: stages ``"loading the model"`` and ``"training"`` (optimiser steps). Raising from it stops
            the run after its current step, with a checkpoint.

    Returns:
        The adapter's folder: ``adapter_model.safetensors`` and ``adapter_config.json`` in PEFT's format.

    Raises:
        InhouseError: training stopped; the message says why.
        Cancelled: the child was asked to stop.
    """
    manifest = Dataset(dataset_dir).manifest
    passes = training_passes(recipe, manifest["row_tokens"])
    job = Job(base, dataset_dir.resolve(), manifest["rows_sha256"], passes, recipe)
    run_dir = run_dir.resolve()
    run_dir.mkdir(parents=True, exist_ok=True)
    _keep_job(run_dir, job)
    adapter = run_dir / "adapter"
    if not _is_whole(adapter):
        shutil.rmtree(adapter, ignore_errors=True)
        _run_child(trainer_kind(recipe), run_dir, progress)
        shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)
    return adapter


def _is_whole(adapter: Path) -> bool:
    """Whether a finished adapter lies there whose files can be read to their end."""
    from safetensors import SafetensorError, safe_open

    try:
        json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        with safe_open(adapter / "adapter_model.safetensors", framework="numpy") as tensors:
            return bool(list(tensors.keys()))
    except (OSError, ValueError, SafetensorError):
        return False


def training_passes(recipe: Recipe, row_tokens: int) -> int:
    """Times that the rows are seen: as many whole passes as the token budget allows, one at least."""
    budget, most = recipe.data.max_train_tokens, recipe.optimizer.max_passes
    return max(1, min(most, budget // max(row_tokens, 1))) if budget else most


def trainer_kind(recipe: Recipe) -> str:
    """Which trainer runs a recipe here: ``"trl"`` or ``"unsloth"``.

    Raises:
        InhouseError: the recipe asks for what is not there.
    """
    installed = unsloth_installed()
    if recipe.trainer.kind == "unsloth" and not installed:
        raise InhouseError(
            "The recipe asks for Unsloth, which is not installed.",
            "Install the extra with `pip install 'inhouse[gpu]'`, or set trainer.kind to \"trl\".",
        )
    kind: str = recipe.trainer.kind
    if kind == "auto":
        kind = "unsloth" if installed and _has_cuda() and not asks_for_trl(recipe) else "trl"
    _check_speed(recipe, kind)
    if kind == "trl" and recipe.trainer.load_in_4bit:
        raise InhouseError(
            "The recipe loads the base model in 4 bit, which needs Unsloth and a CUDA GPU.",
            "Install the extra with `pip install 'inhouse[gpu]'`, or set trainer.load_in_4bit to false.",
        )
    return kind


def unsloth_installed() -> bool:
    """Whether Unsloth is there, without importing it."""
    return importlib.util.find_spec("unsloth") is not None


def asks_for_trl(recipe: Recipe) -> bool:
    """Whether the recipe names what only TRL's trainer does; Unsloth has kernels of its own, and float32 adapters."""
    trainer = recipe.trainer
    return trainer.compile is True or trainer.attention == "documents" or recipe.lora.dtype == "bfloat16"


def _check_speed(recipe: Recipe, kind: str) -> None:
    if kind == "unsloth" and recipe.lora.dtype == "bfloat16":
        raise InhouseError(
            "The recipe asks for Unsloth, which keeps its adapter in float32, and for an adapter in bfloat16.",
            'Set trainer.kind to "trl", or leave lora.dtype out.',
        )
    if recipe.lora.dtype == "bfloat16" and not _has_cuda():
        raise InhouseError(
            "The recipe asks for an adapter in bfloat16, which needs a CUDA GPU.", "Leave lora.dtype out."
        )
    if kind == "unsloth" and asks_for_trl(recipe):
        raise InhouseError(
            "The recipe asks for Unsloth, which has attention and kernels of its own, and for those of TRL's trainer.",
            'Set trainer.kind to "trl", or trainer.compile and trainer.attention to "auto", or leave them out.',
        )
    if recipe.trainer.compile is True and not _has_cuda():
        raise InhouseError(
            "The recipe compiles the layers, which needs a CUDA GPU.", 'Set trainer.compile to "auto" or false.'
        )


def _has_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def training_curve(run_dir: Path) -> list[TrainingStep]:
    """The steps of a run in order; a step that was repeated after an interruption counts once."""
    steps: dict[int, TrainingStep] = {}
    with contextlib.suppress(FileNotFoundError), (run_dir / "metrics.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            # A kill can cut the last line short; the step is then repeated and written again.
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                steps[found["step"]] = TrainingStep(found["step"], found["loss"], found["tokens"], found["seconds"])
    return [steps[number] for number in sorted(steps)]


def _keep_job(run_dir: Path, job: Job) -> None:
    path = run_dir / "job.json"
    wanted = job.to_json()
    kept = None
    if path.exists():
        with contextlib.suppress(ValueError):
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept == wanted:
                return
            if _without_paths(kept) == _without_paths(wanted):
                kept = None  # the same run; the repository or the cache was moved
        if kept is not None:
            raise InhouseError(
                f"{run_dir} holds a run on another dataset, base model or recipe.",
                "Choose another folder, or delete this one.",
            )
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _without_paths(job: dict[str, Any]) -> dict[str, Any]:
    base = {key: value for key, value in job["base"].items() if key != "path"}
    return {**job, "base": base, "dataset": ""}


def _environment(run_dir: Path) -> dict[str, str]:
    """Variables of the child. Rows of changing lengths leave holes in a GPU's memory that nothing fits into, unless the
    allocator may move its borders; whoever has set it otherwise is not overruled."""
    allocator = os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    return {"HF_DATASETS_CACHE": str(run_dir / "cache"), "PYTORCH_CUDA_ALLOC_CONF": allocator}


def _run_child(kind: str, run_dir: Path, progress: Progress) -> None:
    shutil.rmtree(run_dir / "adapter.partial", ignore_errors=True)
    log_path = run_dir / "trainer.log"
    failure: dict[str, Any] | None = None
    child = Child(
        f"inhouse_training.trainers.{kind}",
        run_dir,
        log_path,
        _environment(run_dir),
        _GRACE_SECONDS,
    )
    try:
        stage, done, total = "loading the model", 0, None
        progress(stage, done, total)
        while not child.closed:
            if not wait_for([child], _TICK_SECONDS):
                progress(stage, done, total)
                continue
            for event in child.received():
                if event["event"] in ("started", "step"):
                    stage, done, total = "training", event["step"], event["total"]
                elif event["event"] == "failed":
                    failure = event
                progress(stage, done, total)
        code = child.exit_code()
    finally:
        child.end()
    if failure is not None:
        raise InhouseError(failure["problem"], failure["remedy"])
    if code == STOPPED_EXIT_CODE:
        raise Cancelled("Training was stopped.", "Start it again to continue from its last checkpoint.")
    if code != 0 or not (run_dir / "adapter").exists():
        remedy = "Start it again to continue from its last checkpoint." if code < 0 else f"See {log_path}."
        raise InhouseError(f"Training stopped: {why_it_ended(code, log_path)}.", remedy)
