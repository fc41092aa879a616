"""A compiled graph, and the blocks of keys and values that it reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch

from inhouse_retrieval import InhouseError

from .graph import KEPT, LOGITS

BLOCK = 32
"""Tokens of a block of keys and values: OpenVINO's own on a CPU."""
_COMPILED = {
    # Products are of 8 bits on both sides; everything else is as exact as the processor computes.
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32",
    "KV_CACHE_PRECISION": "f16",
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": "1",
}


class Blocks:
    """Keys and values of conversations, of at most ``tokens`` tokens together, for all models of an engine.

    What was never written takes no memory.
    """

    def __init__(self, tokens: int) -> None:
        self._written = np.zeros(-(-tokens // BLOCK), bool)
        self._tensors: dict[str, ov.Tensor] = {}

    def of(self, given: Any) -> ov.Tensor:
        """The tensor of a model's input, the same for all models."""
        if given.any_name not in self._tensors:
            shape = [len(self._written), *(each.get_length() for each in list(given.partial_shape)[1:])]
            self._tensors[given.any_name] = ov.Tensor(given.element_type, ov.Shape(shape))
        return self._tensors[given.any_name]

    def wrote(self, blocks: npt.NDArray[np.int32]) -> None:
        self._written[blocks] = True

    def copy(self, start: int, to: int, count: int) -> None:
        """Copy ``count`` blocks from block ``start`` to block ``to``."""
        for tensor in self._tensors.values():
            tensor.data[to : to + count] = tensor.data[start : start + count]
        self._written[to : to + count] = True

    def clear(self) -> None:
        """Give the memory back. Nothing may be read afterwards."""
        self._tensors = {}

    @property
    def nbytes(self) -> int:
        """Of what was written."""
        whole: int = sum(each.byte_size for each in self._tensors.values())
        return whole * int(self._written.sum()) // max(len(self._written), 1)


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of a conversation that are read next.

    Attributes:
        before: tokens of the conversation that were read. first: the block that it begins in.
        kept: after which of ``ids`` there are logits, by their number.
    """

    ids: Sequence[int]
    before: int
    first: int
    kept: Sequence[int]


class Model:
    """One version's weights, ready to be computed with. Belongs to whoever holds the engine's turn.

    Attributes:
        nbytes: of the weights.

    Raises:
        InhouseError: OpenVINO cannot compile the graph.
    """

    def __init__(self, core: ov.Core, graph: ov.Model, blocks: Blocks) -> None:
        self.nbytes = sum(each.get_byte_size() for each in graph.get_ops() if each.get_type_name() == "Constant")
        threads = {"INFERENCE_NUM_THREADS": str(torch.get_num_threads())}
        compiled = core.compile_model(graph, "CPU", _COMPILED | threads)
        self._request = compiled.create_infer_request()
        self._blocks = blocks
        for given in compiled.inputs:
            if "_cache." in given.any_name:
                self._request.set_tensor(given.any_name, blocks.of(given))

    def forward(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """Logits [kept, vocabulary] after the tokens that are kept, piece by piece."""
        lengths = [len(each.ids) for each in pieces]
        ends = [each.before + length for each, length in zip(pieces, lengths, strict=True)]
        begins = np.cumsum([0, *lengths])
        blocks = [
            np.arange(each.first, each.first - (-end // BLOCK), dtype=np.int32)
            for each, end in zip(pieces, ends, strict=True)
        ]
        of_all = np.concatenate(blocks)
        positions = [np.arange(each.before, end) for each, end in zip(pieces, ends, strict=True)]
        given = {
            "input_ids": np.concatenate([np.asarray(each.ids, np.int64) for each in pieces]),
            "position_ids": np.concatenate(positions).astype(np.int64),
            KEPT: np.array(
                [begin + at for each, begin in zip(pieces, begins[:-1], strict=True) for at in each.kept], np.int64
            ),
            "past_lens": np.array([each.before for each in pieces], np.int32),
            "subsequence_begins": begins.astype(np.int32),
            "block_indices": of_all,
            "block_indices_begins": np.cumsum([0, *map(len, blocks)]).astype(np.int32),
            "max_context_len": np.array(max(ends), np.int32),
        }
        try:
            self._request.infer(given, share_inputs=True)
        except RuntimeError as error:
            raise not_computed(error) from error
        self._blocks.wrote(of_all)
        # The tensor is overwritten by the next step.
        return torch.from_numpy(self._request.get_tensor(LOGITS).data.copy())


class PagedConversation:
    """A conversation in the blocks from ``first`` on. What is forgotten is overwritten."""

    can_forget = True

    def __init__(self, model: Model, first: int) -> None:
        self.read: list[int] = []
        self._model = model
        self._first = first

    def forward(self, ids: list[int], keep: int) -> torch.Tensor:
        kept = range(len(ids) - keep, len(ids))
        logits = self._model.forward([Piece(ids, len(self.read), self._first, kept)])
        self.read.extend(ids)
        return logits

    def forget(self, count: int) -> None:
        del self.read[-count:]


def not_computed(error: RuntimeError) -> InhouseError:
    """What is said when OpenVINO fails: shapes that do not fit each other, or no memory."""
    problem = str(error).strip().splitlines()[-1]
    return InhouseError(f"OpenVINO does not compute this model in 8 bits: {problem}", 'Set engine.weights = "full".')
