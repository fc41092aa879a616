"""Attention over several conversations in one forward pass.

Tokens of all conversations stand in one row, so that everything but attention multiplies one large matrix. Keys and
values lie in a pool, each conversation in a place of its own without gaps. On a GPU that is what FlashAttention 2, a
part of torch, reads: a start and a length for each conversation. Elsewhere each conversation is attended to by itself.

Source of the method: Orca (Yu et al., OSDI 2022), selective batching.
"""

from __future__ import annotations

from .. import lean as lean  # first: it decides what transformers takes along

# isort: split
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

PACKED = "inhouse_packed"
"""Name of this attention among those of transformers. No mask is registered for it, so none is made."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens ``begin`` to ``end`` of the row: the last of ``used`` that one conversation has in the pool from ``start``
    on."""

    begin: int
    end: int
    start: int
    used: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """The same for FlashAttention, on the device.

    Attributes:
        queries: int32 [pieces + 1], where each piece begins in the row, and the row's length.
        starts: int32 [pieces + 1], where each conversation begins in the pool, ascending, and the pool's length.
        used: int32 [pieces].
        longest_query, longest: at least as many tokens as any piece has, and any conversation.
    """

    queries: torch.Tensor
    starts: torch.Tensor
    used: torch.Tensor
    longest_query: int
    longest: int


@dataclass(frozen=True, slots=True)
class Packed:
    """Where the tokens of one forward pass belong.

    Attributes:
        pool: keys and values, [layers, 2, tokens, key-value heads, width of a head].
        slots: int64 [tokens of the row], the place of each token in the pool.
        pieces: for a device without FlashAttention, the bounds otherwise.
    """

    pool: torch.Tensor
    slots: torch.Tensor
    pieces: tuple[Piece, ...] | Bounds


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    *,
    packed: Packed,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it: of query, key and value, [1, heads, tokens, width], [1, tokens, heads, width]."""
    keys, values = packed.pool[module.layer_idx]
    keys.index_copy_(0, packed.slots, key[0].transpose(0, 1))
    values.index_copy_(0, packed.slots, value[0].transpose(0, 1))
    if isinstance(packed.pieces, Bounds):
        return _flash(query[0].transpose(0, 1), keys, values, packed.pieces, scaling)[None], None
    return torch.cat([_one(query, keys, values, each, scaling) for each in packed.pieces], dim=1), None


def _flash(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bounds: Bounds, scaling: float | None
) -> torch.Tensor:
    attended: torch.Tensor = torch.ops.aten._flash_attention_forward(
        query,
        keys,
        values,
        bounds.queries,
        bounds.starts,
        bounds.longest_query,
        bounds.longest,
        0.0,  # dropout
        bounds.longest_query > 1,  # causal: the last query sees the last key
        False,
        scale=scaling,
        seqused_k=bounds.used,
    )[0]
    return attended


def _one(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, piece: Piece, scaling: float | None
) -> torch.Tensor:
    count = piece.end - piece.begin
    seen = slice(piece.start, piece.start + piece.used)
    mask = None
    if 1 < count < piece.used:
        mask = torch.ones(count, piece.used, dtype=torch.bool, device=query.device).tril(piece.used - count)
    attended = scaled_dot_product_attention(
        query[:, :, piece.begin : piece.end],
        keys[seen].transpose(0, 1)[None],
        values[seen].transpose(0, 1)[None],
        attn_mask=mask,
        is_causal=count == piece.used,
        scale=scaling,
        enable_gqa=query.shape[1] != keys.shape[1],
    )
    return attended.transpose(1, 2)


AttentionInterface.register(PACKED, packed_attention)


def has_flash(device: torch.device, dtype: torch.dtype, head_width: int) -> bool:
    """Whether torch's own FlashAttention runs here: from NVIDIA's Ampere on, in half precision."""
    return (
        device.type == "cuda"
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and torch.backends.cuda.is_flash_attention_available()
        and dtype in (torch.float16, torch.bfloat16)
        and head_width <= 256
        and head_width % 8 == 0
    )
