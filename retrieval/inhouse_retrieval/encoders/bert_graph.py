"""A BERT encoder (Devlin et al., arXiv 1810.04805) as an ONNX graph whose matrix products are of 8-bit integers.

Written down here rather than exported: it takes the weights as they are in ``model.safetensors``, less than half a
second and no torch, and nothing is kept on disk. Operators of the domain ``com.microsoft`` are onnxruntime's own.

The graph reads one text at a time. So nothing is padding, there is no mask, and since the scale of the activations is
that of one text alone, its vector is the same whatever is embedded beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

_Floats = npt.NDArray[np.float32]

_MICROSOFT = "com.microsoft"
_OPSET = 18
_LARGEST_WEIGHT = 63
"""Weights get 7 bits: AVX2 adds pairs of products of 8-bit activations and 8-bit weights in 16 bits, where they
overflow. With 8 bits a vector would depend on the processor, and be only 0.002 nearer (cosine) to the float model's."""
_LEAST_SCALE = 0.2
"""What GELU gives is never below -0.17, so a token's largest value stands for its largest magnitude from here on."""


@dataclass(frozen=True, slots=True)
class BertModel:
    """A model to run.

    Attributes:
        words: float32 [vocabulary, hidden].
        places: float32 [longest text, hidden]; a token's row of ``words`` and its place's of ``places`` are added.
        graph: ``embedded`` float32 [1, tokens, hidden] -> ``vector`` float32 [1, hidden], not normalised.
    """

    words: _Floats
    places: _Floats
    graph: bytes


def bert_model(folder: Path, config: Mapping[str, Any], pooling: str) -> BertModel:
    """The model in ``folder``.

    Args:
        config: its ``config.json``.
        pooling: ``mean`` of the tokens, or the first one (``cls``).

    Raises:
        KeyError: a weight is missing.
    """
    weights = {name.removeprefix("bert."): array for name, array in load_file(folder / "model.safetensors").items()}
    words = weights.pop("embeddings.word_embeddings.weight").astype(np.float32)
    kinds = weights["embeddings.token_type_embeddings.weight"]
    places = (weights["embeddings.position_embeddings.weight"] + kinds[0]).astype(np.float32)
    graph = _Graph(weights, int(config["hidden_size"]), float(config["layer_norm_eps"]))
    hidden = graph.normalised("embedded", "embeddings.LayerNorm")
    for layer in range(int(config["num_hidden_layers"])):
        hidden = graph.layer(f"encoder.layer.{layer}.", hidden, int(config["num_attention_heads"]))
    if pooling == "mean":
        graph.node("ReduceMean", [hidden, "tokens"], "vector", keepdims=0)
    else:
        graph.node("Gather", [hidden, graph.constant("first", np.array(0))], "vector", axis=1)
    return BertModel(words, places, graph.serialized())


class _Graph:
    """Nodes and constants while they are put together. Values go by name."""

    def __init__(self, weights: dict[str, _Floats], hidden_size: int, epsilon: float) -> None:
        self._weights = weights
        self._hidden_size = hidden_size
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self.constant("tokens", np.array([1]))
        self.constant("features", np.array([-1]))
        self.constant("epsilon", np.array(epsilon, np.float32))
        self.constant("part", np.array(1 / hidden_size, np.float32))
        self.constant("least", np.array(_LEAST_SCALE, np.float32))

    def constant(self, name: str, array: Any) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str | list[str], domain: str = "", **said: Any) -> str:
        outputs = [output] if isinstance(output, str) else output
        self._nodes.append(helper.make_node(operator, inputs, outputs, domain=domain, **said))
        return outputs[0]

    def weight(self, name: str) -> str:
        return self.constant(name, self._weights[name].astype(np.float32))

    def layer(self, name: str, hidden: str, heads: int) -> str:
        """Attention, then the two dense layers, each added to what went in and normalised."""
        attention = f"{name}attention."
        parts = [f"{attention}self.{part}" for part in ("query", "key", "value")]
        together = f"{attention}self"
        for kind in ("weight", "bias"):
            self._weights[f"{together}.{kind}"] = np.concatenate([self._weights[f"{part}.{kind}"] for part in parts])
        self.node("Split", [self.dense(hidden, together)], [f"{part}.out" for part in parts], axis=-1, num_outputs=3)
        seen = self.node(
            "MultiHeadAttention", [f"{part}.out" for part in parts], f"{attention}seen", _MICROSOFT, num_heads=heads
        )
        self.dense(seen, f"{attention}output.dense")
        self.node("Add", [f"{attention}output.dense.out", hidden], f"{attention}sum")
        hidden = self.normalised(f"{attention}sum", f"{attention}output.LayerNorm")
        self.dense(hidden, f"{name}intermediate.dense")
        active = self.node("Gelu", [f"{name}intermediate.dense.out"], f"{name}active", _MICROSOFT)
        self.dense_by_token(active, f"{name}output.dense")
        self.node("Add", [f"{name}output.dense.out", hidden], f"{name}sum")
        return self.normalised(f"{name}sum", f"{name}output.LayerNorm")

    def dense(self, value: str, name: str) -> str:
        """``value`` times the weights, plus the bias, with one scale for all of the text's tokens."""
        bias = self.constant(f"{name}.bias", self._weights[f"{name}.bias"].astype(np.float32))
        return self._product(value, name, bias, f"{name}.out")

    def dense_by_token(self, value: str, name: str) -> str:
        """The same with a scale for each token, for what GELU gives.

        It holds single tokens far larger than all others; one scale for them all would round the others away.
        """
        self.node("ReduceMax", [value, "features"], f"{name}.largest", keepdims=1)
        scale = self.node("Max", [f"{name}.largest", "least"], f"{name}.scale")
        self.node("Reciprocal", [scale], f"{name}.inverse")
        self.node("Mul", [value, f"{name}.inverse"], f"{name}.scaled")
        self._product(f"{name}.scaled", name, "", f"{name}.product")
        self.node("Mul", [f"{name}.product", scale], f"{name}.unscaled")
        return self.node("Add", [f"{name}.unscaled", self.weight(f"{name}.bias")], f"{name}.out")

    def _product(self, value: str, name: str, bias: str, output: str) -> str:
        """onnxruntime's product of activations, rounded to 8 bits as they come, and weights of a scale per column."""
        weight = self._weights[f"{name}.weight"].T
        scales = np.maximum(np.abs(weight).max(axis=0), 1e-8) / _LARGEST_WEIGHT
        quantized = [
            self.constant(f"{name}.weight", np.rint(weight / scales).astype(np.int8)),
            self.constant(f"{name}.scales", scales.astype(np.float32)),
            self.constant(f"{name}.zeros", np.zeros(len(scales), np.int8)),
        ]
        return self.node("DynamicQuantizeMatMul", [value, *quantized, bias], output, _MICROSOFT)

    def normalised(self, value: str, name: str) -> str:
        """Layer normalisation in steps: onnxruntime's own operator for it took a quarter of the whole time."""
        self.node("ReduceMean", [value, "features"], f"{name}.mean", keepdims=1)
        self.node("Sub", [value, f"{name}.mean"], f"{name}.centred")
        self.node("ReduceSumSquare", [f"{name}.centred", "features"], f"{name}.squares", keepdims=1)
        self.node("Mul", [f"{name}.squares", "part"], f"{name}.variance")
        self.node("Add", [f"{name}.variance", "epsilon"], f"{name}.above_zero")
        self.node("Sqrt", [f"{name}.above_zero"], f"{name}.deviation")
        self.node("Reciprocal", [f"{name}.deviation"], f"{name}.inverse")
        self.node("Mul", [f"{name}.centred", f"{name}.inverse"], f"{name}.unit")
        self.node("Mul", [f"{name}.unit", self.weight(f"{name}.weight")], f"{name}.scaled")
        return self.node("Add", [f"{name}.scaled", self.weight(f"{name}.bias")], f"{name}.out")

    def serialized(self) -> bytes:
        size = self._hidden_size
        taken = helper.make_tensor_value_info("embedded", TensorProto.FLOAT, [1, "length", size])
        given = helper.make_tensor_value_info("vector", TensorProto.FLOAT, [1, size])
        graph = helper.make_graph(self._nodes, "bert", [taken], [given], self._constants)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
        written: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
        return written
