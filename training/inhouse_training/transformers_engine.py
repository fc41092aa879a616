"""The in-process engine: transformers, adapters by name, one answer at a time.

One loop does the decoding, since three promises need its inside: a cancelled answer stops within one token
(or one block of the prompt), an answer ends on the adapter that it began with, and memory stays bounded
(logits only where they are read). Greedy answers copy from the prompt by prompt-lookup decoding, which pays
on code.
"""

from __future__ import annotations

from . import lean as lean  # first: it decides what transformers takes along

# isort: split
import contextlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from transformers.cache_utils import Cache, DynamicCache

from inhouse_retrieval import InhouseError

from .base_model import BaseModel, best_device, load_model, load_tokenizer
from .batched import greedy_batch
from .chat_template import template_digest
from .cpu import CACHED, PackedLinear, exchange_layers, is_plain_linear
from .decoding import Constrained, FairLock, GrowingLayer, PromptLookup, Sampler, TextStream, likeliest
from .devices import HeldMemory, give_back_memory, held_by_this_process
from .engine import (
    BASE,
    Finished,
    GenerationEvent,
    GenerationRequest,
    Message,
    RowScore,
    ScoredRow,
    TextDelta,
)
from .exchanged_attention import attending, why_not_exchanged
from .fill_in import FillIn, fill_in_ids, fill_in_tokens
from .prompts import chat_ids, end_of_turn_ids, literal_ids, raw_row
from .registry import MANIFEST_NAME
from .scoring import TokenIds, TokenScores, no_token_scores, row_scores, token_scores
from .weights import Weights, check_weights

log = logging.getLogger(__name__)

PREFILL_BLOCK = 512
"""Prompt tokens per forward pass: cancellation is looked at in between, and attention scratch space stays
small."""
LOOKUP_TOKENS = 8
"""Copied tokens of a step at first. More cost more when they are refused; fewer gain less on long copies."""
LONGEST_LOOKUP = 32
"""After a copy of which all was right, the next one is twice as long, up to this."""
SHORTEST_PREFIX = 16
"""Tokens that a prompt must have in common with the conversation before, for what was read of it to be used again."""
ADAPTERS_KEPT = 4
SCORE_TOKENS = 2048
"""Padded tokens per batch when scoring."""
SCORE_TOKENS_GPU = 16_384
"""The same on a GPU: a small model is otherwise bound by the start of kernels."""
ANSWER_TOKENS = 8192
"""Padded tokens per batch when several prompts are answered at once, answers included."""
ANSWER_TOKENS_GPU = 32_768
"""The same on a GPU: 4 GB of keys and values for a model of 7B."""


class TransformersEngine:
    """Implements :class:`~inhouse_training.engine.Engine` with a model in this process.

    Args:
        base: a resolved base model.
        adapters: gives the verified folder of an adapter version, or raises InhouseError;
        ``Registry.verify`` is one. device, dtype: as in :func:`~inhouse_training.base_model.load_model`.
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
        self._base = base
        self._adapters = adapters
        self._bits = weights
        self._tokenizer = load_tokenizer(base)
        self._model: Any = self._load(device, dtype)  # becomes a PeftModel with the first adapter
        self._causal: Any = self._model  # the same modules without the wrapper: what a forward pass runs
        self._loaded: OrderedDict[str, None] = OrderedDict()
        self._active: str | None = BASE
        self._mergeable = False
        self._weights: dict[str, Path] = {}  # file of each tensor of the base
        self._turn = FairLock()
        self._ends = end_of_turn_ids(self._tokenizer) | _generation_ends(self._model)
        layers = getattr(self._model.config, "layer_types", None) or ["full_attention"]
        self._plain_attention = set(layers) == {"full_attention"} and not getattr(
            self._model.config, "sliding_window", None
        )
        self._attends_in_parts = self._model.device.type == "cpu" and not why_not_exchanged(self._model)
        self._kept: tuple[str, list[int], Any] | None = None  # adapter, tokens and cache of the last answer

    def _load(self, device: str | None, dtype: torch.dtype | None) -> Any:
        check_weights(self._bits, device or best_device())
        model = load_model(self._base, device, dtype, self._bits)
        model.requires_grad_(False)
        if model.device.type == "cpu":
            exchange_layers(model)
        return model

    @property
    def base_model(self) -> str:
        return self._base.name

    @property
    def context_tokens(self) -> int:
        return int(self._causal.config.max_position_embeddings)

    @property
    def streams(self) -> int:
        """Answers that are made at once."""
        return 1

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
        for layer in self._kept[2].layers if self._kept is not None else ():
            yield from (layer.keys, layer.values)

    def close(self) -> None:
        """Give all memory back, once the answer under way has ended. Nothing may be asked afterwards."""
        with self._turn.hold(Event()):
            self._model = self._causal = self._kept = None
            self._active = None
            self._loaded.clear()
        give_back_memory()

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return len(chat_ids(self._tokenizer, messages, add_generation_prompt=True))

    def stream(self, request: GenerationRequest, cancel: Event) -> Iterator[GenerationEvent]:
        """Generate; see the protocol. The engine belongs to this answer until the iterator ends or is
        closed."""
        prompt = chat_ids(self._tokenizer, request.messages, add_generation_prompt=True)
        room = self.context_tokens - len(prompt)
        if room < 1:
            raise InhouseError(
                f"The prompt takes {len(prompt)} tokens, and {self._base.name} reads {self.context_tokens}.",
                "Shorten the question or the conversation.",
            )
        yield from self._generate(prompt, request, min(request.max_tokens, room), cancel, self._ends)

    def fill_in(self, asked: FillIn, cancel: Event) -> Iterator[GenerationEvent]:
        """Write what stands between two pieces of a file, as :meth:`stream` answers.

        Everybody who asks goes first: it waits for them, and ends as cancelled as soon as one comes.

        Raises:
            InhouseError: the base model was not trained for it, or the adapter is unknown or corrupt.
        """
        tokens = fill_in_tokens(self._base.path)
        if tokens is None:
            raise InhouseError(f"{self._base.name} was not trained to fill in.", "Take a base model that was.")
        opening = raw_row(self._tokenizer, "", ends=False)[0]
        prompt, ends = fill_in_ids(
            tokens, opening, self._tokenizer, asked, lambda text: literal_ids(self._tokenizer, text)
        )
        request = GenerationRequest((), asked.adapter, asked.max_tokens, stop=asked.stop)
        limit = min(asked.max_tokens, self.context_tokens - len(prompt))
        yield from self._generate(prompt, request, limit, _OrWanted(cancel, self._turn), self._ends | ends, True)

    def _generate(
        self,
        prompt: list[int],
        request: GenerationRequest,
        limit: int,
        cancel: Event,
        ends: frozenset[int],
        patient: bool = False,
    ) -> Iterator[GenerationEvent]:
        with self._turn.hold(cancel, patient, request.caller) as held:
            if not held or limit < 1:
                yield Finished("length" if held else "cancelled", len(prompt), 0)
                return
            request.begun()
            self._activate(request.adapter)
            yield from self._events(self._tokens(prompt, request, limit, cancel), prompt, request, cancel, ends)

    def _events(
        self,
        made: Generator[int, None, None],
        prompt: list[int],
        request: GenerationRequest,
        cancel: Event,
        ends: frozenset[int],
    ) -> Iterator[GenerationEvent]:
        """The text of an answer's tokens, which are closed in the end."""
        text = TextStream(self._tokenizer, request.stop)
        reason: Literal["stop", "length", "cancelled"] = "length"
        count = 0
        with contextlib.closing(made) as tokens:
            for token in tokens:
                if token in ends:
                    reason = "stop"
                    break
                count += 1
                delta = text.push(token)
                if delta:
                    yield TextDelta(delta)
                if text.stopped:
                    reason = "stop"
                    break
                if cancel.is_set():
                    break
        if reason != "stop" and cancel.is_set():
            reason = "cancelled"
        rest = text.close()
        if rest:
            yield TextDelta(rest)
        yield Finished(reason, len(prompt), count)

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
        for i in order[-1:]:
            if len(rows[i].input_ids) > self.context_tokens:
                raise InhouseError(
                    f"A row of {len(rows[i].input_ids)} tokens is longer than the {self.context_tokens} that "
                    f"{self._base.name} reads.",
                    "Cut the rows shorter.",
                )
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
        plain = all(f"{name}.weight" in self._weights and _is_plain(each, adapter) for name, each in layers.items())
        if not self._mergeable or not plain or self._model.peft_config[adapter].bias != "none":
            return
        with self._base_weights() as weight_of:
            for name, layer in layers.items():
                down, up = layer.lora_A[adapter].weight.float(), layer.lora_B[adapter].weight.float()
                _write(layer.base_layer, weight_of(name).float() + up @ down * layer.scaling[adapter])
                layer.merged_adapters.append(adapter)

    def _unmerge(self) -> None:
        """Put the base's own weights back, bit for bit: subtracting what was added would leave rounding
        errors."""
        merged = [(name, each) for name, each in self._causal.named_modules() if getattr(each, "merged", False)]
        with self._base_weights() as weight_of:
            for name, layer in merged:
                _write(layer.base_layer, weight_of(name))
                layer.merged_adapters.clear()

    @contextlib.contextmanager
    def _base_weights(self) -> Iterator[Callable[[str], torch.Tensor]]:
        """Gives the weight of a layer, by the layer's name, as the base's files have it."""
        with contextlib.ExitStack() as files, torch.no_grad():
            opened: dict[Path, Any] = {}

            def weight_of(layer: str) -> torch.Tensor:
                file = self._weights[f"{layer}.weight"]
                if file not in opened:
                    opened[file] = files.enter_context(safe_open(file, framework="pt"))
                weight: torch.Tensor = opened[file].get_tensor(f"{layer}.weight")
                return weight

            yield weight_of

    def _load_adapter(self, adapter: str) -> None:
        from peft import PeftModel

        folder = self._adapters(adapter)
        check_adapter(folder, self._base, self._causal)
        started = time.perf_counter()
        try:
            if self._model is self._causal:
                self._mergeable = self._can_merge()
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
                device, dtype = self._causal.device, self._causal.dtype
                self._model = self._causal = None
                self._model = self._causal = self._load(str(device), dtype)
            raise _refused(adapter, str(error).splitlines()[0]) from error
        self._model.eval()
        self._loaded[adapter] = None
        log.info("adapter %s loaded in %.2f s", adapter, time.perf_counter() - started)
        while len(self._loaded) > ADAPTERS_KEPT:
            oldest, _ = self._loaded.popitem(last=False)
            self._model.delete_adapter(oldest)

    def _can_merge(self) -> bool:
        """Whether adapters are added into the weights: on a CPU, where the small extra products of LoRA cost
        half as much again, and where the base's weights can be read again from its files."""
        if self._causal.device.type != "cpu":
            return False
        for file in self._base.path.glob("*.safetensors"):
            with safe_open(file, framework="pt") as tensors:
                self._weights.update(dict.fromkeys(tensors.keys(), file))
        linear = [name for name, each in self._causal.named_modules() if isinstance(each, torch.nn.Linear)]
        outer = self._causal.get_output_embeddings()
        return all(f"{name}.weight" in self._weights or self._causal.get_submodule(name) is outer for name in linear)

    # ------------------------------------------------------------------------------------------------------
    # Decoding. The caller holds the turn.

    def _tokens(
        self, prompt: list[int], request: GenerationRequest, limit: int, cancel: Event
    ) -> Generator[int, None, None]:
        """At most ``limit`` new token ids, the end token included; ends early when cancelled."""
        device = self._causal.device
        read, cache = self._begin(prompt, request.adapter)
        own = self._chooser(request)
        choose = own or likeliest
        # A copied token would have to be checked against the schema before it is known to be chosen.
        lookup = PromptLookup(prompt) if own is None and self._plain_attention else None

        def forward(ids: list[int], keep: int) -> torch.Tensor:
            # Inference mode belongs to a thread, and a generator may be resumed by another: never across a
            # yield.
            with torch.inference_mode(), self._attending():
                try:
                    output = self._causal(
                        input_ids=torch.tensor([ids], device=device),
                        past_key_values=cache,
                        use_cache=True,
                        logits_to_keep=keep,
                    )
                except BaseException:
                    read.clear()  # a cache that is half written is not used again
                    raise
                logits: torch.Tensor = output.logits[0]
            read.extend(ids)
            return logits

        try:
            logits = torch.empty(0)
            while len(read) < len(prompt):
                if cancel.is_set():
                    return
                logits = forward(prompt[len(read) : len(read) + PREFILL_BLOCK], 1)
            token = choose(logits)[0]
            made, length = 0, LOOKUP_TOKENS
            while True:
                yield token
                made += 1
                if made >= limit or cancel.is_set():
                    return
                # Leave room: what is copied must not run over the limit.
                draft = lookup.propose(token, min(length, limit - made - 1)) if lookup else []
                chosen = choose(forward([token, *draft], len(draft) + 1))
                agreed = 0
                while agreed < len(draft) and draft[agreed] == chosen[agreed]:
                    agreed += 1
                if agreed < len(draft):
                    cache.crop(agreed - len(draft))
                    del read[agreed - len(draft) :]
                    length = LOOKUP_TOKENS
                elif draft:
                    length = min(2 * length, LONGEST_LOOKUP)
                for copied in draft[:agreed]:
                    yield copied
                    made += 1
                    if cancel.is_set():
                        return
                    if lookup:
                        lookup.append(copied)
                token = chosen[agreed]
        finally:
            if self._plain_attention and read:
                self._kept = (request.adapter, read, cache)

    def _begin(self, prompt: list[int], adapter: str) -> tuple[list[int], Any]:
        """What of ``prompt`` has been read already, and the cache that holds it; that of the last answer is used up.

        At least one token is left to be read: what follows it comes from the forward pass.
        """
        kept, self._kept = self._kept, None
        if kept and kept[0] == adapter:
            _, read, cache = kept
            pairs = zip(read, prompt[:-1], strict=False)
            same = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(read), len(prompt) - 1))
            if same >= SHORTEST_PREFIX:
                if same < len(read):
                    cache.crop(same - len(read))
                return read[:same], cache
        return [], self._empty_cache()

    def forget(self) -> None:
        """Read the next prompt from its beginning, whatever it has in common with the last one."""
        with self._turn.hold(Event()):
            self._kept = None

    def _attending(self) -> contextlib.AbstractContextManager[None]:
        return attending(self._causal.config, CACHED) if self._attends_in_parts else contextlib.nullcontext()

    def _chooser(self, request: GenerationRequest) -> Callable[[torch.Tensor], list[int]] | None:
        """How this request chooses tokens, where it is not just the likeliest ones."""
        sampler = Sampler(request, self._causal.device) if request.temperature > 0 else None
        return Constrained(self._tokenizer, request.schema, sampler or likeliest) if request.schema else sampler

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


class _OrWanted(Event):
    """Set when another event is, or while somebody waits who goes first; only :meth:`is_set` is asked."""

    def __init__(self, cancel: Event, turn: FairLock) -> None:
        super().__init__()
        self._cancel = cancel
        self._turn = turn

    def is_set(self) -> bool:
        return self._cancel.is_set() or self._turn.wanted


# ----------------------------------------------------------------------------------------------------------
# Adapters on disk


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


def check_adapter(folder: Path, base: BaseModel, model: Any) -> None:
    """Read an adapter's files against a model before any of it touches that model.

    Raises:
        InhouseError: made for another base or chat template, truncated, not finite, or of another shape.
    """
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        manifest_file = folder / MANIFEST_NAME
        manifest = json.loads(manifest_file.read_text(encoding="utf-8")) if manifest_file.exists() else {}
        if manifest.get("base_sha256", base.sha256) != base.sha256:
            raise InhouseError(
                f"The adapter {folder.name} was made for another base model ({manifest.get('base_model')}, "
                f"{str(manifest['base_sha256'])[:12]}…) than {base.name} ({base.sha256[:12]}…).",
                "Promote an adapter of this base model, or configure the base model of the adapter.",
            )
        if manifest.get("chat_template") and manifest["chat_template"] != template_digest(base.path):
            raise InhouseError(
                f"The adapter {folder.name} was trained with another chat template than {base.name} has now.",
                f"Put the template in {base.path} back, or retrain.",
            )
        modules = dict(model.named_modules())
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as tensors:
            names = list(tensors.keys())
            for name in names:
                problem = _tensor_problem(name, tensors.get_tensor(name), modules)
                if problem:
                    raise _refused(folder.name, problem)
        if not names or config.get("peft_type") != "LORA":
            raise _refused(folder.name, "it holds no LoRA weights")
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        raise _refused(folder.name, str(error).splitlines()[0]) from error


def _tensor_problem(name: str, tensor: torch.Tensor, modules: dict[str, Any]) -> str | None:
    path, kind, _ = name.removeprefix("base_model.model.").partition(".lora_")
    module = modules.get(path)
    if not kind or module is None:
        return f"it changes {path}, which this base model does not have"
    # A module that already carries adapters keeps its own features under the same names.
    sides = {"A": (1, "in_features"), "B": (0, "out_features")}
    side = sides.get(name.partition(".lora_")[2].partition(".")[0])
    if side and hasattr(module, side[1]) and tensor.shape[side[0]] != getattr(module, side[1]):
        return f"{name} has shape {tuple(tensor.shape)}, which does not fit this base model"
    return None if bool(torch.isfinite(tensor).all()) else f"{name} is not finite"


def _refused(adapter: str, reason: str) -> InhouseError:
    return InhouseError(f"The adapter {adapter} is refused: {reason}.", "Promote another version, or train a new one.")


def _generation_ends(model: Any) -> frozenset[int]:
    """End tokens that the model's generation settings name beside the tokenizer's."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])
