"""The in-process engine: transformers, adapters by name, one answer at a time.

One loop does the decoding, since three promises need its inside: a cancelled answer stops within one token
(or one block of the prompt), an answer ends on the adapter that it began with, and memory stays bounded
(logits only where they are read). Greedy answers copy from the prompt by prompt-lookup decoding, which pays
on code.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Event
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from inhouse_retrieval import InhouseError

from .base_model import BaseModel, load_model, load_tokenizer
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
from .prompts import chat_ids, end_of_turn_ids
from .registry import MANIFEST_NAME
from .scoring import TokenIds, TokenScores, no_token_scores, row_scores, token_scores

log = logging.getLogger(__name__)

PREFILL_BLOCK = 512
"""Prompt tokens per forward pass: cancellation is looked at in between, and attention scratch space stays
small."""
LOOKUP_TOKENS = 8
"""Copied tokens per step. More cost more when they are refused; fewer gain less on long copies."""
LOOKUP_NGRAM = 3
"""The longest run of tokens that is looked for in the prompt; two and one follow when it is not there."""
ADAPTERS_KEPT = 4
SCORE_TOKENS = 2048
"""Padded tokens per batch when scoring."""


class TransformersEngine:
    """Implements :class:`~inhouse_training.engine.Engine` with a model in this process.

    Args:
        base: a resolved base model.
        adapters: gives the verified folder of an adapter version, or raises InhouseError;
        ``Registry.verify`` is one. device, dtype: as in :func:`~inhouse_training.base_model.load_model`.

    Raises:
        InhouseError: the base model cannot be loaded.
    """

    def __init__(
        self,
        base: BaseModel,
        adapters: Callable[[str], Path],
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._base = base
        self._adapters = adapters
        self._tokenizer = load_tokenizer(base)
        self._model: Any = load_model(base, device, dtype)  # becomes a PeftModel with the first adapter
        self._causal: Any = self._model  # the same modules without the wrapper: what a forward pass runs
        self._model.requires_grad_(False)
        self._loaded: OrderedDict[str, None] = OrderedDict()
        self._active: str | None = BASE
        self._mergeable = False
        self._weights: dict[str, Path] = {}  # file of each tensor of the base
        self._turn = _FairLock()
        self._ends = end_of_turn_ids(self._tokenizer) | _generation_ends(self._model)
        layers = getattr(self._model.config, "layer_types", None) or ["full_attention"]
        self._plain_attention = set(layers) == {"full_attention"} and not getattr(
            self._model.config, "sliding_window", None
        )

    @property
    def base_model(self) -> str:
        return self._base.name

    @property
    def context_tokens(self) -> int:
        return int(self._causal.config.max_position_embeddings)

    @property
    def loaded_adapters(self) -> tuple[str, ...]:
        return tuple(self._loaded.copy())

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
        limit = min(request.max_tokens, room)
        text = _TextStream(self._tokenizer, request.stop)
        reason: Literal["stop", "length", "cancelled"] = "length"
        count = 0
        with self._turn.hold(cancel) as held:
            if not held or limit < 1:
                yield Finished("length" if held else "cancelled", len(prompt), 0)
                return
            self._activate(request.adapter)
            with contextlib.closing(self._tokens(prompt, request, limit, cancel)) as tokens:
                for token in tokens:
                    if token in self._ends:
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
        while order:
            longest = len(rows[order[-1]].input_ids)
            size = max(1, SCORE_TOKENS // longest)
            batch, order = order[-size:], order[:-size]
            with self._turn.hold(Event()):
                self._activate(adapter)
                with torch.inference_mode():
                    work(batch)

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
            if self._mergeable and self._model.peft_config[adapter].bias == "none":
                self._model.merge_adapter([adapter])
        self._active = adapter

    def _unmerge(self) -> None:
        """Put the base's own weights back, bit for bit: subtracting what was added would leave rounding
        errors."""
        merged = [(name, each) for name, each in self._causal.named_modules() if getattr(each, "merged", False)]
        with contextlib.ExitStack() as files, torch.no_grad():
            opened: dict[Path, Any] = {}
            for name, layer in merged:
                file = self._weights[f"{name}.weight"]
                if file not in opened:
                    opened[file] = files.enter_context(safe_open(file, framework="pt"))
                layer.base_layer.weight.copy_(opened[file].get_tensor(f"{name}.weight"))
                layer.merged_adapters.clear()

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
                self._model = self._causal = load_model(self._base, str(device), dtype)
            raise _refused(adapter, str(error).splitlines()[0]) from error
        self._model.eval()
        self._loaded[adapter] = None
        log.info("adapter %s loaded in %.2f s", adapter, time.perf_counter() - started)
        while len(self._loaded) > ADAPTERS_KEPT:
            oldest, _ = self._loaded.popitem(last=False)
            self._model.delete_adapter(oldest)

    def _can_merge(self) -> bool:
        """Whether adapters are added into the weights: on a CPU in float32, where the small extra products
        of LoRA cost half as much again, sums are exact enough, and the base's weights can be read again from
        its files."""
        if self._causal.device.type != "cpu" or self._causal.dtype != torch.float32:
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
        # Other kinds of attention (sliding windows, linear layers) keep the cache that their model asks for.
        cache = DynamicCache(config=self._causal.config)
        if self._plain_attention:
            cache = Cache(layer_class_to_replicate=_GrowingLayer)
        greedy = request.temperature <= 0
        choose: Callable[[torch.Tensor], list[int]] = _greedy if greedy else _Sampler(request, device)
        if request.schema:
            choose = _Constrained(self._tokenizer, request.schema, choose)
        # A copied token would have to be checked against the schema before it is known to be chosen.
        lookup = _PromptLookup(prompt) if greedy and self._plain_attention and not request.schema else None

        def forward(ids: list[int], keep: int) -> torch.Tensor:
            # Inference mode belongs to a thread, and a generator may be resumed by another: never across a
            # yield.
            with torch.inference_mode():
                output = self._causal(
                    input_ids=torch.tensor([ids], device=device),
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=keep,
                )
                logits: torch.Tensor = output.logits[0]
                return logits

        logits = torch.empty(0)
        for start in range(0, len(prompt), PREFILL_BLOCK):
            if cancel.is_set():
                return
            logits = forward(prompt[start : start + PREFILL_BLOCK], 1)
        token = choose(logits)[0]
        made = 0
        while True:
            yield token
            made += 1
            if made >= limit or cancel.is_set():
                return
            # Leave room: what is copied must not run over the limit.
            draft = lookup.propose(token, min(LOOKUP_TOKENS, limit - made - 1)) if lookup else []
            chosen = choose(forward([token, *draft], len(draft) + 1))
            agreed = 0
            while agreed < len(draft) and draft[agreed] == chosen[agreed]:
                agreed += 1
            if agreed < len(draft):
                cache.crop(agreed - len(draft))
            for copied in draft[:agreed]:
                yield copied
                made += 1
                if cancel.is_set():
                    return
                if lookup:
                    lookup.append(copied)
            token = chosen[agreed]

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


# ----------------------------------------------------------------------------------------------------------
# Adapters on disk


def check_adapter(folder: Path, base: BaseModel, model: Any) -> None:
    """Read an adapter's files against a model before any of it touches that model.

    Raises:
        InhouseError: made for another base, truncated, not finite, or of another shape.
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


# ----------------------------------------------------------------------------------------------------------
# Pieces of the decoding loop


class _GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """A key-value cache that writes in place. The stock one copies the whole cache on every token."""

    keys: torch.Tensor
    values: torch.Tensor

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        used = self.get_seq_length()
        needed = used + key_states.shape[-2]
        if self._room is None or self._room[0].shape[-2] < needed:
            size = needed + max(PREFILL_BLOCK, needed // 4)
            keys = key_states.new_empty(*key_states.shape[:2], size, key_states.shape[3])
            values = value_states.new_empty(*value_states.shape[:2], size, value_states.shape[3])
            if used:
                keys[..., :used, :] = self.keys
                values[..., :used, :] = self.values
            self._room = (keys, values)
        self._room[0][..., used:needed, :] = key_states
        self._room[1][..., used:needed, :] = value_states
        self.keys = self._room[0][..., :needed, :]
        self.values = self._room[1][..., :needed, :]
        return self.keys, self.values


class _PromptLookup:
    """Guesses the next tokens from where the last few stood before.

    Prompt lookup decoding (Apoorv Saxena, 2023, https://github.com/apoorvumang/prompt-lookup-decoding). An
    index of n-grams replaces the search through the prompt, so that a step costs the same however long the
    prompt is.
    """

    def __init__(self, prompt: list[int]) -> None:
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        for token in prompt:
            self.append(token)

    def append(self, token: int) -> None:
        # An n-gram is indexed by the position after it, and only once that position is filled: it then never
        # finds itself.
        for size in range(2, LOOKUP_NGRAM + 1):
            if len(self._ids) >= size:
                self._after[tuple(self._ids[-size:])] = len(self._ids)
        self._ids.append(token)

    def propose(self, token: int, count: int) -> list[int]:
        """Append ``token`` and guess at most ``count`` tokens after it."""
        self.append(token)
        if count < 1:
            return []
        for size in range(LOOKUP_NGRAM, 1, -1):
            start = self._after.get(tuple(self._ids[-size:]))
            if start is not None and len(self._ids) >= size:
                return self._ids[start : start + count]
        return []


def _greedy(logits: torch.Tensor) -> list[int]:
    chosen: list[int] = logits.argmax(dim=-1).tolist()
    return chosen


class _Sampler:
    """Temperature and nucleus sampling (Holtzman et al. 2020), the same for the same seed."""

    def __init__(self, request: GenerationRequest, device: torch.device) -> None:
        self._temperature = request.temperature
        self._top_p = request.top_p
        self._generator = torch.Generator(device=device).manual_seed(request.seed)

    def __call__(self, logits: torch.Tensor) -> list[int]:
        with torch.inference_mode():
            chances = torch.softmax(logits.float() / self._temperature, dim=-1)
            if self._top_p < 1:
                ranked, order = chances.sort(dim=-1, descending=True)
                ranked[ranked.cumsum(dim=-1) - ranked >= self._top_p] = 0
                chances = torch.zeros_like(chances).scatter_(-1, order, ranked)
            chosen: list[int] = torch.multinomial(chances, 1, generator=self._generator)[:, 0].tolist()
        return chosen


class _Constrained:
    """Lets another chooser see only the tokens with which the text can still follow a JSON schema (llguidance)."""

    def __init__(self, tokenizer: Any, schema: str, choose: Callable[[torch.Tensor], list[int]]) -> None:
        from llguidance import LLMatcher
        from llguidance.numpy import allocate_token_bitmask

        vocabulary = _vocabulary(tokenizer)
        # Compact JSON: a small model otherwise fills an answer with line breaks.
        grammar = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
        self._matcher = LLMatcher(vocabulary, grammar)
        if self._matcher.is_error():
            raise InhouseError(f"The JSON schema cannot be followed: {self._matcher.get_error()}.", "Correct it.")
        self._mask = allocate_token_bitmask(1, vocabulary.vocab_size)
        self._end = int(vocabulary.eos_token)
        self._choose = choose

    def __call__(self, logits: torch.Tensor) -> list[int]:
        from llguidance.numpy import fill_next_token_bitmask

        if self._matcher.is_stopped():
            return [self._end]
        fill_next_token_bitmask(self._matcher, self._mask, 0)
        allowed = torch.from_numpy(np.unpackbits(self._mask[0].view(np.uint8), bitorder="little").astype(bool))
        # A model's table may be wider than its vocabulary, and the mask is rounded up to whole words.
        width = min(len(allowed), logits.shape[-1])
        masked = torch.full_like(logits, -torch.inf)
        masked[:, :width] = logits[:, :width].masked_fill(~allowed[:width].to(logits.device), -torch.inf)
        chosen = self._choose(masked)
        self._matcher.consume_token(chosen[0])
        return chosen


@lru_cache(maxsize=2)
def _vocabulary(tokenizer: Any) -> Any:
    """The tokenizer as llguidance reads it; takes half a second."""
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer)


class _TextStream:
    """Token ids in, text out: whole characters only, and nothing of a stop string.

    A byte-level token may hold part of a character; it decodes to U+FFFD until the rest has come. A
    character has at most four bytes, so what still does not decode after four tokens is really broken and is
    passed on.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = [each for each in stop if each]
        self._ids: list[int] = []
        self._start = 0  # tokens from here give the context that decoding needs for spaces
        self._read = 0  # tokens before this have been turned into text
        self._held = ""  # may be the beginning of a stop string
        self.stopped = False

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def push(self, token: int) -> str:
        """The text that this token completes; may be empty."""
        self._ids.append(token)
        before = self._decode(self._ids[self._start : self._read])
        after = self._decode(self._ids[self._start :])
        if after.endswith("\ufffd") and len(self._ids) - self._read < 4:
            return ""
        self._start, self._read = self._read, len(self._ids)
        return self._release(after[len(before) :])

    def close(self) -> str:
        """What is left at the end of the answer."""
        if self.stopped:
            return ""
        before = self._decode(self._ids[self._start : self._read])
        rest = self._decode(self._ids[self._start :])[len(before) :]
        self._read = len(self._ids)
        text = self._release(rest)
        return text if self.stopped else text + self._held

    def _release(self, text: str) -> str:
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            return self._held[: min(found)]
        keep = 0
        for stop in self._stop:
            for size in range(min(len(stop) - 1, len(self._held)), keep, -1):
                if self._held.endswith(stop[:size]):
                    keep = size
                    break
        cut = len(self._held) - keep
        released, self._held = self._held[:cut], self._held[cut:]
        return released


class _FairLock:
    """A lock that serves in the order of arrival. It may be released by another thread than the one that
    took it, since an answer may be resumed and closed anywhere."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()

    @contextlib.contextmanager
    def hold(self, cancel: Event) -> Iterator[bool]:
        """Wait for the turn; gives ``False`` when ``cancel`` was set first."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
        try:
            with self._changed:
                while self._queue[0] is not ticket and not cancel.is_set():
                    self._changed.wait(0.05)  # an Event of the caller cannot wake this up
                held = self._queue[0] is ticket and not cancel.is_set()
            yield held
        finally:
            with self._changed:
                self._queue.remove(ticket)
                self._changed.notify_all()
