"""The engine of a machine without a GPU: weights in 8 bits, computed by OpenVINO, answers made together.

Each version of an adapter, and the base without one, is a model of its own: beside the weights an adapter would slow
each token. Changing between them costs nothing once they are there; making one takes seconds. Answers of one version
are made in the same forward pass, those of several versions in passes one after the other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

import openvino as ov
import torch
from transformers import GenerationConfig

from inhouse_retrieval import InhouseError

from ..base_model import BaseModel, unreadable
from ..base_tensors import BaseTensors, config_of, hollow_model
from ..batching.pool import Places
from ..batching.scheduler import Scheduler
from ..batching.together import TogetherEngine
from ..devices import HeldMemory, give_back_memory, held_by_this_process
from ..engine import BASE, RowScore, ScoredRow
from ..in_process_engine import PREFILL_BLOCK, Conversation, generation_ends
from ..prompts import IGNORED
from ..weights import Weights
from .decoder import PagedDecoder
from .graph import build, why_not
from .model import BLOCK, Blocks, Model, PagedConversation, not_computed
from .tensors import weights_with
from .versions import ModelsInMemory

log = logging.getLogger(__name__)

STREAMS = 8
"""Answers under way at once; further requests wait."""
COPIED_AT_ONCE = 32
"""Tokens that all answers under way may copy in one step."""
ROOM = 4096
"""Tokens of the pool for each answer under way. A longer one takes the room of several."""
CONVERSATIONS_KEPT = 8
"""Ended conversations whose keys and values stay until their room is needed."""


class EightBitEngine(TogetherEngine):
    """Implements :class:`~inhouse_training.engine.Engine` with OpenVINO.

    Args:
        base: a resolved base model.
        adapters: see :class:`~inhouse_training.in_process_engine.InProcessEngine`.
        streams: answers under way at most.

    Raises:
        InhouseError: the base model cannot be read, or is of a family that is not built here.
    """

    def __init__(self, base: BaseModel, adapters: Callable[[str], Path], *, streams: int = STREAMS) -> None:
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
        pool = -(-max(self.context_tokens, streams * min(self.context_tokens, ROOM)) // BLOCK) * BLOCK
        self._aside = pool // BLOCK  # the first block of the conversation that is none of the scheduler's
        self._blocks = Blocks(pool + self.context_tokens)
        self._models = ModelsInMemory(self._load)
        self._active: Model | None = None
        decoder = PagedDecoder(self._models, self._blocks)
        self._scheduler = Scheduler(
            self._turn,
            lambda: (decoder, self._models),
            self._use,
            Places(pool, BLOCK, CONVERSATIONS_KEPT),
            streams,
            PREFILL_BLOCK,
            COPIED_AT_ONCE,
        )

    @property
    def weights(self) -> Weights:
        return "8bit"

    @property
    def context_tokens(self) -> int:
        return int(self._config.max_position_embeddings)

    @property
    def loaded_adapters(self) -> tuple[str, ...]:
        return tuple(each for each in self._models.versions if each != BASE)

    def held_memory(self) -> HeldMemory:
        """What this process holds of the main memory; waits for the step under way."""
        with self._turn.hold(Event()):
            return held_by_this_process(self._models.nbytes + self._blocks.nbytes)

    def close(self) -> None:
        self._scheduler.close()
        with self._turn.hold(Event()):
            self._active = self._kept = None
            self._models.clear()
            self._blocks.clear()
        give_back_memory()

    def prepare(self, adapter: str) -> None:
        """See the base class. Answers with other versions are made meanwhile."""
        self._models.prepare(adapter)

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

    def _get_ready(self, adapter: str) -> None:
        self.prepare(adapter)

    # ------------------------------------------------------------------------------------------------------
    # What follows is called with the turn held.

    def _activate(self, adapter: str) -> None:
        self._active = None  # until it is there
        if not self._models.has(adapter):
            self._use(adapter, self._scheduler.in_use)
        self._active = self._models[adapter]

    def _use(self, adapter: str, in_use: frozenset[str]) -> None:
        gone = self._models.add(adapter, in_use)
        if gone:
            self._active = None  # it may be one of them, and would stay in memory
        if self._kept is not None and self._kept[0] in gone:
            self._kept = None

    def _load(self, adapter: str) -> Model:
        started = time.perf_counter()
        folder = None if adapter == BASE else self._adapters(adapter)
        try:
            with weights_with(self._base, self._tensors, adapter, folder) as weight_of, torch.inference_mode():
                graph = build(self._config, weight_of, self._tensors.names, *self._rope)
            made = Model(self._core, graph, self._blocks)
            del graph
        except RuntimeError as error:
            raise not_computed(error) from error
        give_back_memory()  # of the weights in full, which is several times what is kept
        log.info("%s in 8 bits made in %.1f s", adapter, time.perf_counter() - started)
        return made

    def _new_conversation(self) -> Conversation:
        # What these blocks hold of another conversation is overwritten.
        self._kept = None
        assert self._active is not None
        return PagedConversation(self._active, self._aside)


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
