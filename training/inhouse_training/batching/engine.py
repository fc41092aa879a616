"""The in-process engine for several users: as :class:`TransformersEngine`, but answers are made together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from inhouse_retrieval import InhouseError

from ..base_model import BaseModel
from ..engine import BASE
from ..exchanged_attention import why_not_exchanged
from ..transformers_engine import TransformersEngine
from ..weights import Weights
from .adapters import StackedAdapters, layers_of
from .attention import has_flash
from .decoder import Decoder
from .pool import Places
from .scheduler import Scheduler
from .together import NotTogether, TogetherEngine

log = logging.getLogger(__name__)

STREAMS = 32
"""Answers under way at once; further requests wait."""
STREAMS_CPU = 8
BLOCK = 2048
"""Tokens of prompts in one forward pass: enough that an H100 computes longer than Python takes to start the kernels."""
BLOCK_CPU = 512
ROOM = 8192
"""Tokens of the pool for each answer under way, if memory allows. A longer one takes the room of several."""
SHARE_OF_FREE = 0.6
"""Of the memory that is free on a GPU once the model is loaded: blocks of long prompts and scores need the rest."""


class BatchedEngine(TogetherEngine, TransformersEngine):
    """Makes answers of several requests together.

    Args:
        streams: answers under way at most. See :class:`TransformersEngine` for the rest.

    Raises:
        InhouseError: the base model cannot be loaded, its answers cannot be made together, or no memory is left.
    """

    def __init__(
        self,
        base: BaseModel,
        adapters: Callable[[str], Path],
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        weights: Weights = "full",
        streams: int | None = None,
    ) -> None:
        super().__init__(base, adapters, device=device, dtype=dtype, weights=weights)
        if reason := why_not_exchanged(self._causal):
            raise InhouseError(
                f"The answers of {base.name} cannot be made together. {reason}", 'Set engine.batched = "off".'
            )
        on_gpu = self._causal.device.type == "cuda"
        streams = streams or (STREAMS if on_gpu else STREAMS_CPU)
        self._pool = _pool(self._causal, streams, self.context_tokens)
        self._stack = StackedAdapters(self._causal.device, self._causal.dtype)
        self._decoder: Decoder | None = None
        self._decoded: Any = None  # the model of that decoder
        self._alone: set[str] = set()  # adapters that are more than LoRA
        self._scheduler = Scheduler(
            self._turn,
            self._ready,
            self._stack_adapter,
            Places(self._pool.shape[2] - 1),
            streams,
            BLOCK if on_gpu else BLOCK_CPU,
        )

    @property
    def loaded_adapters(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*super().loaded_adapters, *self._stack.versions]))

    def _tensors(self) -> Iterator[torch.Tensor]:
        yield from super()._tensors()
        yield self._pool
        yield from self._stack.tensors()

    def close(self) -> None:
        self._scheduler.close()
        self._stack = StackedAdapters(torch.device("cpu"), self._pool.dtype)  # an empty one
        self._pool = self._decoder = self._decoded = None
        super().close()

    def _is_made_alone(self, adapter: str) -> bool:
        return adapter in self._alone

    # ------------------------------------------------------------------------------------------------------
    # The scheduler calls these with the turn held.

    def _ready(self) -> tuple[Decoder, StackedAdapters]:
        self._activate(BASE)
        if self._decoder is None or self._decoded is not self._causal:
            config, model = self._causal.config, self._causal
            flash = has_flash(model.device, model.dtype, _head_width(config))
            self._decoder = Decoder(model, self._pool, self._stack, self.streams, flash)
            self._decoded = model
        return self._decoder, self._stack

    def _stack_adapter(self, adapter: str, in_use: frozenset[str]) -> None:
        self._activate(adapter)
        layers = layers_of(self._model, adapter)
        self._activate(BASE)
        if layers is None:
            self._alone.add(adapter)
            log.warning("adapter %s is more than LoRA, so its answers are made one at a time", adapter)
            raise NotTogether(adapter)
        self._stack.add(adapter, layers, in_use)


def _head_width(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _pool(model: Any, streams: int, context: int) -> torch.Tensor:
    """Keys and values: [layers, 2, tokens, key-value heads, width of a head]."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = _head_width(config)
    tokens = max(context, streams * min(context, ROOM)) + 1
    if model.device.type == "cuda":
        of_token = config.num_hidden_layers * 2 * heads * width * model.dtype.itemsize
        tokens = min(tokens, int(torch.cuda.mem_get_info(model.device)[0] * SHARE_OF_FREE) // of_token)
    try:
        shape = (config.num_hidden_layers, 2, tokens, heads, width)
        return torch.zeros(shape, device=model.device, dtype=model.dtype)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        raise InhouseError(
            f"No memory is left for keys and values beside the base model: {str(error).splitlines()[0]}",
            'Take a smaller base model, or set engine.batched = "off".',
        ) from error
