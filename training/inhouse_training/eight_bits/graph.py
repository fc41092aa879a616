"""A decoder as a graph of OpenVINO's operators, its weights in 8 bits, its keys and values in blocks.

The families of models differ little (:data:`FAMILIES`), so one builder reads their weights from safetensors, one matrix
at a time, adds an adapter's and rounds the sum once. Each 32 weights of a row share a factor, as in llama.cpp's Q8_0,
and OpenVINO rounds what they are multiplied by in the same way while it computes. OpenVINO's own
``paged_attention_transformation`` puts blocks of keys and values in the place of a growing cache, so what was read can
be forgotten by not counting it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as op
from openvino._offline_transformations import paged_attention_transformation

from ..base_tensors import TensorOf

GROUP = 32
"""Weights that share a factor."""
_ROWS = 4096
"""Rows of a matrix that are rounded at once."""
LOGITS = "logits"
"""Output, float32 [kept, vocabulary]."""
TABLE = "model.embed_tokens.weight"
"""Name of the embeddings."""
KEPT = "keep"
"""Input: which of the tokens given are followed by logits, int64."""
FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""``model_type`` of those that differ only in biases, norms of queries and keys, and tied tables."""
_ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})
"""Whose frequencies do not depend on the length of the text."""


def why_not(config: Any) -> str | None:
    """Why a model is not built here, in a sentence; ``None`` where it is. Reads its configuration only."""
    if config.model_type not in FAMILIES:
        return f"It is of the family {config.model_type}."
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windows = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    if kinds != {"full_attention"} or windows:
        return "Its layers attend to a sliding window."
    if config.hidden_act != "silu":
        return f"Its activation is {config.hidden_act}."
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in _ROPE_TYPES:
        return f"Its positions are of the kind {rope}."
    if getattr(config, "quantization_config", None):
        return "Its weights are quantised already."
    return None


def build(config: Any, weight_of: TensorOf, names: frozenset[str], frequencies: torch.Tensor, scale: float) -> ov.Model:
    """The graph of a model, ready to be compiled for a CPU.

    Args:
        weight_of: in float32, with whatever an adapter adds.
        names: of all tensors that there are.
        frequencies: of the rotary embedding, float32 [half the width of a head].
        scale: by which its sines and cosines are multiplied.

    Returns:
        Inputs ``input_ids``, ``position_ids`` and :data:`KEPT`, and those of OpenVINO's paged attention; one output,
        :data:`LOGITS`.
    """
    builder = _Builder(config, weight_of, names)
    model = builder.model(frequencies, scale)
    paged_attention_transformation(model)
    blocks = sum("_cache." in each.any_name for each in model.inputs)
    if blocks != 2 * config.num_hidden_layers:
        raise RuntimeError(f"{blocks} of {2 * config.num_hidden_layers} caches were paged by OpenVINO {ov.__version__}")
    return model


class _Builder:
    """One graph. Hidden states are float32 [1, tokens, width] until attention is paged, [tokens, 1, width] then."""

    def __init__(self, config: Any, weight_of: TensorOf, names: frozenset[str]) -> None:
        self._config = config
        self._weight_of = weight_of
        self._names = names
        self._heads: int = config.num_attention_heads
        self._groups: int = getattr(config, "num_key_value_heads", None) or self._heads
        self._width: int = getattr(config, "head_dim", None) or config.hidden_size // self._heads
        self._sinks: list[Any] = []
        # The transformation takes both away, and looks for both: it is causal by itself.
        self._mask = _number(torch.zeros(1, 1, 1, 1))
        self._beam = op.parameter([-1], np.int32, name="beam_idx")
        self._beam.output(0).tensor.set_names({"beam_idx"})

    def model(self, frequencies: torch.Tensor, scale: float) -> ov.Model:
        ids, positions = _input("input_ids", [-1, -1]), _input("position_ids", [-1, -1])
        kept = _input(KEPT, [-1])
        table = self._in_8_bits(self._weight_of(TABLE))
        hidden = op.gather(table, op.convert(ids, "i32"), _whole(0))
        turned = self._sines(positions, frequencies, scale)
        for layer in range(self._config.num_hidden_layers):
            name = f"model.layers.{layer}"
            hidden = op.add(hidden, self._attention(self._norm(hidden, f"{name}.input_layernorm"), name, turned))
            hidden = op.add(hidden, self._products(self._norm(hidden, f"{name}.post_attention_layernorm"), name))
        hidden = self._norm(hidden, "model.norm")
        hidden = op.gather(op.reshape(hidden, _whole(-1, self._config.hidden_size), False), kept, _whole(0))
        if "lm_head.weight" in self._names and not self._config.tie_word_embeddings:
            table = self._in_8_bits(self._weight_of("lm_head.weight"))
        logits = op.result(op.matmul(hidden, table, False, True))
        logits.output(0).tensor.set_names({LOGITS})
        return ov.Model([logits], self._sinks, [ids, positions, self._beam, kept])

    def _sines(self, positions: Any, frequencies: torch.Tensor, scale: float) -> tuple[Any, Any]:
        """Cosines and sines of each position, twice beside each other as halves of a head are turned."""
        angles = op.multiply(
            op.convert(op.unsqueeze(positions, _whole(2)), "f32"), _number(frequencies.reshape(1, 1, -1))
        )
        both = op.concat([angles, angles], 2)
        cosines, sines = (op.multiply(each, _number(scale)) for each in (op.cos(both), op.sin(both)))
        return op.unsqueeze(cosines, _whole(1)), op.unsqueeze(sines, _whole(1))

    def _attention(self, hidden: Any, layer: str, turned: tuple[Any, Any]) -> Any:
        at = f"{layer}.self_attn"
        query, key, value = (
            self._by_head(self._linear(hidden, f"{at}.{each}_proj"), heads)
            for each, heads in (("q", self._heads), ("k", self._groups), ("v", self._groups))
        )
        if f"{at}.q_norm.weight" in self._names:
            query, key = self._norm(query, f"{at}.q_norm"), self._norm(key, f"{at}.k_norm")
        query, key = self._turn(query, turned), self._turn(key, turned)
        keys, values = (self._remembered(each, f"{at}.{name}") for each, name in ((key, "key"), (value, "value")))
        attended = op.scaled_dot_product_attention(query, keys, values, self._mask)
        rows = op.reshape(op.transpose(attended, _whole(0, 2, 1, 3)), _whole(0, 0, self._heads * self._width), True)
        return self._linear(rows, f"{at}.o_proj")

    def _products(self, hidden: Any, layer: str) -> Any:
        gate, up = (self._linear(hidden, f"{layer}.mlp.{each}_proj") for each in ("gate", "up"))
        return self._linear(op.multiply(op.swish(gate), up), f"{layer}.mlp.down_proj")

    def _by_head(self, rows: Any, heads: int) -> Any:
        return op.transpose(op.reshape(rows, _whole(0, 0, heads, self._width), True), _whole(0, 2, 1, 3))

    def _turn(self, rows: Any, turned: tuple[Any, Any]) -> Any:
        """Rotary embedding (Su et al. 2021, arXiv:2104.09864), a head's halves as pairs."""
        half = self._width // 2
        first = op.slice(rows, _whole(0), _whole(half), _whole(1), _whole(3))
        second = op.slice(rows, _whole(half), _whole(self._width), _whole(1), _whole(3))
        crossed = op.concat([op.multiply(second, _number(-1.0)), first], 3)
        return op.add(op.multiply(rows, turned[0]), op.multiply(crossed, turned[1]))

    def _remembered(self, rows: Any, name: str) -> Any:
        """Those of before and these, repeated for the heads that share them: what the transformation looks for."""
        shape = ov.PartialShape([-1, self._groups, -1, self._width])
        nothing = op.constant(np.zeros((1, self._groups, 0, self._width), np.float32))
        before = op.gather(
            ov.opset6.read_value(nothing, name, ov.Type.f32, shape), self._beam, op.constant(np.int64(0))
        )
        both = op.concat([before, rows], 2)
        self._sinks.append(ov.opset6.assign(both, name))
        if self._heads == self._groups:
            return both
        repeats = _whole(1, 1, self._heads // self._groups, 1, 1)
        repeated = op.broadcast(op.unsqueeze(both, _whole(2)), repeats, broadcast_spec="BIDIRECTIONAL")
        return op.reshape(repeated, _whole(0, self._heads, -1, self._width), True)

    def _norm(self, rows: Any, name: str) -> Any:
        squares = op.reduce_mean(op.power(rows, _number(2.0)), _whole(-1), True)
        root = op.sqrt(op.add(squares, _number(self._config.rms_norm_eps)))
        return op.multiply(op.multiply(rows, op.divide(_number(1.0), root)), _number(self._weight_of(f"{name}.weight")))

    def _linear(self, rows: Any, name: str) -> Any:
        made = op.matmul(rows, self._in_8_bits(self._weight_of(f"{name}.weight")), False, True)
        bias = f"{name}.bias"
        return op.add(made, _number(self._weight_of(bias))) if bias in self._names else made

    def _in_8_bits(self, weight: torch.Tensor) -> Any:
        """A matrix as integers of 8 bits and a factor for each :data:`GROUP` of a row, or for the row if that does not
        divide it. OpenVINO multiplies by it as it is."""
        rows, columns = weight.shape
        group = GROUP if columns % GROUP == 0 else columns
        whole, factors = rounded(weight, group)
        scaled = op.multiply(op.convert(op.constant(whole.numpy()), "f16"), op.constant(factors.numpy()))
        return op.convert(op.reshape(scaled, _whole(rows, columns), False), "f32")


def rounded(weight: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A float32 matrix as integers and factors.

    Returns:
        int8 [rows, groups, group] between -127 and 127, and float16 [rows, groups, 1].
    """
    groups = weight.view(weight.shape[0], -1, group)
    whole = torch.empty(groups.shape, dtype=torch.int8)
    factors = torch.empty(*groups.shape[:2], 1, dtype=torch.float16)
    for first in range(0, len(groups), _ROWS):  # a table of embeddings takes gigabytes, and would several times over
        some = groups[first : first + _ROWS]
        of_some = (some.abs().amax(dim=2, keepdim=True) / 127).clamp(min=2.0**-24).half()
        factors[first : first + _ROWS] = of_some
        whole[first : first + _ROWS] = (some / of_some.float()).round_().clamp_(-127, 127)
    return whole, factors


def _input(name: str, shape: list[int]) -> Any:
    made = op.parameter(shape, np.int64, name=name)
    made.output(0).tensor.set_names({name})
    return made


def _whole(*values: int) -> Any:
    return op.constant(np.array(values if len(values) > 1 else values[0], np.int64).reshape(-1))


def _number(value: float | torch.Tensor) -> Any:
    return op.constant(value.numpy() if isinstance(value, torch.Tensor) else np.float32(value))
