"""One run on several GPUs of one machine: how a step is shared, what the workers agree on, and what is saved.

One worker process for each GPU (:mod:`inhouse_training.finetune` starts them), joined by torch.distributed: NCCL on
GPUs, gloo without. Every worker has the whole model and the gradients are summed (``DistributedDataParallel``), or,
where that does not fit, weights, adapter and optimiser are split between them (FSDP2 by accelerate).

A step has the rows of the recipe whatever the number of GPUs: the workers take turns at the batches in the order in
which one worker would take them. Where an epoch ends in the midst of a step, rows of which nothing is learned fill it
up, in place of accelerate's rows from the beginning, which would be learned twice. The loss is divided by the tokens
that all workers learn in a step. So losses are those of one worker, within rounding
(``tests/training/test_several_gpus.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets
import torch
import torch.distributed
from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import RandomSampler, Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..prompts import IGNORED
from ..recipe import Recipe
from . import TrainingStopped, workers


def take_own_device() -> None:
    """Let ``"cuda"`` be this worker's GPU. Without GPUs accelerate numbers processors, and torch reads no such number
    from a checkpoint unless it is told how."""
    if workers().size == 1:
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(workers().rank)
    else:
        torch.serialization.register_package(
            0, lambda _: None, lambda storage, place: storage if place.startswith("cpu:") else None
        )


def agreed(*flags: bool, device: Any) -> list[bool]:
    """For each flag whether any worker has set it. All workers must ask at the same place."""
    if workers().size == 1:
        return list(flags)
    asked = torch.tensor(flags, dtype=torch.int32, device=device)
    torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
    return [bool(flag) for flag in asked.tolist()]


class SharedOrder(Sampler[int]):  # type: ignore[misc]
    """The order of rows of one worker alone, the same in all of them, filled up to whole turns.

    Args:
        order: of ``rows`` rows.
        turn: rows that all workers take together in one forward pass.
    """

    def __init__(self, order: Sampler[int], rows: int, turn: int, device: Any) -> None:
        self.order, self.rows, self.turn, self.device = order, rows, turn, device

    def __len__(self) -> int:
        return -(-self.rows // self.turn) * self.turn

    def __iter__(self) -> Iterator[int]:
        order = torch.tensor(list(self.order), device=self.device)
        torch.distributed.broadcast(order, 0)
        yield from order.tolist()
        yield from [self.rows] * (len(self) - self.rows)  # the row that was appended by with_filler

    def set_epoch(self, epoch: int) -> None:
        """As accelerate tells it at the beginning of each pass."""
        if hasattr(self.order, "set_epoch"):
            self.order.set_epoch(epoch)


def with_filler(rows: datasets.Dataset, padding: int) -> datasets.Dataset:
    """The rows, and one of two tokens at their end of which nothing is learned."""
    filler: dict[str, Any] = {"input_ids": [padding] * 2, "labels": [IGNORED] * 2}
    if "seq_lengths" in rows.column_names:  # packed
        filler["seq_lengths"] = [2]
    added = datasets.Dataset.from_list([filler], features=rows.features)
    return datasets.concatenate_datasets([rows, added])


class SeveralWorkers:
    """What the trainer of one worker among several does otherwise; stands before TRL's class."""

    recipe: Recipe
    args: Any
    accelerator: Any
    model: Any
    train_dataset: Any
    _save: Any
    processing_class: Any

    def fill_up(self, recipe: Recipe) -> None:
        """Append the filler; called once, when TRL has packed the rows."""
        self.recipe = recipe
        self.train_dataset = with_filler(self.train_dataset, self.processing_class.pad_token_id)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As transformers does it; of a split model the adapter alone is gathered, and nothing of the base."""
        split = whole_adapter(self.model)
        if split is None:
            super().save_model(output_dir, _internal_call)  # type: ignore[misc]
        elif self.args.should_save:
            self._save(output_dir, state_dict=split)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        chosen = super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        rows = len(self.train_dataset) - 1
        optimizer = self.recipe.optimizer
        order: Sampler[int]
        if isinstance(chosen, RandomSampler):  # as accelerate takes it for one worker
            order = SeedableRandomSampler(range(rows), data_seed=self.args.data_seed)
        elif isinstance(chosen, LengthGroupedSampler):
            order = LengthGroupedSampler(optimizer.batch_rows * optimizer.accumulate, lengths=chosen.lengths[:rows])
        else:
            raise TrainingStopped(f"rows ordered by {type(chosen).__name__} are not shared", "Set trainer.gpus to 1.")
        turn = workers().size * self.args.per_device_train_batch_size
        return SharedOrder(order, rows, turn, self.args.device)


def shard(trainer: Any) -> None:
    """Let a trainer whose arguments ask for FSDP reduce gradients in float32, and shard on a processor, too.

    accelerate would cast the loss and the sum of gradients to bf16, and knows FSDP for accelerators only.
    """
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import MixedPrecisionPolicy

    state = trainer.accelerator.state
    if trainer.args.use_cpu:
        state.distributed_type = DistributedType.FSDP
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
        trainer.is_fsdp_enabled = True
    else:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        state.fsdp_plugin.mixed_precision_policy = policy


def whole_adapter(model: Any) -> dict[str, Any] | None:
    """The adapter's weights on the processor where they are split; else ``None``. All workers must ask."""
    from torch.distributed.tensor import DTensor

    trained = {name: weights for name, weights in model.named_parameters() if weights.requires_grad}
    if not any(isinstance(weights, DTensor) for weights in trained.values()):
        return None
    return {
        name: (weights.full_tensor() if isinstance(weights, DTensor) else weights).detach().cpu()
        for name, weights in trained.items()
    }
