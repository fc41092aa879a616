"""What a run will take, told beforehand: rows, steps, memory, time, cost; and what would fit where it does not."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from inhouse_retrieval import InhouseError

from .base_model import BaseModel
from .dataset import Dataset
from .finetune import asks_for_trl, check_trainer, training_passes, unsloth_installed
from .half import TrainingType, training_type
from .machines import Machine, visible_gpus
from .memory import (
    GIB,
    Conditions,
    Memory,
    Shape,
    check_context,
    check_targets,
    checkpointed_share,
    checkpointing_of,
    predict_memory,
    shape_of,
    share_of,
    what_would_fit,
)
from .prompts import IGNORED
from .recipe import Recipe
from .sharing import ALONE, Share, workers_of

_REACHED = 0.5
"""Part of a matrix product's speed that training reaches: four ways to train a 7B model reached 0.49 to 0.57 of the 798
TFLOP/s of an H100 (docs/measurements.md)."""
_LAYER_SECONDS = {False: 0.009, True: 0.006}
"""Whether layers are compiled -> what it takes at least to hand a GPU the kernels of one layer, there and back, for one
batch, however small. From SmolLM2 by TRL on an H200: 67,000 tokens/s in batches of 18,432, compiled 105,000."""
_PAYS_FROM = 600.0
"""Seconds of a run from which compiling pays: it takes up to 70 once, and an H100 then saved a quarter of the time."""


@dataclass(frozen=True, slots=True)
class RowCount:
    """What a dataset holds: rows, their tokens, and those that are learned.

    Attributes:
        remark: what the figures leave out or rest on, as a sentence; empty when they are exact.
    """

    rows: int
    tokens: int
    label_tokens: int
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Forecast:
    """A run on one machine.

    Attributes:
        passes, steps, tokens: times that the rows are seen, optimiser steps, and tokens read in all of them.
        memory: predicted peak; ``None`` where the base model's shape is not known.
        seconds, cost: of training alone; the cost in the currency of the price, where one was given.
        basis: what the time rests on, as a sentence.
        refusal: why the run cannot be made on this machine, and what could be, as a sentence; empty when it fits.
        share: how several GPUs share the run; ``memory`` is of each of them.
        precision: the type of numbers that the base model is trained in.
    """

    machine: Machine
    rows: RowCount | None
    passes: int | None
    steps: int | None
    tokens: int | None
    memory: Memory | None
    seconds: float | None
    cost: float | None
    basis: str
    refusal: str
    share: Share = ALONE
    precision: TrainingType = "float32"

    def to_json(self) -> dict[str, Any]:
        """As ``--dry-run --json`` has it, with the sum of the memory."""
        stored = asdict(self)
        return {**stored, "memory": {**stored["memory"], "total": self.memory.total} if self.memory else None}


def count_rows(dataset: Dataset, remark: str = "") -> RowCount:
    """Count a finished dataset."""
    labels = dataset.rows.select_columns(["labels"])
    learned = sum(sum(label != IGNORED for label in row["labels"]) for row in labels)
    return RowCount(dataset.manifest["rows"], dataset.manifest["row_tokens"], learned, remark)


def forecast_training(
    recipe: Recipe,
    base: BaseModel,
    rows: RowCount | None,
    machine: Machine,
    price: float | None = None,
    tokens_per_second: float | None = None,
) -> Forecast:
    """Predict one run.

    Args:
        price: of the machine for an hour.
        tokens_per_second: of a former run on this machine, where there was one.
    """
    shape = shape_of(base)
    passes = steps = tokens = None
    if rows is not None:
        passes = training_passes(recipe, rows.tokens)
        steps = passes * _steps_of_a_pass(recipe, rows, machine)
        tokens = passes * rows.tokens
    try:
        conditions = conditions_of(shape, recipe, machine, tokens)
    except InhouseError as error:
        refused = f"{error.problem} {error.remedy}"
        return Forecast(machine, rows, passes, steps, tokens, None, None, None, "It cannot begin.", refused)
    share = conditions.share
    memory = predict_memory(shape, recipe, conditions) if shape is not None else None
    seconds, basis = None, "How long it takes is not known."
    if tokens is not None and tokens_per_second is not None:
        seconds, basis = tokens / tokens_per_second, f"As fast as the last run here: {tokens_per_second:.0f} tokens/s."
    elif rows is not None and tokens is not None and shape is not None:
        seconds, basis = _time(shape, recipe, rows, tokens, machine, conditions)
    cost = seconds / 3600 * price if seconds is not None and price is not None else None
    refusal = _refusal(shape, recipe, base, memory, machine, conditions)
    precision = training_type(machine.gpu, machine.bfloat16)
    return Forecast(machine, rows, passes, steps, tokens, memory, seconds, cost, basis, refusal, share, precision)


def conditions_of(shape: Shape | None, recipe: Recipe, machine: Machine, tokens: int | None) -> Conditions:
    """How a recipe would run on a machine.

    Args:
        tokens: read in the whole run; ``None`` where nobody knows yet, and then ``"auto"`` compiles nothing.

    Raises:
        InhouseError: the machine lacks the GPUs that the recipe asks for, or they cannot share the rows of a step.
    """
    trainer, share = _trainer(recipe, machine), _share(shape, recipe, machine)
    return Conditions(
        machine.gpu, trainer, machine.memory, compiles(recipe, shape, tokens, machine, trainer, share), share
    )


def _share(shape: Shape | None, recipe: Recipe, machine: Machine) -> Share:
    """Of this machine's GPUs, or of as many cards as the recipe asks for.

    Raises:
        InhouseError: they are not there, or cannot share the rows of a step.
    """
    asked = recipe.trainer.gpus
    workers = workers_of(recipe, len(visible_gpus()) if machine.measured else 1 if asked == "all" else asked)
    return share_of(shape, recipe, workers, machine.gpu, machine.memory)


def _trainer(recipe: Recipe, machine: Machine) -> str:
    """The trainer that would run: Unsloth on a GPU, where it is installed if that GPU is this machine's."""
    kind = recipe.trainer.kind
    if kind == "auto" and (asks_for_trl(recipe) or (machine.measured and not unsloth_installed())):
        kind = "trl"
    return "unsloth" if machine.gpu and kind != "trl" else "trl"


def compiles(
    recipe: Recipe, shape: Shape | None, tokens: int | None, machine: Machine, trainer: str, share: Share = ALONE
) -> bool:
    """Whether the layers are compiled: where the recipe says so, or, ``"auto"``, where it pays.

    It pays where a packed run of so many tokens would take ten minutes at least without: rows of one length are
    compiled once, and of the time that an H100 takes for a 7B model a quarter is saved. Several GPUs compile only when
    asked to: nobody has tried it.

    Args:
        tokens: read in the whole run; ``None`` where nobody knows, and then nothing is compiled.
        trainer: ``"trl"`` or ``"unsloth"``, which has kernels of its own.
    """
    if not machine.gpu or trainer != "trl" or recipe.trainer.compile != "auto":
        return machine.gpu and trainer == "trl" and recipe.trainer.compile is True
    if not recipe.trainer.packing or shape is None or tokens is None or share.workers > 1:
        return False
    plain = Conditions(machine.gpu, trainer, machine.memory)
    batches = tokens / (recipe.data.max_tokens * recipe.optimizer.batch_rows)
    computing = tokens / _tokens_per_second(shape, recipe, machine, plain)
    return max(computing, batches * _seconds_a_batch(shape, plain)) >= _PAYS_FROM


def _time(
    shape: Shape, recipe: Recipe, rows: RowCount, tokens: int, machine: Machine, conditions: Conditions
) -> tuple[float, str]:
    """Seconds of a run, and what they rest on: what is slower, to compute, or to hand a GPU what it is to compute."""
    workers = conditions.share.workers
    together = f" {workers} GPUs are reckoned as so many times one." if workers > 1 else ""
    speed = workers * _tokens_per_second(shape, recipe, machine, conditions)
    batches = training_passes(recipe, rows.tokens) * _batches_of_a_pass(recipe, rows, machine)
    each = _seconds_a_batch(shape, conditions)
    handing = batches / workers * each
    if handing > tokens / speed:
        told = f"so small a batch waits for its kernels, {each:.2g} s each"
        return handing, f"At {tokens / handing:.0f} tokens/s: {told}.{together}"
    measured = "was measured here" if machine.measured else "is from a table"
    told = f"half of the speed of a matrix product, {machine.tflops:.3g} TFLOP/s, which {measured}"
    return tokens / speed, f"At {speed:.0f} tokens/s: {told}.{together}"


def _seconds_a_batch(shape: Shape, conditions: Conditions) -> float:
    """The least that one batch takes by TRL on a GPU. 0 on a processor, where handing over costs next to nothing, and
    for Unsloth, whose kernels do more each: how long they take nobody has measured."""
    by_trl = conditions.gpu and conditions.trainer == "trl"
    return shape.layers * _LAYER_SECONDS[conditions.compiled] if by_trl else 0.0


def _tokens_per_second(shape: Shape, recipe: Recipe, machine: Machine, conditions: Conditions) -> float:
    """Of each GPU."""
    again = checkpointed_share(shape.layers, checkpointing_of(shape, recipe, conditions))
    return _REACHED * machine.tflops * 1e12 / _flops_a_token(shape, recipe, again)


def _steps_of_a_pass(recipe: Recipe, rows: RowCount, machine: Machine) -> int:
    return max(1, math.ceil(_batches_of_a_pass(recipe, rows, machine) / recipe.optimizer.accumulate))


def _batches_of_a_pass(recipe: Recipe, rows: RowCount, machine: Machine) -> int:
    packed = machine.gpu and recipe.trainer.packing
    return math.ceil((rows.tokens / recipe.data.max_tokens if packed else rows.rows) / recipe.optimizer.batch_rows)


def _flops_a_token(shape: Shape, recipe: Recipe, checkpointed: float) -> float:
    """Forward, and backward to the activations, through the frozen base (2 + 2 a parameter), all three through the
    adapter (6), and the forward pass again through the part of the layers that is checkpointed (Kaplan et al., 2020,
    appendix; attention left out)."""
    frozen = shape.linear_parameters + shape.hidden * shape.vocabulary
    again = 2 * checkpointed
    return float((4 + again) * frozen + (6 + again) * shape.adapter_parameters(recipe))


def _refusal(
    shape: Shape | None,
    recipe: Recipe,
    base: BaseModel,
    memory: Memory | None,
    machine: Machine,
    conditions: Conditions,
) -> str:
    if recipe.trainer.load_in_4bit and not machine.gpu:
        return (
            f"The recipe {recipe.name} loads the base model in 4 bit, which needs a GPU: plan for one with --card, "
            "or take the recipe cpu-trial."
        )
    if recipe.trainer.load_in_4bit and conditions.trainer == "trl":
        return (
            f"The recipe {recipe.name} loads the base model in 4 bit, which needs Unsloth: install it and leave "
            "trainer.kind, trainer.compile, trainer.attention and lora.dtype out, or set trainer.load_in_4bit to false."
        )
    kind = conditions.trainer if recipe.trainer.kind == "auto" else recipe.trainer.kind
    try:
        # Of a card that would be rented nobody knows what is installed beside it.
        installed = not machine.measured or unsloth_installed()
        check_trainer(recipe, kind, installed, machine.gpu, machine.bfloat16)
        check_targets(recipe, base)
    except InhouseError as error:
        return f"{error.problem} {error.remedy}"
    if memory is None or memory.total <= machine.memory or shape is None:
        try:
            check_context(recipe, base, conditions.trainer)
        except InhouseError as error:
            return f"{error.problem} {error.remedy}"
        return ""
    workers = conditions.share.workers
    each = f" on each of {workers} GPUs" if workers > 1 else ""
    told = (
        f"{base.name} with the recipe {recipe.name} needs about {memory.total / GIB:.1f} GiB{each}, and {machine.name} "
        f"has {machine.memory / GIB:.1f} GiB."
    )
    found = what_would_fit(shape, recipe, conditions)
    if found is None:
        return f"{told} No change of the recipe makes it fit: take {'gpu-trial' if machine.gpu else 'cpu-trial'}."
    return f"{told} With {found[0]} it takes {found[1].total / GIB:.1f} GiB and would fit."
