"""What makes a training step fast on a GPU: attention that keeps the documents of a packed row apart, compiled layers.

**Attention.** Transformers tells apart the documents of a packed row by their position ids, and hands ``"sdpa"`` a
mask of the row by itself. With a mask there is neither FlashAttention nor a causal shortcut, keys and values are
repeated for every head, and 8,192 tokens cost 67 million scores, however short the documents are. ``"documents"`` hands
the layers where each document begins in place of the mask. FlashAttention's kernel for sequences of various lengths
(``torch.nn.attention.varlen``; Dao, "FlashAttention-2", 2023) then computes what lies within a document and nothing
else. A row of one document takes torch's own causal attention, cuDNN's before the others.

**Compiling.** Each decoder layer is compiled by itself (``torch.compile``), which takes a minute once whatever the
number of layers, fuses what lies between the matrix products, and keeps less for the backward pass. It wants rows of
one length: a packed row is filled up to the longest (``trainers/loop.py``).

Nothing here knows recipes or trainers; ``benchmarks/training_throughput.py`` measures these very functions.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_layers import GradientCheckpointingLayer

DOCUMENTS = "documents"
"""The attention's name in transformers."""
_BOUNDS = 64
"""The list of bounds is filled up to a multiple of this, so that compiled code meets few shapes."""


def use_documents_attention(model: Any) -> None:
    """Let a causal model of transformers keep the documents of packed rows apart by where they begin."""
    AttentionInterface.register(DOCUMENTS, attend)
    AttentionMaskInterface.register(DOCUMENTS, documents_mask)
    model.set_attn_implementation(DOCUMENTS)


def documents_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Any = None,
    attention_mask: Any = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    device: Any = "cpu",
    **others: Any,
) -> Any:
    """Where documents begin, in place of a mask.

    Returns:
        ``None`` for rows of one document each; for one row of several, the bounds as 32-bit integers in one dimension
        (:func:`bounds_of`); a mask as for ``"sdpa"`` where neither describes what may be seen: padded rows, sliding
        windows, several packed rows at once.
    """
    if attention_mask is None and local_size is None and batch_size == 1 and q_length == kv_length > 1:
        if allow_is_causal_skip:
            return None
        later = torch.arange(1, q_length, device=device)
        return bounds_of(~mask_function(0, 0, later, later - 1))
    return sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        mask_function=mask_function,
        attention_mask=attention_mask,
        local_size=local_size,
        allow_is_causal_skip=allow_is_causal_skip,
        device=device,
        **others,
    )


def bounds_of(begins: torch.Tensor) -> torch.Tensor:
    """Bounds of a row's documents: 0, where each further one begins, and the row's length until the list is full.

    Args:
        begins: for every token but the first whether a document begins with it.

    Tokens that fill up a row stand at its end, each at position 0 like a document of its own. They are one document
    here: nothing is learned from them or from a document of one token.
    """
    starts = begins.nonzero().flatten() + 1
    length = begins.numel() + 1
    if starts.numel():
        # The run of beginnings that reaches the row's end: position i of it stands where the count from the end says.
        from_end = torch.arange(starts.numel() - 1, -1, -1, device=starts.device)
        filling = starts == length - 1 - from_end
        starts = starts[~filling | (torch.cat([filling.new_zeros(1), filling[:-1]]) == 0)]
    filled = -(-(starts.numel() + 2) // _BOUNDS) * _BOUNDS
    bounds = torch.full((filled,), length, dtype=torch.int32, device=begins.device)
    bounds[0] = 0
    bounds[1 : 1 + starts.numel()] = starts
    return bounds


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention, each document by itself.

    Args:
        query, key, value: batch, heads, tokens, numbers of a head.
        attention_mask: what :func:`documents_mask` returned.

    Returns:
        Batch, tokens, heads, numbers; and nothing.
    """
    if attention_mask is None or attention_mask.dim() != 1:
        # A learned term on the scores, or a window, is as it was: the mask tells it.
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return plain
    # Tokens first, as the kernel wants them.
    by_document = _varlen if query.is_cuda else _one_by_one
    first, second, third = (each[0].transpose(0, 1) for each in (query, key, value))
    return by_document(first, second, third, attention_mask, scaling).unsqueeze(0), None


def _varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    longest = query.shape[0]  # a constant: the longest document's own length would compile anew for each row
    return varlen_attn(
        query,
        key.contiguous(),
        value.contiguous(),
        bounds,
        bounds,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),
        **_groups(),
    )


@functools.cache
def _groups() -> dict[str, bool]:
    """From torch 2.12 on grouped heads are asked for; 2.11 takes them as they are."""
    from torch.nn.attention.varlen import varlen_attn

    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _one_by_one(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """The same on a processor, which has no such kernel: one attention for each document."""
    made = []
    edges = bounds.unique().tolist()
    groups = query.shape[1] // key.shape[1]
    for first, end in itertools.pairwise(edges):
        part = [each[first:end].transpose(0, 1).unsqueeze(0) for each in (query, key, value)]
        part[1:] = [repeat_kv(each, groups) for each in part[1:]]
        seen = torch.nn.functional.scaled_dot_product_attention(*part, is_causal=True, scale=scaling)
        made.append(seen[0].transpose(0, 1))
    return torch.cat(made)


@contextlib.contextmanager
def cudnn_first() -> Iterator[None]:
    """Causal attention without a mask by cuDNN, which is the fastest kernel for it on an H100; else as torch has it."""
    kernels = [
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ]
    with sdpa_kernel(kernels, set_priority=True):
        yield


def compile_layers(model: Any, backend: str = "inductor") -> int:
    """Compile every decoder layer when it first runs; how many there are.

    The code made for the first serves all, since their weights are inputs of it.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.compile(backend=backend)
    return len(layers)
