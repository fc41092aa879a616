"""Which engine answers on this machine; only that one is imported."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from .base_model import BaseModel
from .in_process_engine import InProcessEngine
from .weights import Weights

log = logging.getLogger(__name__)

Batched = Literal["auto", "on", "off"]


def load_engine(
    base: BaseModel, adapters: Callable[[str], Path], batched: Batched, weights: Weights = "full"
) -> InProcessEngine:
    """The engine for this machine.

    Args:
        batched: ``"auto"`` makes answers together on a GPU, where the base model allows it, and in 8 bits; ``"off"``
            makes them one at a time.
        weights: see :mod:`~inhouse_training.weights`.

    Raises:
        InhouseError: as :class:`~inhouse_training.batching.engine.BatchedEngine` and
            :class:`~inhouse_training.eight_bits.engine.EightBitEngine`.
    """
    from .base_model import best_device

    if weights == "8bit":
        from .eight_bits.engine import STREAMS, EightBitEngine

        return EightBitEngine(base, adapters, streams=1 if batched == "off" else STREAMS)
    from .batching.engine import BatchedEngine
    from .transformers_engine import TransformersEngine

    if batched == "on" or (batched == "auto" and best_device() == "cuda" and _allows(base)):
        return BatchedEngine(base, adapters, weights=weights)
    return TransformersEngine(base, adapters, weights=weights)


def _allows(base: BaseModel) -> bool:
    """Whether the answers of a base model can be made together; reads its configuration, not its weights."""
    from .base_tensors import config_of, hollow_model
    from .exchanged_attention import why_not_exchanged

    reason = why_not_exchanged(hollow_model(config_of(base)))
    if reason:
        log.warning("answers of %s are made one at a time: %s", base.name, reason)
    return not reason
