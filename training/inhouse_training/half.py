"""The type of numbers that a GPU trains in: bfloat16, or float16 with scaled gradients where it lacks bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

TrainingType = Literal["bfloat16", "float16", "float32"]

SKIPPED_IN_A_ROW = 20
"""Steps that a scaler may leave out one after the other. It begins at 65,536 and halves itself at each (Micikevicius et
al., "Mixed Precision Training", 2018), so after sixteen gradients are not scaled at all."""


def training_type(gpu: bool, bfloat16: bool) -> TrainingType:
    """What a base model is trained in.

    Args:
        gpu: whether there is one; a processor trains in float32.
        bfloat16: whether the GPU multiplies that itself. Before Ampere (compute capability 8.0) none does: torch
            computes in float32 there and rounds, several times slower than float16, and some have no kernel at all.
    """
    if not gpu:
        return "float32"
    return "bfloat16" if bfloat16 else "float16"


def multiplies_bfloat16() -> bool:
    """Whether this machine's GPU multiplies bfloat16 itself."""
    import torch

    return bool(torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False))


def training_type_here() -> TrainingType:
    """What this machine trains in."""
    import torch

    return training_type(torch.cuda.is_available(), multiplies_bfloat16())


def training_dtype() -> Any:
    """The ``torch.dtype`` of the base model while this machine trains; on a processor that of
    :func:`~inhouse_training.base_model.best_dtype`, in which it loads anyway."""
    from .base_model import best_device, best_dtype

    return best_dtype(best_device())


def precision_arguments(chosen: TrainingType) -> dict[str, bool]:
    """The same in the words of transformers' ``TrainingArguments``. ``fp16`` scales gradients, too."""
    return {"bf16": chosen == "bfloat16", "fp16": chosen == "float16"}


def always_skipped(skipped: Sequence[bool]) -> bool:
    """Whether the last steps were left out in a row, so many that no smaller scale is left to try.

    Args:
        skipped: of each step so far, whether its gradient was beyond float16 and the step was left out.
    """
    return len(skipped) >= SKIPPED_IN_A_ROW and all(skipped[-SKIPPED_IN_A_ROW:])
