"""Several LoRA adapters at once: each token passes through the adapter of its own conversation.

The matrices of all adapters in use are stacked along the rank. A linear layer multiplies by the whole stack, and a mask
of zeros and ones lets through only the ranks of the token's own adapter: two small products more for each layer,
however many adapters there are, and a conversation with the base model stands beside the others. The base's weights are
not touched, so a new version needs no pause: old answers end on the old version while new ones begin on the new.

The idea is that of Punica (Chen et al., MLSys 2024, arXiv:2310.18547), without kernels of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..cpu import is_plain_linear
from ..engine import BASE
from ..weights import is_in_4_bits

AT_ONCE = 4
"""Versions in the stack at most."""


@dataclass(frozen=True, slots=True)
class LayerOfAdapter:
    """What an adapter adds to a linear layer: ``up @ down @ x``.

    Attributes:
        down: [rank, inputs]. up: [outputs, rank], LoRA's scale included.
    """

    linear: nn.Linear
    down: torch.Tensor
    up: torch.Tensor


@dataclass(slots=True)
class _Segment:
    """Ranks ``begin`` to ``begin + size`` of the stack, and whose they are."""

    begin: int
    size: int
    version: str | None = None


class _Addition:
    """The stack of one linear layer: ``down`` [ranks, inputs], ``up`` [outputs, ranks]."""

    def __init__(self, linear: nn.Linear, ranks: int, like: torch.Tensor) -> None:
        self.down = like.new_zeros(ranks, linear.in_features)
        self.up = like.new_zeros(linear.out_features, ranks)

    def widen(self, ranks: int) -> None:
        down, up = self.down, self.up
        self.down = down.new_zeros(ranks, down.shape[1])
        self.up = up.new_zeros(up.shape[0], ranks)
        self.down[: down.shape[0]] = down
        self.up[:, : up.shape[1]] = up


class StackedAdapters:
    """The adapters in use by one model. Belongs to whoever holds the engine's turn.

    Attributes:
        generation: changes when tensors were made anew, so that what was recorded with the old ones is of no more use.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.generation = 0
        self._device = device
        self._dtype = dtype
        self._segments: list[_Segment] = []
        self._used: list[str] = []  # the version that was asked for last is last
        self._additions: dict[nn.Linear, _Addition] = {}
        self._masks = torch.zeros(AT_ONCE + 1, 0, device=device, dtype=dtype)  # the first is of the base
        self._mask: torch.Tensor | None = None  # of the forward pass under way

    @property
    def versions(self) -> tuple[str, ...]:
        return tuple(self._used)

    def tensors(self) -> Iterator[torch.Tensor]:
        """The matrices of all layers."""
        for addition in self._additions.values():
            yield from (addition.down, addition.up)

    def row(self, version: str) -> int:
        """The number by which a token says that it is of this version."""
        if version == BASE:
            return 0
        return next(n for n, each in enumerate(self._segments, start=1) if each.version == version)

    def has(self, version: str) -> bool:
        """Whether it is there; if so, it counts as asked for."""
        if version in self._used:
            self._used.remove(version)
            self._used.append(version)
        return version == BASE or version in self._used

    def can_add(self, in_use: Collection[str]) -> bool:
        """Whether there is room for one more beside those ``in_use``."""
        return len(self._segments) < AT_ONCE or any(each not in in_use for each in self._used)

    def add(self, version: str, layers: Collection[LayerOfAdapter], in_use: Collection[str]) -> None:
        """Put a version into the stack, in place of one that is not ``in_use`` where possible; without gradients."""
        rank = max(each.down.shape[0] for each in layers)
        segment = self._room(rank, in_use)
        ranks = slice(segment.begin, segment.begin + segment.size)
        for addition in self._additions.values():
            addition.down[ranks] = 0
            addition.up[:, ranks] = 0
        for layer in layers:
            addition = self._addition(layer.linear)
            own = slice(segment.begin, segment.begin + layer.down.shape[0])
            addition.down[own] = layer.down.to(self._dtype)
            addition.up[:, own] = layer.up.to(self._dtype)
        segment.version = version
        self._used.append(version)

    def _room(self, rank: int, in_use: Collection[str]) -> _Segment:
        free = [each for each in self._used if each not in in_use]
        for version in free:  # the one that was not asked for the longest is first
            segment = self._segments[self.row(version) - 1]
            if segment.size >= rank:
                self._used.remove(version)
                return segment
        if len(self._segments) == AT_ONCE:  # all are too small: one of them moves to the end, where there is room
            gone = self._segments[self.row(free[0]) - 1]
            self._used.remove(free[0])
        else:
            gone = _Segment(0, 0)
            self._segments.append(gone)
        ranks = self._masks.shape[1] + rank
        gone.begin, gone.size = self._masks.shape[1], rank
        for addition in self._additions.values():
            addition.widen(ranks)
        self._masks = torch.zeros(AT_ONCE + 1, ranks, device=self._device, dtype=self._dtype)
        for row, segment in enumerate(self._segments, start=1):
            self._masks[row, segment.begin : segment.begin + segment.size] = 1
        self.generation += 1
        return gone

    def _addition(self, linear: nn.Linear) -> _Addition:
        if linear not in self._additions:
            self._additions[linear] = _Addition(linear, self._masks.shape[1], self._masks)
            linear.register_forward_hook(self._add)
            self.generation += 1
        return self._additions[linear]

    @contextlib.contextmanager
    def of_rows(self, rows: torch.Tensor) -> Iterator[None]:
        """Let the tokens of a forward pass have their adapters.

        Args:
            rows: int64 [tokens], the number of each token's version.
        """
        self._mask = self._masks[rows] if self._additions else None
        try:
            yield
        finally:
            self._mask = None

    def _add(self, linear: nn.Module, given: tuple[Any, ...], output: torch.Tensor) -> None:
        """A forward hook: adds in place, and nothing while no batch runs."""
        if self._mask is None:
            return
        addition = self._additions[linear]
        hidden = nn.functional.linear(given[0].flatten(0, -2), addition.down).mul_(self._mask)
        output.view(-1, output.shape[-1]).addmm_(hidden, addition.up.t())


def layers_of(model: Any, version: str) -> list[LayerOfAdapter] | None:
    """The layers of an adapter that PEFT has loaded; ``None`` for one that is more than products of two matrices.

    Args:
        model: a PeftModel.
    """
    from peft.tuners.lora import LoraLayer

    config = model.peft_config[version]
    more = ("modules_to_save", "trainable_token_indices", "layer_replication", "alora_invocation_tokens")
    if config.bias != "none" or any(getattr(config, name, None) for name in more):
        return None
    found = []
    for each in model.modules():
        if not isinstance(each, LoraLayer) or not _carries(each, version):
            continue
        linear = each.get_base_layer()
        plain = (is_plain_linear(linear) or is_in_4_bits(linear)) and version in each.lora_A
        if not plain or version in each.lora_variant or each.lora_bias.get(version) or each.fan_in_fan_out:
            return None
        up = each.lora_B[version].weight * each.scaling[version]
        found.append(LayerOfAdapter(linear, each.lora_A[version].weight, up))
    return found or None


def _carries(layer: Any, version: str) -> bool:
    return any(version in getattr(layer, name, {}) for name in ("lora_A", "lora_embedding_A"))
