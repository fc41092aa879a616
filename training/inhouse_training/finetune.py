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
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inhouse_retrieval import Cancelled, InhouseError, Progress, no_progress

from .base_model import BaseModel
from .child import Child, wait_for, why_it_ended
from .dataset import Dataset
from .half import multiplies_bfloat16
from .machines import VISIBLE, visible_gpus
from .memory import check_context
from .recipe import Recipe
from .sharing import workers_of
from .trainers import STOPPED_EXIT_CODE, Job

_GRACE_SECONDS = 30.0
_TICK_SECONDS = 0.5
_LAST_WORDS_SECONDS = 5.0
"""What the other workers have to end in when one has ended too early."""


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
    kind, workers = check_run(recipe, base), workers_of(recipe, len(visible_gpus()))
    run_dir = run_dir.resolve()
    run_dir.mkdir(parents=True, exist_ok=True)
    _keep_job(run_dir, job)
    adapter = run_dir / "adapter"
    if not _is_whole(adapter):
        shutil.rmtree(adapter, ignore_errors=True)
        _run_workers(kind, run_dir, workers, progress)
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


def check_run(recipe: Recipe, base: BaseModel) -> str:
    """Which trainer runs a recipe here, once it is sure that it can.

    Raises:
        InhouseError: the recipe asks for what is not there, or makes longer rows than the base model reads.
    """
    kind = trainer_kind(recipe)
    check_context(recipe, base, kind)
    return kind


def trainer_kind(recipe: Recipe) -> str:
    """Which trainer runs a recipe here: ``"trl"`` or ``"unsloth"``.

    Raises:
        InhouseError: the recipe asks for what is not there.
    """
    installed, gpu = unsloth_installed(), _has_cuda()
    kind: str = recipe.trainer.kind
    if kind == "auto":
        kind = "unsloth" if installed and gpu and not asks_for_trl(recipe) else "trl"
    check_trainer(recipe, kind, installed, gpu, multiplies_bfloat16())
    return kind


def check_trainer(recipe: Recipe, kind: str, installed: bool, gpu: bool, bfloat16: bool = True) -> None:
    """See whether the trainer ``kind`` does what the recipe asks for.

    Args:
        installed: whether Unsloth is there.
        gpu: whether a CUDA GPU is.
        bfloat16: whether that multiplies bfloat16 itself.

    Raises:
        InhouseError: it does not.
    """
    if kind == "unsloth" and not installed:
        raise InhouseError(
            "The recipe asks for Unsloth, which is not installed.",
            "Install the extra with `pip install 'inhouse[gpu]'`, or set trainer.kind to \"trl\".",
        )
    _check_speed(recipe, kind, gpu)
    if kind == "trl" and recipe.trainer.load_in_4bit:
        raise InhouseError(
            "The recipe loads the base model in 4 bit, which needs Unsloth and a CUDA GPU.",
            "Install the extra with `pip install 'inhouse[gpu]'`, or set trainer.load_in_4bit to false.",
        )
    if gpu and not bfloat16:
        _check_float16(recipe)


def unsloth_installed() -> bool:
    """Whether Unsloth is there, without importing it."""
    return importlib.util.find_spec("unsloth") is not None


def asks_for_trl(recipe: Recipe) -> bool:
    """Whether the recipe names what only TRL's trainer does; Unsloth has kernels of its own, and float32 adapters."""
    trainer = recipe.trainer
    speed = trainer.compile is True or trainer.attention == "documents"
    return speed or trainer.gpus != 1 or recipe.lora.dtype == "bfloat16"


def _check_speed(recipe: Recipe, kind: str, gpu: bool) -> None:
    if kind == "unsloth" and recipe.lora.dtype == "bfloat16":
        raise InhouseError(
            "The recipe asks for Unsloth, which keeps its adapter in float32, and for an adapter in bfloat16.",
            'Set trainer.kind to "trl", or leave lora.dtype out.',
        )
    if kind == "unsloth" and recipe.trainer.gpus != 1:
        raise InhouseError(
            "The recipe asks for Unsloth, which trains on one GPU, and for several.",
            'Set trainer.kind to "trl", or trainer.gpus to 1.',
        )
    if recipe.lora.dtype == "bfloat16" and not gpu:
        raise InhouseError(
            "The recipe asks for an adapter in bfloat16, which needs a CUDA GPU.", "Leave lora.dtype out."
        )
    if recipe.lora.dtype == "bfloat16" and recipe.trainer.gpus != 1 and recipe.trainer.sharding != "none":
        raise InhouseError(
            "The recipe asks for an adapter in bfloat16 and a model split between GPUs, which keeps it in float32.",
            'Set trainer.sharding to "none", trainer.gpus to 1, or leave lora.dtype out.',
        )
    if kind == "unsloth" and asks_for_trl(recipe):
        raise InhouseError(
            "The recipe asks for Unsloth, which has attention and kernels of its own, and for those of TRL's trainer.",
            'Set trainer.kind to "trl", or trainer.compile and trainer.attention to "auto", or leave them out.',
        )
    if recipe.trainer.compile is True and not gpu:
        raise InhouseError(
            "The recipe compiles the layers, which needs a CUDA GPU.", 'Set trainer.compile to "auto" or false.'
        )


def _check_float16(recipe: Recipe) -> None:
    """Refuse what a GPU without bfloat16 does not do: it trains in float16, its adapter in float32."""
    if recipe.lora.dtype == "bfloat16":
        raise InhouseError(
            "The recipe asks for an adapter in bfloat16, which this GPU does not multiply.", "Leave lora.dtype out."
        )
    if recipe.trainer.gpus != 1 and recipe.trainer.sharding != "none":
        raise InhouseError(
            "The recipe may split the model between GPUs, which is done in bfloat16, and these do not multiply that.",
            'Set trainer.sharding to "none", or trainer.gpus to 1.',
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


def _run_workers(kind: str, run_dir: Path, workers: int, progress: Progress) -> None:
    """Train in one child process, or in several that train together; none of them is left afterwards."""
    shutil.rmtree(run_dir / "adapter.partial", ignore_errors=True)
    children = list[Child]()
    try:
        for environment in _environments(run_dir, workers):
            log = run_dir / ("trainer.log" if not children else f"trainer-{len(children)}.log")
            children.append(Child(f"inhouse_training.trainers.{kind}", run_dir, log, environment, _GRACE_SECONDS))
        failures = _listen(children, progress)
        codes = _end_together(children)
    finally:
        for child in children:
            child.stop()
        for child in children:
            child.end()
    _raise_what_ended_it(children, codes, failures, run_dir)


def _environments(run_dir: Path, workers: int) -> list[dict[str, str]]:
    """What each worker is told: where its data lies, and how it finds the others."""
    usual = _environment(run_dir)
    if workers == 1:
        # Transformers' trainer puts a copy of the model on each GPU that it sees, whatever was asked.
        gpus = visible_gpus()
        return [usual | ({VISIBLE: gpus[0]} if gpus else {})]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    usual |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    usual |= {"WORLD_SIZE": str(workers), "LOCAL_WORLD_SIZE": str(workers)}
    return [{**usual, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(workers)]


def _listen(children: list[Child], progress: Progress) -> dict[Child, dict[str, Any]]:
    """Pass on what the children tell until all have ended well, or one has not; the failures that they told."""
    failures = dict[Child, dict[str, Any]]()
    stage, done, total = "loading the model", 0, None
    progress(stage, done, total)
    speaking = list(children)
    while speaking:
        ready = wait_for(speaking, _TICK_SECONDS)
        for child in ready:
            for event in child.received():
                if event["event"] in ("started", "step"):
                    stage, done, total = "training", event["step"], event["total"]
                elif event["event"] == "failed":
                    failures[child] = event
                progress(stage, done, total)
        if not ready:
            progress(stage, done, total)
        ended = [child for child in speaking if child.closed]
        speaking = [child for child in speaking if not child.closed]
        if any(child.exit_code() not in (0, STOPPED_EXIT_CODE) for child in ended):
            _hear_last_words(speaking, failures)
            break
    return failures


def _hear_last_words(speaking: list[Child], failures: dict[Child, dict[str, Any]]) -> None:
    """Wait a little for the others: one of them may have told why, or ended first without a word."""
    deadline = time.monotonic() + _LAST_WORDS_SECONDS
    while speaking and time.monotonic() < deadline:
        for child in wait_for(speaking, _TICK_SECONDS):
            for event in child.received():
                if event["event"] == "failed":
                    failures[child] = event
        speaking = [child for child in speaking if not child.closed]


def _end_together(children: list[Child]) -> list[int | None]:
    """Exit codes of those that ended by themselves. The others would wait for them in vain and are ended at once."""
    codes = list[int | None]()
    for child in children:
        if not child.closed:
            child.kill()
        codes.append(child.exit_code() if child.closed else None)
    return codes


def _raise_what_ended_it(
    children: list[Child], codes: list[int | None], failures: dict[Child, dict[str, Any]], run_dir: Path
) -> None:
    """Raise what ended the run too early, if anything did: the cause, not what it led to in the other workers."""
    ended = [(code, child) for code, child in zip(codes, children, strict=True) if code is not None]
    killed = [(code, child) for code, child in ended if code < 0]
    foreseen = [failure for failure in failures.values() if not failure.get("unforeseen")]
    if foreseen or (failures and not killed):
        failure = (foreseen or list(failures.values()))[0]
        raise InhouseError(failure["problem"], failure["remedy"])
    if not killed and any(code == STOPPED_EXIT_CODE for code, _ in ended):
        raise Cancelled("Training was stopped.", "Start it again to continue from its last checkpoint.")
    wrong = killed or [(code, child) for code, child in ended if code != 0] or ended[:1]
    code, child = wrong[0]
    if code != 0 or len(ended) < len(children) or not (run_dir / "adapter").exists():
        remedy = "Start it again to continue from its last checkpoint." if code < 0 else f"See {child.log}."
        raise InhouseError(f"Training stopped: {why_it_ended(code, child.log)}.", remedy)
