"""The part of a run that both trainers share: arguments, progress, checkpoints, stopping, saving."""

from __future__ import annotations

import functools
import json
import math
import signal
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import datasets
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from ..dataset import Dataset
from ..forecast import compiles
from ..half import always_skipped, precision_arguments, training_type_here
from ..machines import memory_here, this_machine
from ..memory import Checkpointing, Conditions, checkpointing_of, shape_of, share_of
from ..sharing import Share, rows_of_a_worker
from . import Job, Reporter, TrainingStopped, last_checkpoint, workers
from .several import SeveralWorkers, agreed, shard, whole_adapter

_IN_A_ROW, _LASTING, _COLLAPSING = 3, 10, 5
"""Steps of a sudden spike, of a loss that rose and stays there, and of a collapse."""
_WORSE_THAN_GUESSING = 1.5
_HARDLY_BETTER = 2 / 3
"""Times what guessing would cost, ``ln(vocabulary)`` nats a token. A base model that works needs less than half of it
for the texts of a repository; one that broke needs about as much, or far more."""
_RISE = 2.0
"""Times the median of the steps before."""
_NOTHING = 1e-3
"""Nats a token that are as good as none: a text that was learned by heart over a few passes still costs more."""


class PlainLossTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with the model's own loss and none of the extra figures.

    TRL 1.14 computes entropy and accuracy over the whole vocabulary at every step, and the projection a
    second time in the backward pass to save memory. On two CPU cores with SmolLM2 that is a third of the
    whole step.
    """

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs["use_cache"] = False
        return super(SFTTrainer, self).compute_loss(model, inputs, return_outputs, num_items_in_batch)


class SharedPlainLossTrainer(SeveralWorkers, PlainLossTrainer):
    """:class:`PlainLossTrainer` in one worker among several."""


class SharedTrainer(SeveralWorkers, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer in one worker among several."""


def trainer_class(arguments: SFTConfig) -> type[SFTTrainer]:
    """Which of the trainers above runs, by the loss and the number of workers."""
    plain = arguments.loss_type == "nll"
    if workers().size > 1:
        return SharedPlainLossTrainer if plain else SharedTrainer
    return PlainLossTrainer if plain else SFTTrainer


def load_rows(job: Job) -> datasets.Dataset:
    """The rows as the trainer takes them: token ids and labels, nothing to prepare."""
    rows = datasets.Dataset.from_file(str(job.dataset / "rows.arrow"))
    return rows.select_columns(["input_ids", "labels"])


def checkpointing_here(job: Job, trainer: str, compiled: bool = False) -> Checkpointing:
    """Which layers are computed again on this machine; ``trainer`` is ``"trl"`` or ``"unsloth"``."""
    room = memory_here(workers().size)
    conditions = Conditions(torch.cuda.is_available(), trainer, room, compiled, share_here(job))
    return checkpointing_of(shape_of(job.base), job.recipe, conditions)


def share_here(job: Job) -> Share:
    """How the workers of this run share it."""
    size = workers().size
    return share_of(shape_of(job.base), job.recipe, size, torch.cuda.is_available(), memory_here(size))


def compiles_here(job: Job) -> bool:
    """Whether TRL's trainer compiles the layers on this machine (:func:`~inhouse_training.forecast.compiles`)."""
    if not torch.cuda.is_available() or job.recipe.trainer.compile is False:
        return False
    if workers().size > 1:
        return job.recipe.trainer.compile is True
    tokens = job.passes * int(Dataset(job.dataset).manifest["row_tokens"])
    return compiles(job.recipe, shape_of(job.base), tokens, this_machine(), "trl")


def documents_here(job: Job, model: Any) -> bool:
    """Whether documents of a packed row are told apart by where they begin (:mod:`inhouse_training.speed`)."""
    if job.recipe.trainer.attention != "auto":
        return job.recipe.trainer.attention == "documents"
    kernel = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    return kernel and not getattr(model.config, "attention_dropout", 0.0)


def keep_in_bfloat16(model: Any) -> None:
    """Keep a PEFT model's adapter in bf16, also when a checkpoint is read into it.

    PEFT casts the adapter of a bf16 base to float32 wherever it makes or loads one, and TRL 1.14 passes nothing on that
    would prevent it.
    """
    for weights in model.parameters():
        if weights.requires_grad:
            weights.data = weights.data.to(torch.bfloat16)
    model.load_adapter = functools.partial(model.load_adapter, autocast_adapter_dtype=False)


def sft_arguments(job: Job, run_dir: Path, checkpointing: Checkpointing, compiled: bool = False) -> SFTConfig:
    """What the recipe says, in TRL's words.

    Rows are tokenised and labelled already, so TRL prepares nothing, except that it packs them on a GPU;
    pieces never exceed ``max_length``, so packing cuts nothing off. Compiled layers get packed rows of one length,
    filled up by tokens that nothing is learned from. Checkpoints are written by time, not by step.
    """
    recipe, optimizer = job.recipe, job.recipe.optimizer
    rows, accumulate = rows_of_a_worker(recipe, workers().size)
    sharded = share_here(job).split
    on_gpu = torch.cuda.is_available()
    packing = on_gpu and recipe.trainer.packing
    return SFTConfig(
        output_dir=str(run_dir / "checkpoints"),
        num_train_epochs=job.passes,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=accumulate,
        learning_rate=optimizer.learning_rate,
        lr_scheduler_type=optimizer.schedule,
        warmup_steps=optimizer.warmup,
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.max_grad_norm,
        max_length=recipe.data.max_tokens,
        packing=packing,
        pad_to_multiple_of=recipe.data.max_tokens if packing and compiled else None,
        dataset_kwargs=None if packing else {"skip_prepare_dataset": True},
        train_sampling_strategy="group_by_length" if optimizer.batch_rows > 1 and not packing else "random",
        gradient_checkpointing=checkpointing != "none",
        gradient_checkpointing_kwargs={
            "use_reentrant": False,
            "every_n_layers": 2 if checkpointing == "selective" else 1,
        },
        **precision_arguments(training_type_here()),
        use_cpu=not on_gpu,
        fsdp=sharded,
        # Each keeps its own part in a checkpoint: reading a whole one back, the workers wait for each other for ever
        # (torch 2.13, accelerate's load_fsdp_model).
        fsdp_config={"version": 2, "reshard_after_forward": True, "state_dict_type": "SHARDED_STATE_DICT"}
        if sharded
        else None,
        # Else each holds the gradients of the whole adapter from batch to batch, and a large adapter was split in vain.
        accelerator_config={"gradient_accumulation_kwargs": {"sync_each_batch": True}} if sharded else None,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=on_gpu,
        # Where all logits fit, the plain loss is faster; a large model's are its largest tensor.
        loss_type="chunked_nll" if on_gpu and not _logits_fit(job) else "nll",
        include_num_input_tokens_seen="non_padding",
        seed=recipe.seed,
        data_seed=recipe.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )


def _logits_fit(job: Job) -> bool:
    """Whether the logits of a batch, their gradient and a copy take a third of the memory at most."""
    tokens = job.recipe.optimizer.batch_rows * job.recipe.data.max_tokens
    needed = 3 * 4 * tokens * _vocabulary(job)
    return needed < memory_here(workers().size) / 3


def _vocabulary(job: Job) -> int:
    config = json.loads((job.base.path / "config.json").read_text(encoding="utf-8"))
    return int(config.get("vocab_size") or config["text_config"]["vocab_size"])  # the latter in models that also see


def why_stop(losses: Sequence[float], vocabulary: int) -> tuple[str, str] | None:
    """Why it is of no use to go on after these losses, and what helps; ``None`` as long as nothing broke.

    Batches are small and their texts unlike, so one step says little: 1.2, 4.1, 1.5, 2.1 is an ordinary beginning. A
    run is stopped only by steps in a row, so many that no order of rows explains them:

    - three that cost more than 1.5 times what guessing would;
    - three that cost two thirds of guessing, twice the median and more than any step before them: a spike;
    - ten that cost two thirds of guessing and twice the median, whatever outlier came before: a spike that stays;
    - five that cost nothing: rows that are known by heart, or labels that are not there.

    Args:
        losses: of all steps so far, in nats a token.
    """
    step = len(losses)
    if step >= _COLLAPSING and max(losses[-_COLLAPSING:]) < _NOTHING:
        told = f"the loss is as good as 0 since {_COLLAPSING} steps, at step {step}: there is nothing left to learn"
        return told, "Lower optimizer.max_passes or optimizer.learning_rate in the recipe."
    if not any(_rose(losses, count, vocabulary) for count in (_IN_A_ROW, _LASTING)):
        return None
    guessing = f"{losses[-1]:.1f} nats a token at step {step}, where guessing costs {math.log(vocabulary):.1f}"
    return f"the loss broke: it is {guessing}", "Lower optimizer.learning_rate in the recipe."


def _rose(losses: Sequence[float], count: int, vocabulary: int) -> bool:
    """Whether the last ``count`` losses are those of a model that broke."""
    if len(losses) < count:
        return False
    before, least, guessing = losses[:-count], min(losses[-count:]), math.log(vocabulary)
    if least > _WORSE_THAN_GUESSING * guessing:
        return True
    if not before or least <= _HARDLY_BETTER * guessing or least <= _RISE * statistics.median(before):
        return False
    return count >= _LASTING or least > max(before)


def in_doubt(losses: Sequence[float], vocabulary: int) -> bool:
    """Whether the last step may be one of those that stop a run, so that no checkpoint takes a good one's place."""
    last, guessing = losses[-1], math.log(vocabulary)
    high = last > _HARDLY_BETTER * guessing and last > _RISE * statistics.median(losses)
    return high or last > _WORSE_THAN_GUESSING * guessing or last < _NOTHING


class RunCallback(TrainerCallback):  # type: ignore[misc]
    """Reports every step, writes ``metrics.jsonl``, asks for checkpoints, and stops when told or when the
    loss breaks."""

    def __init__(self, job: Job, run_dir: Path, reporter: Reporter) -> None:
        self.interval = job.recipe.trainer.checkpoint_seconds
        self.metrics = run_dir / "metrics.jsonl"
        self.reporter = reporter
        self.vocabulary = _vocabulary(job)
        self.stopping = False
        self.skipped: list[bool] = []
        self.step_began = self.saved = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        self.step_began = self.saved = time.monotonic()
        self.reporter.send("started", step=state.global_step, total=state.max_steps)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        late = time.monotonic() - self.saved >= self.interval
        self.stopping, late = agreed(self.stopping, late, device=args.device)
        if self.stopping or late:
            control.should_save = True
        if self.stopping:
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.saved = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        loss, grad_norm = float(logs["loss"]), float(logs.get("grad_norm", 0.0))
        # In float16 a gradient that is too large is no break: the step is left out, and the next is scaled less.
        self.skipped.append(args.fp16 and math.isfinite(loss) and not math.isfinite(grad_norm))
        for name, value in (("loss", loss), ("gradient norm", grad_norm)):
            if not math.isfinite(value) and not self.skipped[-1]:
                raise TrainingStopped(
                    f"the {name} became {value} at step {state.global_step}",
                    "Lower optimizer.learning_rate in the recipe.",
                )
        if always_skipped(self.skipped):
            raise TrainingStopped(
                f"the gradient is beyond float16 at every scale, up to step {state.global_step}",
                "Lower optimizer.learning_rate in the recipe, or take a GPU that multiplies bfloat16.",
            )
        # Those of an interrupted run are among them. A checkpoint is written after this, if at all.
        losses = [float(entry["loss"]) for entry in state.log_history if "loss" in entry]
        broken = why_stop(losses, self.vocabulary)
        if broken is not None:
            raise TrainingStopped(*broken)
        if in_doubt(losses, self.vocabulary) and not self.stopping:
            control.should_save = False
        now = time.monotonic()
        step = {
            "step": state.global_step,
            "total": state.max_steps,
            "loss": loss,
            "grad_norm": None if self.skipped[-1] else grad_norm,
            "learning_rate": logs.get("learning_rate"),
            "tokens": int(state.num_input_tokens_seen),
            "seconds": round(now - self.step_began, 3),
        }
        self.step_began = now
        if state.is_world_process_zero:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(step) + "\n")
        self.reporter.send("step", **step)


def run(trainer: Any, callback: RunCallback, job: Job, run_dir: Path) -> bool:
    """Train from the last checkpoint on and save the adapter; whether it came to its end."""
    trainer.add_callback(callback)
    if workers().size > 1:
        trainer.fill_up(job.recipe)
        if trainer.args.fsdp:
            shard(trainer)
    checkpoint = last_checkpoint(run_dir / "checkpoints")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if callback.stopping and trainer.state.global_step < trainer.state.max_steps:
        return False
    model = trainer.model
    weights = whole_adapter(model)
    if workers().rank:
        return True
    for config in model.peft_config.values():
        # The name, not this machine's folder: the adapter travels.
        config.base_model_name_or_path = job.base.name
    partial = run_dir / "adapter.partial"
    model.save_pretrained(partial, save_embedding_layers=False, state_dict=weights)
    (partial / "README.md").unlink(missing_ok=True)
    partial.rename(run_dir / "adapter")
    return True
