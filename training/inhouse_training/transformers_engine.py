"""The in-process engine: transformers, adapters by name, one answer at a time."""

from __future__ import annotations

from . import lean as lean  # first: it decides what transformers takes along

# isort: split
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache

from .adapter_check import check_adapter, refused
from .base_model import BaseModel, best_device, load_model
from .base_tensors import BaseTensors
from .batched import greedy_batch
from .cpu import CACHED, PackedLinear, exchange_layers, is_plain_linear
from .decoding import GrowingLayer
from .devices import HeldMemory, give_back_memory, held_by_this_process
from .engine import BASE, Message, RowScore, ScoredRow
from .exchanged_attention import attending, why_not_exchanged
from .in_process_engine import Conversation, InProcessEngine, generation_ends
from .prompts import chat_ids
from .scoring import TokenIds, TokenScores, no_token_scores, row_scores, token_scores
from .weights import Weights, check_weights

log = logging.getLogger(__name__)

ADAPTERS_KEPT = 4
SCORE_TOKENS = 2048
"""Padded tokens per batch when scoring."""
SCORE_TOKENS_GPU = 16_384
"""The same on a GPU: a small model is otherwise bound by the start of kernels."""
ANSWER_TOKENS = 8192
"""Padded tokens per batch when several prompts are answered at once, answers included."""
ANSWER_TOKENS_GPU = 32_768
"""The same on a GPU: 4 GB of keys and values for a model of 7B."""


class TransformersEngine(InProcessEngine):
    """Implements :class:`~inhouse_training.engine.Engine` with a model in this process.

    Args:
        base: a resolved base model.
        adapters: see :class:`~inhouse_training.in_process_engine.InProcessEngine`.
        device, dtype: as in :func:`~inhouse_training.base_model.load_model`.
        weights: see :mod:`~inhouse_training.weights`.

    Raises:
        InhouseError: the base model cannot be loaded, or this machine has no use for such weights.
    """

    def __init__(
        self,
        base: BaseModel,
        adapters: Callable[[str], Path],
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        weights: Weights = "full",
    ) -> None:
        super().__init__(base, adapters)
        self._bits = weights
        self._model: Any = self._load(device, dtype)  # becomes a PeftModel with the first adapter
        self._causal: Any = self._model  # the same modules without the wrapper: what a forward pass runs
        self._loaded: OrderedDict[str, None] = OrderedDict()
        self._active: str | None = BASE
        self._files: BaseTensors | None = None  # where adapters are added into the weights; else they stay beside
        self._ends |= generation_ends(self._model.generation_config)
        layers = getattr(self._model.config, "layer_types", None) or ["full_attention"]
        self._plain_attention = set(layers) == {"full_attention"} and not getattr(
            self._model.config, "sliding_window", None
        )
        self._attends_in_parts = self._model.device.type == "cpu" and not why_not_exchanged(self._model)

    def _load(self, device: str | None, dtype: torch.dtype | None) -> Any:
        check_weights(self._bits, device or best_device())
        model = load_model(self._base, device, dtype, self._bits)
        model.requires_grad_(False)
        if model.device.type == "cpu":
            exchange_layers(model)
        return model

    @property
    def weights(self) -> Weights:
        return self._bits

    @property
    def context_tokens(self) -> int:
        return int(self._causal.config.max_position_embeddings)

    @property
    def loaded_adapters(self) -> tuple[str, ...]:
        return tuple(self._loaded.copy())

    def held_memory(self) -> HeldMemory:
        """What this process holds of the device that the model is on; waits for the answer under way."""
        with self._turn.hold(Event()):
            if self._causal is None:
                return held_by_this_process(0)
            storages = [each.untyped_storage() for each in self._tensors()]
            sizes = {each.data_ptr(): each.nbytes() for each in storages}
            packed = sum(each.weight.nbytes for each in self._causal.modules() if isinstance(each, PackedLinear))
            return held_by_this_process(sum(sizes.values()) + packed, self._causal.device)

    def _tensors(self) -> Iterator[torch.Tensor]:
        """Those that live as long as the engine, and the keys and values of the last answer."""
        yield from self._causal.parameters()
        yield from self._causal.buffers()
        kept = self._kept[1] if self._kept is not None else None
        for layer in kept.cache.layers if isinstance(kept, _CachedConversation) else ():
            yield from (layer.keys, layer.values)

    def close(self) -> None:
        """Give all memory back, once the answer under way has ended. Nothing may be asked afterwards."""
        with self._turn.hold(Event()):
            self._model = self._causal = self._kept = None
            self._active = None
            self._loaded.clear()
        give_back_memory()

    def score(self, rows: Sequence[ScoredRow], adapter: str = BASE) -> list[RowScore]:
        """Negative log-likelihood of labelled tokens; see the protocol. Answers may be given between two
        batches."""
        scores = [RowScore(0.0, 0)] * len(rows)

        def score(batch: list[int]) -> None:
            found = row_scores(self._causal.get_decoder(), self._head, [rows[i] for i in batch], self._causal.device)
            for i, each in zip(batch, found, strict=True):
                scores[i] = each

        self._in_batches(rows, adapter, score)
        return scores

    def score_tokens(
        self, rows: Sequence[ScoredRow], adapter: str = BASE, others: Sequence[TokenIds] | None = None
    ) -> list[TokenScores]:
        """What the model thinks of each labelled token, and of another token in its place.

        Not part of the protocol: a server does not tell enough.

        Args:
            others: for each row, a token id for each labelled token.

        Raises:
            InhouseError: the adapter is unknown or corrupt, or a row is too long.
        """
        scores: dict[int, TokenScores] = {}

        def score(batch: list[int]) -> None:
            asked = [others[i] for i in batch] if others is not None else None
            found = token_scores(
                self._causal.get_decoder(), self._head, [rows[i] for i in batch], asked, self._causal.device
            )
            scores.update(zip(batch, found, strict=True))

        self._in_batches(rows, adapter, score)
        return [scores.get(i) or no_token_scores() for i in range(len(rows))]

    def _in_batches(self, rows: Sequence[ScoredRow], adapter: str, work: Callable[[list[int]], None]) -> None:
        """Hand over the row numbers of each batch, longest rows first, with the adapter active and no gradients. The
        engine is free between two batches."""
        order = sorted(
            (i for i in range(len(rows)) if len(rows[i].input_ids) > 1), key=lambda i: len(rows[i].input_ids)
        )
        self._check_lengths(rows)
        at_once = SCORE_TOKENS_GPU if self._causal.device.type == "cuda" else SCORE_TOKENS
        while order:
            longest = len(rows[order[-1]].input_ids)
            size = max(1, at_once // longest)
            batch, order = order[-size:], order[:-size]
            with self._turn.hold(Event()):
                self._activate(adapter)
                with torch.inference_mode(), self._attending():
                    work(batch)

    def answer_all(
        self, prompts: Sequence[Sequence[Message]], max_tokens: int, adapter: str = BASE
    ) -> list[tuple[str, bool]]:
        """A greedy answer to each prompt, several at once, and whether the model ended it by itself.

        Raises:
            InhouseError: the adapter is unknown or corrupt.
        """
        ids = [chat_ids(self._tokenizer, prompt, add_generation_prompt=True) for prompt in prompts]
        answers: list[tuple[str, bool]] = [("", False)] * len(ids)
        order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
        at_once = ANSWER_TOKENS_GPU if self._causal.device.type == "cuda" else ANSWER_TOKENS
        while order:
            size = max(1, at_once // (len(ids[order[-1]]) + max_tokens))
            batch, order = order[-size:], order[:-size]
            with self._turn.hold(Event()):
                self._activate(adapter)
                made = greedy_batch(
                    self._causal, [ids[at] for at in batch], max_tokens, self._ends, self._empty_cache()
                )
            for at, (tokens, ended) in zip(batch, made, strict=True):
                text = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
                answers[at] = (str(text), ended)
        return answers

    # ------------------------------------------------------------------------------------------------------
    # Adapters. The caller holds the turn.

    def _activate(self, adapter: str) -> None:
        if adapter == self._active:
            return
        self._active = None  # until the switch is complete
        if self._loaded:
            # First of all: PEFT would unmerge by subtraction as soon as another adapter is loaded or set.
            self._unmerge()
            self._model.base_model.disable_adapter_layers()
        if adapter != BASE:
            if adapter not in self._loaded:
                self._load_adapter(adapter)
            self._loaded.move_to_end(adapter)
            self._model.base_model.enable_adapter_layers()
            self._model.base_model.set_adapter(adapter, inference_mode=True)
            self._merge(adapter)
        self._active = adapter

    def _merge(self, adapter: str) -> None:
        """Add an adapter into the weights of the base's files, in float32, and round the sum once, as the base itself
        is rounded. An adapter that is more than two matrices a layer stays beside the weights."""
        layers = {name: each for name, each in self._causal.named_modules() if adapter in getattr(each, "lora_A", ())}
        if self._files is None or self._model.peft_config[adapter].bias != "none":
            return
        if not all(f"{name}.weight" in self._files.names and _is_plain(each, adapter) for name, each in layers.items()):
            return
        with self._files.opened() as tensor_of, torch.no_grad():
            for name, layer in layers.items():
                down, up = layer.lora_A[adapter].weight.float(), layer.lora_B[adapter].weight.float()
                _write(layer.base_layer, tensor_of(f"{name}.weight").float() + up @ down * layer.scaling[adapter])
                layer.merged_adapters.append(adapter)

    def _unmerge(self) -> None:
        """Put the base's own weights back, bit for bit: subtracting what was added would leave rounding
        errors."""
        merged = [(name, each) for name, each in self._causal.named_modules() if getattr(each, "merged", False)]
        if self._files is None or not merged:
            return
        with self._files.opened() as tensor_of, torch.no_grad():
            for name, layer in merged:
                _write(layer.base_layer, tensor_of(f"{name}.weight"))
                layer.merged_adapters.clear()

    def _load_adapter(self, adapter: str) -> None:
        from peft import PeftModel

        folder = self._adapters(adapter)
        check_adapter(folder, self._base, self._causal)
        started = time.perf_counter()
        try:
            if self._model is self._causal:
                self._files = self._files_to_merge()
                self._model = PeftModel.from_pretrained(
                    self._causal, folder, adapter_name=adapter, autocast_adapter_dtype=False
                )
            else:
                self._model.load_adapter(folder, adapter_name=adapter, autocast_adapter_dtype=False)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            if self._model is not self._causal:
                if adapter in self._model.peft_config:
                    self._model.delete_adapter(adapter)
            else:  # half of the adapter may sit in the model already
                self._kept = None  # it holds that model
                device, dtype = self._causal.device, self._causal.dtype
                self._model = self._causal = None
                self._model = self._causal = self._load(str(device), dtype)
            raise refused(adapter, str(error).splitlines()[0]) from error
        self._model.eval()
        self._loaded[adapter] = None
        log.info("adapter %s loaded in %.2f s", adapter, time.perf_counter() - started)
        while len(self._loaded) > ADAPTERS_KEPT:
            oldest, _ = self._loaded.popitem(last=False)
            self._model.delete_adapter(oldest)

    def _files_to_merge(self) -> BaseTensors | None:
        """The base's files if adapters are added into the weights: on a CPU, where the small extra products of LoRA
        cost half as much again, and where the base's weights can be read again."""
        if self._causal.device.type != "cpu":
            return None
        files = BaseTensors(self._base)
        linear = [name for name, each in self._causal.named_modules() if isinstance(each, torch.nn.Linear)]
        outer = self._causal.get_output_embeddings()
        there = all(f"{name}.weight" in files.names or self._causal.get_submodule(name) is outer for name in linear)
        return files if there else None

    def _new_conversation(self) -> Conversation:
        return _CachedConversation(self._causal, self._empty_cache(), self._plain_attention, self._attending)

    @property
    def _device(self) -> torch.device:
        device: torch.device = self._causal.device
        return device

    def _attending(self) -> contextlib.AbstractContextManager[None]:
        return attending(self._causal.config, CACHED) if self._attends_in_parts else contextlib.nullcontext()

    def _empty_cache(self) -> Any:
        # Other kinds of attention (sliding windows, linear layers) keep the cache that their model asks for.
        if self._plain_attention:
            return Cache(layer_class_to_replicate=GrowingLayer)
        return DynamicCache(config=self._causal.config)

    def _head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits as the model's own forward makes them: some families scale or soften them after the
        projection."""
        logits: torch.Tensor = self._causal.get_output_embeddings()(hidden)
        config = self._causal.config
        if scale := getattr(config, "logits_scaling", None):
            logits = logits / scale
        if scale := getattr(config, "logit_scale", None):
            logits = logits * scale
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        return logits


class _CachedConversation:
    """A conversation whose keys and values are in a cache of transformers."""

    def __init__(self, model: Any, cache: Any, can_forget: bool, attending: Callable[[], Any]) -> None:
        self.read: list[int] = []
        self.can_forget = can_forget
        self.cache = cache
        self._model = model
        self._attending = attending

    def forward(self, ids: list[int], keep: int) -> torch.Tensor:
        # Inference mode belongs to a thread, and a generator may be resumed by another: never across a yield.
        with torch.inference_mode(), self._attending():
            try:
                output = self._model(
                    input_ids=torch.tensor([ids], device=self._model.device),
                    past_key_values=self.cache,
                    use_cache=True,
                    logits_to_keep=keep,
                )
            except BaseException:
                self.read.clear()  # a cache that is half written is not used again
                raise
            logits: torch.Tensor = output.logits[0]
        self.read.extend(ids)
        return logits

    def forget(self, count: int) -> None:
        self.cache.crop(-count)
        del self.read[-count:]


def _is_plain(layer: Any, adapter: str) -> bool:
    """Whether an adapter of this layer is two matrices and a factor, and nothing else."""
    return (
        is_plain_linear(getattr(layer, "base_layer", None))
        and adapter not in layer.lora_variant
        and not layer.lora_bias.get(adapter, False)
        and not layer.fan_in_fan_out
    )


def _write(layer: torch.nn.Linear, weight: torch.Tensor) -> None:
    layer.weight.copy_(weight)
    if isinstance(layer, PackedLinear):
        layer.pack()
