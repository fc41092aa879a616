"""The engine of a machine without a GPU: weights in 8 bits, computed by OpenVINO, one answer at a time.

Each version of an adapter, and the base without one, is a model of its own: beside the weights an adapter would slow
each token. Changing between them costs nothing once they are there; making one takes seconds.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Lock
from typing import Any

import numpy as np
import openvino as ov
import torch
from transformers import GenerationConfig

from inhouse_retrieval import InhouseError

from ..base_model import BaseModel, unreadable
from ..base_tensors import BaseTensors, config_of, hollow_model
from ..devices import HeldMemory, give_back_memory, held_by_this_process
from ..engine import BASE, RowScore, ScoredRow
from ..in_process_engine import PREFILL_BLOCK, Conversation, InProcessEngine, generation_ends
from ..prompts import IGNORED
from ..weights import Weights
from .graph import KEPT, LOGITS, build, why_not
from .tensors import weights_with

log = logging.getLogger(__name__)

MODELS_KEPT = 2
"""Versions in memory at least: the current one, and the base or the version before."""
KEPT_BYTES = 2 << 30
"""More of them are kept up to this."""
_COMPILED = {
    # Products are of 8 bits on both sides; everything else is as exact as the processor computes.
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32",
    "KV_CACHE_PRECISION": "f16",
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": "1",
}


class EightBitEngine(InProcessEngine):
    """Implements :class:`~inhouse_training.engine.Engine` with OpenVINO.

    Args:
        base: a resolved base model.
        adapters: see :class:`~inhouse_training.in_process_engine.InProcessEngine`.

    Raises:
        InhouseError: the base model cannot be read, or is of a family that is not built here.
    """

    def __init__(self, base: BaseModel, adapters: Callable[[str], Path]) -> None:
        super().__init__(base, adapters)
        self._config = config_of(base)
        if reason := why_not(self._config):
            raise InhouseError(f"{base.name} is not answered in 8 bits. {reason}", 'Set engine.weights = "full".')
        try:
            rotary = type(hollow_model(self._config).model.rotary_emb)(self._config)
            if (base.path / "generation_config.json").exists():
                self._ends |= generation_ends(GenerationConfig.from_pretrained(base.path))
        except (OSError, ValueError, KeyError) as error:
            raise unreadable(base, error) from None
        self._rope = (rotary.inv_freq.float(), float(rotary.attention_scaling))
        self._ends |= generation_ends(self._config)
        self._tensors = BaseTensors(base)
        self._core = ov.Core()
        self._models: OrderedDict[str, _Model] = OrderedDict()
        self._blocks = _Blocks(self.context_tokens)
        self._ahead: dict[str, _Model] = {}  # one at most, made before it is asked
        self._building = Lock()
        self._active: _Model | None = None

    @property
    def weights(self) -> Weights:
        return "8bit"

    @property
    def context_tokens(self) -> int:
        return int(self._config.max_position_embeddings)

    @property
    def loaded_adapters(self) -> tuple[str, ...]:
        return tuple(each for each in (*self._models.copy(), *self._ahead) if each != BASE)

    def held_memory(self) -> HeldMemory:
        """What this process holds of the main memory; waits for the answer under way."""
        with self._turn.hold(Event()):
            models = (*self._models.values(), *self._ahead.values())
            return held_by_this_process(sum(each.nbytes for each in models) + self._blocks.nbytes)

    def close(self) -> None:
        with self._turn.hold(Event()):
            self._models.clear()
            self._ahead = {}
            self._blocks = _Blocks(0)
            self._active = self._kept = None
        give_back_memory()

    def score(self, rows: Sequence[ScoredRow], adapter: str = BASE) -> list[RowScore]:
        """Negative log-likelihood of labelled tokens; see the protocol. Answers may be given between two rows."""
        self._check_lengths(rows)
        scores = []
        for row in rows:
            with self._turn.hold(Event()):
                self._activate(adapter)
                scores.append(_score(self._new_conversation(), row))
        return scores

    @property
    def _device(self) -> torch.device:
        return torch.device("cpu")

    def _activate(self, adapter: str) -> None:
        self._active = None  # until it is there
        if adapter not in self._models:
            self._make_room()
            with self._building:
                self._models[adapter] = self._ahead.pop(adapter) if adapter in self._ahead else self._load(adapter)
        self._models.move_to_end(adapter)
        self._active = self._models[adapter]

    def prepare(self, adapter: str) -> None:
        """See the base class. Answers with other versions are made meanwhile."""
        with self._building:
            if adapter not in self._models and adapter not in self._ahead:
                self._ahead = {adapter: self._load(adapter)}  # whoever was made ahead before and not asked, makes room

    def _make_room(self) -> None:
        """For one more model, which is as large as those that are there."""
        sizes = [each.nbytes for each in self._models.values()]
        while len(sizes) >= MODELS_KEPT and sum(sizes) + max(sizes) > KEPT_BYTES:
            gone, _ = self._models.popitem(last=False)
            sizes.pop(0)
            if self._kept is not None and self._kept[0] == gone:
                self._kept = None

    def _load(self, adapter: str) -> _Model:
        started = time.perf_counter()
        folder = None if adapter == BASE else self._adapters(adapter)
        try:
            with weights_with(self._base, self._tensors, adapter, folder) as weight_of, torch.inference_mode():
                graph = build(self._config, weight_of, self._tensors.names, *self._rope)
            made = _Model(self._core, graph, self._blocks)
            del graph
        except RuntimeError as error:
            raise _not_computed(error) from error
        give_back_memory()  # of the weights in full, which is several times what is kept
        log.info("%s in 8 bits made in %.1f s", adapter, time.perf_counter() - started)
        return made

    def _new_conversation(self) -> Conversation:
        # What the blocks hold of another conversation is overwritten.
        self._kept = None
        assert self._active is not None
        return _PagedConversation(self._active)


_BLOCK = 32
"""Tokens of a block of keys and values: OpenVINO's own on a CPU."""


class _Blocks:
    """Keys and values of one conversation of at most ``tokens`` tokens, for whichever model of an engine has its turn.

    Attributes:
        written: tokens of the longest conversation so far. What was never written takes no memory.
    """

    def __init__(self, tokens: int) -> None:
        self.written = 0
        self._count = -(-tokens // _BLOCK)
        self._tensors: dict[str, ov.Tensor] = {}

    def of(self, given: Any) -> ov.Tensor:
        """The tensor of a model's input, the same for all models."""
        if given.any_name not in self._tensors:
            shape = [self._count, *(each.get_length() for each in list(given.partial_shape)[1:])]
            self._tensors[given.any_name] = ov.Tensor(given.element_type, ov.Shape(shape))
        return self._tensors[given.any_name]

    @property
    def nbytes(self) -> int:
        """Of what was written."""
        whole = sum(each.byte_size for each in self._tensors.values())
        return whole * self.written // (self._count * _BLOCK) if whole else 0


class _Model:
    """A compiled graph, and the blocks that it reads and writes."""

    def __init__(self, core: ov.Core, graph: ov.Model, blocks: _Blocks) -> None:
        threads = {"INFERENCE_NUM_THREADS": str(torch.get_num_threads())}
        self.nbytes = sum(each.get_byte_size() for each in graph.get_ops() if each.get_type_name() == "Constant")
        compiled = core.compile_model(graph, "CPU", _COMPILED | threads)
        self._request = compiled.create_infer_request()
        self._blocks = blocks
        for given in compiled.inputs:
            if "_cache." in given.any_name:
                self._request.set_tensor(given.any_name, blocks.of(given))

    def forward(self, ids: Sequence[int], before: int, kept: Sequence[int]) -> torch.Tensor:
        """Logits [kept, vocabulary] after the tokens of ``ids`` that ``kept`` counts; ``before`` them so many were
        read."""
        end = before + len(ids)
        blocks = -(-end // _BLOCK)
        given = {
            "input_ids": np.array(ids, np.int64),
            "position_ids": np.arange(before, end, dtype=np.int64),
            KEPT: np.array(kept, np.int64),
            "past_lens": np.array([before], np.int32),
            "subsequence_begins": np.array([0, len(ids)], np.int32),
            "block_indices": np.arange(blocks, dtype=np.int32),
            "block_indices_begins": np.array([0, blocks], np.int32),
            "max_context_len": np.array(end, np.int32),
        }
        try:
            self._request.infer(given, share_inputs=True)
        except RuntimeError as error:
            raise _not_computed(error) from error
        self._blocks.written = max(self._blocks.written, end)
        # The tensor is overwritten by the next step.
        return torch.from_numpy(self._request.get_tensor(LOGITS).data.copy())


class _PagedConversation:
    """A conversation that begins in the first block. What is forgotten is overwritten."""

    can_forget = True

    def __init__(self, model: _Model) -> None:
        self.read: list[int] = []
        self._model = model

    def forward(self, ids: list[int], keep: int) -> torch.Tensor:
        logits = self._model.forward(ids, len(self.read), range(len(ids) - keep, len(ids)))
        self.read.extend(ids)
        return logits

    def forget(self, count: int) -> None:
        del self.read[-count:]


def _score(conversation: Conversation, row: ScoredRow) -> RowScore:
    nats, count = 0.0, 0
    ids, labels = list(row.input_ids), [*row.labels[1:], IGNORED]  # position i predicts token i + 1
    while len(conversation.read) < len(ids):
        at = len(conversation.read)
        block, wanted = ids[at : at + PREFILL_BLOCK], torch.tensor(labels[at : at + PREFILL_BLOCK])
        logits = conversation.forward(block, len(block))
        losses = torch.nn.functional.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="none")
        nats += float(losses.double().sum())
        count += int((wanted != IGNORED).sum())
    return RowScore(nats, count)


def _not_computed(error: RuntimeError) -> InhouseError:
    """What is said when OpenVINO fails: shapes that do not fit each other, or no memory."""
    problem = str(error).strip().splitlines()[-1]
    return InhouseError(f"OpenVINO does not compute this model in 8 bits: {problem}", 'Set engine.weights = "full".')
