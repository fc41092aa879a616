"""What a CPU computes faster than the model's own layers: products of few rows, and attention in float32 to a cache or
in bfloat16 to many tokens.

All compute what the model's layers do, in another order of sums, or with scores rounded as in transformers' own eager
attention.
"""

from __future__ import annotations

from . import lean as lean  # first: it decides what transformers takes along

# isort: split
from typing import Any

import torch
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import AttentionInterface

from .base_model import cpu_flags

CACHED = "inhouse_cached"
"""Name of this attention among those of transformers. No mask is registered for it, so none is made."""
_PIECE = 256
"""Outputs per product of few rows. Larger matrices are copied into another order first, which takes longer than
multiplying them by a few rows; smaller pieces are packed within the processor's cache."""
_FEW = 4
_MANY = 64
_MOST_PACKED = 1 << 30
"""Bytes of weights that are held a second time, in oneDNN's order. A larger model stays as it is."""
_NORMS = frozenset({"LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm"})
"""Classes of transformers that compute what torch's own RMSNorm does, in eight calls in place of one."""
_QUERIES = 64
"""Queries whose scores exist at once in :func:`_in_blocks`: with half as many or four times as many it takes longer."""


class WideLinear(torch.nn.Linear):  # type: ignore[misc]  # torch is untyped here
    """A linear layer with more outputs than inputs, its weight in memory by input.

    One row is multiplied by it faster (seen with MKL on an AMD EPYC). Its shape is as ever, [outputs, inputs].
    """

    @classmethod
    def of(cls, layer: torch.nn.Linear) -> WideLinear:
        made = cls(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        weight = layer.weight.detach().t().contiguous().t()
        made.weight = torch.nn.Parameter(weight, requires_grad=False)
        if layer.bias is not None:
            made.bias = torch.nn.Parameter(layer.bias.detach(), requires_grad=False)
        return made

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rows = input.numel() // self.in_features
        if not _FEW <= rows < _MANY or self.out_features % _PIECE or not self.weight.t().is_contiguous():
            return linear(input, self.weight, self.bias)
        pieces = self.weight.t().view(self.in_features, -1, _PIECE).transpose(0, 1)
        given = input.reshape(rows, self.in_features).expand(len(pieces), -1, -1)
        made = torch.bmm(given, pieces).transpose(0, 1).reshape(*input.shape[:-1], self.out_features)
        return made if self.bias is None else made + self.bias


class PackedLinear(torch.nn.Linear):  # type: ignore[misc]  # torch is untyped here
    """A linear layer whose weight is held once more in oneDNN's order, for products of few rows.

    torch brings the weight of a plain layer into that order at each call, which for a row of bfloat16 takes about as
    long as multiplying by it, and for nine rows of float32, too (seen on an AMD EPYC and an Intel Xeon; ``python
    benchmarks/packed_products.py``). Many rows, up to three of float32, and whatever needs a gradient take the plain
    weight, which a wide layer in float32 has by input as a :class:`WideLinear`. The calls are those that torch's own
    compiler makes for a frozen layer.
    """

    _packed: torch.Tensor | None = None
    _fewest: int

    @classmethod
    def of(cls, layer: torch.nn.Linear) -> PackedLinear:
        made = cls(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        by_input = layer.weight.dtype == torch.float32 and _is_wide(layer)
        made.weight = WideLinear.of(layer).weight if by_input else layer.weight
        made.bias = layer.bias
        made._fewest = _FEW if layer.weight.dtype == torch.float32 else 1
        made.pack()
        return made

    def pack(self) -> None:
        """Take the weight anew: to be called whenever it was changed."""
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach().contiguous(), None)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rows = input.numel() // self.in_features
        if not self._fewest <= rows < _MANY or torch.is_grad_enabled() or input.dtype != self.weight.dtype:
            return linear(input, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(input, self._packed, self.bias, "none", [], "")


def is_plain_linear(layer: Any) -> bool:
    """Whether a layer multiplies by its weight and does nothing else, in whatever way of this module."""
    return type(layer) in (torch.nn.Linear, WideLinear, PackedLinear)


def exchange_layers(model: Any) -> None:
    """Put a :class:`PackedLinear` in the place of each layer of a model, where it is faster and there is room; else, in
    float32, a :class:`WideLinear` in the place of each wide one. In float32 torch's own norms, too. Gradients are
    off."""
    packed = _can_pack(model)
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer).__name__ in _NORMS and model.dtype == torch.float32:
                setattr(parent, name, _norm_of(layer))
            if type(layer) is not torch.nn.Linear:
                continue
            if packed:
                setattr(parent, name, PackedLinear.of(layer))
            elif model.dtype == torch.float32 and _is_wide(layer):
                setattr(parent, name, WideLinear.of(layer))


def _norm_of(layer: Any) -> torch.nn.RMSNorm:
    """The same norm in one call: in float32 bit for bit what the layer gives, in half of the time for one row."""
    made = torch.nn.RMSNorm(layer.weight.shape, eps=layer.variance_epsilon, device="meta")
    made.weight = layer.weight
    return made


def _is_wide(layer: torch.nn.Linear) -> bool:
    return bool(layer.out_features > layer.in_features)


def _can_pack(model: Any) -> bool:
    known = all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    size = sum(each.weight.nbytes for each in model.modules() if type(each) is torch.nn.Linear)
    multiplied = torch.backends.mkldnn.is_available()
    if model.dtype != torch.float32:
        multiplied = model.dtype == torch.bfloat16 and bool({"avx512_bf16", "amx_bf16"} & cpu_flags())
    return known and multiplied and size <= _MOST_PACKED


def cached_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of the last tokens of a conversation to all of it, as transformers calls it.

    What came before is seen by every query, so it needs no mask; heads that share keys are laid out as rows of one
    head, so keys are not repeated; both parts are joined by the logarithms of their sums (FlashAttention's own way of
    joining blocks, Dao et al. 2022, https://arxiv.org/abs/2205.14135).

    Args:
        query: [conversations, heads, new tokens, width]. key, value: [conversations, key-value heads, all tokens,
            width]. There is one conversation, or several that are padded on the right, before which nothing came.

    Returns:
        [conversations, new tokens, heads, width], and no weights.
    """
    _, heads, new, width = query.shape
    groups, tokens = key.shape[1:3]
    if new >= _QUERIES and query.dtype == torch.bfloat16 and _blocks_are_faster():
        return _in_blocks(query, key, value, scaling), None
    if new == tokens:
        attended = scaled_dot_product_attention(
            query, key, value, is_causal=new > 1, scale=scaling, enable_gqa=heads != groups
        )
        return attended.transpose(1, 2), None
    by_group = (1, groups, heads // groups * new, width)
    if new == 1:
        attended = scaled_dot_product_attention(query.reshape(by_group), key, value, scale=scaling)
        return attended.reshape(1, 1, heads, width), None
    past = tokens - new
    before, before_sum = _attend(query.reshape(by_group), key[:, :, :past], value[:, :, :past], False, scaling)
    repeated = [each[:, :, past:].repeat_interleave(heads // groups, dim=1) for each in (key, value)]
    own, own_sum = _attend(query, repeated[0], repeated[1], True, scaling)
    share = torch.sigmoid(own_sum - before_sum.reshape(1, heads, new)).unsqueeze(-1).to(own.dtype)
    return torch.lerp(before.reshape(query.shape), own, share).transpose(1, 2), None


def _blocks_are_faster() -> bool:
    """Whether this processor multiplies bfloat16, but not by AMX.

    Seen on an AMD EPYC: there torch's own attention takes as long in bfloat16 as in float32, while plain products are
    several times faster. With AMX it was not measured, so torch's own is kept.
    """
    return "avx512_bf16" in cpu_flags() and "amx_bf16" not in cpu_flags()


def _in_blocks(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None) -> torch.Tensor:
    """The same in bfloat16, some queries at a time: none is multiplied by a block of keys that it may not see.

    Scores are rounded to bfloat16 before softmax, which sums in float32, as in transformers' eager attention.

    Returns:
        [conversations, new tokens, heads, width].
    """
    count, heads, new, width = query.shape
    groups, tokens = key.shape[1:3]
    past = tokens - new
    made = query.new_empty(count, new, groups, heads // groups, width)
    keys = key.transpose(-1, -2)
    asked = (query * (scaling if scaling is not None else width**-0.5)).view(count, groups, -1, new, width)
    later = torch.ones(_QUERIES, _QUERIES, dtype=torch.bool).triu(1)
    for first in range(0, new, _QUERIES):
        end = min(new, first + _QUERIES)
        rows = asked[:, :, :, first:end].reshape(count, groups, -1, width)
        scores = torch.matmul(rows, keys[..., : past + end])
        by_head = scores.view(count, groups, -1, end - first, past + end)
        by_head[..., past + first :].masked_fill_(later[: end - first, : end - first], float("-inf"))
        attended = torch.matmul(torch.softmax(scores, -1), value[:, :, : past + end])
        made[:, first:end] = attended.view(count, groups, -1, end - first, width).permute(0, 3, 1, 2, 4)
    return made.view(count, new, heads, width)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool, scaling: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """What is attended to, and the logarithm of the sum of each query's weights."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    attended, sums = flash(query, key, value, 0.0, causal, scale=scaling)
    return attended, sums


AttentionInterface.register(CACHED, cached_attention)
