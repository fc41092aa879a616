"""The pieces of the engine's decoding loop: its cache, its choice of tokens, tokens to text, whose turn it is."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from threading import Event
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicLayer

from inhouse_retrieval import InhouseError

from .engine import GenerationRequest
from .fair_queue import FairQueue

LOOKUP_NGRAM = 3
"""The longest run of tokens that is looked for in the prompt; shorter ones follow when it is not there."""
LOOKUP_TOKENS = 8
"""Copied tokens of a step at first. More cost more when they are refused; fewer gain less on long copies."""
LONGEST_LOOKUP = 32
"""After a copy of which all was right, the next one is twice as long, up to this."""
GREEDY_BELOW = 1e-5
"""Temperatures below this take the likeliest token, as in vLLM: float32 cannot hold logits divided by them."""
_CACHE_STEP = 512
"""A cache that is full grows by a quarter, and by this many tokens at least."""


class GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
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
            size = needed + max(_CACHE_STEP, needed // 4)
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


class PromptLookup:
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


class Drafts:
    """What one answer may copy next, and how much at once."""

    def __init__(self, prompt: list[int]) -> None:
        self._lookup = PromptLookup(prompt)
        self._length = LOOKUP_TOKENS

    def propose(self, token: int, most: int) -> list[int]:
        """Note ``token``, which was chosen, and guess at most ``most`` tokens after it."""
        return self._lookup.propose(token, min(self._length, most))

    def checked(self, draft: Sequence[int], chosen: Sequence[int]) -> int:
        """How many tokens of ``draft`` were ``chosen`` by the model too, one after the other; these are noted."""
        agreed = 0
        while agreed < len(draft) and draft[agreed] == chosen[agreed]:
            self._lookup.append(draft[agreed])
            agreed += 1
        if agreed < len(draft):
            self._length = LOOKUP_TOKENS
        elif draft:
            self._length = min(2 * self._length, LONGEST_LOOKUP)
        return agreed


def likeliest(logits: torch.Tensor) -> list[int]:
    """The likeliest token at each position of ``logits``, float [positions, vocabulary]."""
    chosen: list[int] = logits.argmax(dim=-1).tolist()
    return chosen


class Sampler:
    """Temperature and nucleus sampling (Holtzman et al. 2020), the same for the same seed. The likeliest token is never
    left out, and below :data:`GREEDY_BELOW` it is the only one."""

    def __init__(self, request: GenerationRequest, device: torch.device) -> None:
        self._temperature = request.temperature
        self._top_p = request.top_p
        self._generator = torch.Generator(device=device).manual_seed(request.seed)

    def __call__(self, logits: torch.Tensor) -> list[int]:
        if self._temperature < GREEDY_BELOW:
            return likeliest(logits)
        with torch.inference_mode():
            chances = torch.softmax(logits.float() / self._temperature, dim=-1)
            if self._top_p < 1:
                ranked, order = chances.sort(dim=-1, descending=True)
                left_out = ranked.cumsum(dim=-1) - ranked >= self._top_p
                left_out[..., 0] = False  # a tiny top_p is 0 in float32
                ranked[left_out] = 0
                chances = torch.zeros_like(chances).scatter_(-1, order, ranked)
            chosen: list[int] = torch.multinomial(chances, 1, generator=self._generator)[:, 0].tolist()
        return chosen


class Constrained:
    """Lets another chooser see only the tokens with which the text can still follow a JSON schema (llguidance).

    Raises:
        InhouseError: the schema cannot be followed; some turn out to be too much only while the text is written.
    """

    def __init__(self, tokenizer: Any, schema: str, choose: Callable[[torch.Tensor], list[int]]) -> None:
        from llguidance import LLMatcher
        from llguidance.numpy import allocate_token_bitmask

        vocabulary = _vocabulary(tokenizer)
        # Compact JSON: a small model otherwise fills an answer with line breaks.
        grammar = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
        self._matcher = LLMatcher(vocabulary, grammar)
        self._check()
        self._mask = allocate_token_bitmask(1, vocabulary.vocab_size)
        self._end = int(vocabulary.eos_token)
        self._choose = choose

    def __call__(self, logits: torch.Tensor) -> list[int]:
        from llguidance.numpy import fill_next_token_bitmask

        if self._matcher.is_stopped():
            return [self._end]
        fill_next_token_bitmask(self._matcher, self._mask, 0)
        self._check()
        allowed = torch.from_numpy(np.unpackbits(self._mask[0].view(np.uint8), bitorder="little").astype(bool))
        # A model's table may be wider than its vocabulary, and the mask is rounded up to whole words.
        width = min(len(allowed), logits.shape[-1])
        masked = torch.full_like(logits, -torch.inf)
        masked[:, :width] = logits[:, :width].masked_fill(~allowed[:width].to(logits.device), -torch.inf)
        chosen = self._choose(masked)
        self._matcher.consume_token(chosen[0])
        self._check()
        return chosen

    def _check(self) -> None:
        """A matcher that has failed counts as stopped, as if the text were whole."""
        if self._matcher.is_error():
            problem = self._matcher.get_error().split("\n<state>")[0]  # what follows is for llguidance's authors
            raise InhouseError(f"The JSON schema cannot be followed: {problem}.", "Correct it, or make it simpler.")


@lru_cache(maxsize=2)
def _vocabulary(tokenizer: Any) -> Any:
    """The tokenizer as llguidance reads it; takes half a second."""
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer)


class TextStream:
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


class FairLock:
    """A lock that serves callers in turn, and those who let others go first only when nobody else waits.

    It may be released by another thread than the one that took it, since an answer may be resumed and closed anywhere.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: FairQueue[object] = FairQueue()
        self._patient: deque[object] = deque()
        self._holder: object | None = None

    @property
    def wanted(self) -> bool:
        """Whether somebody waits who goes before the patient; asked by one of those while it holds the lock."""
        with self._changed:
            return len(self._queue) > 0

    @contextlib.contextmanager
    def hold(self, cancel: Event, patient: bool = False, caller: str = "") -> Iterator[bool]:
        """Wait for the turn; gives ``False`` when ``cancel`` was set first.

        Args:
            patient: let everybody go first who is not.
            caller: for whom. Those of one caller are served in the order of arrival.
        """
        ticket = object()
        with self._changed:
            if patient:
                self._patient.append(ticket)
            else:
                self._queue.push(caller, ticket)
        try:
            with self._changed:
                while not self._is_next(ticket) and not cancel.is_set():
                    self._changed.wait(0.05)  # an Event of the caller cannot wake this up
                held = self._is_next(ticket) and not cancel.is_set()
                if held:
                    self._holder = ticket
                    if not patient:
                        self._queue.take(caller, ticket)
            yield held
        finally:
            with self._changed:
                if patient:
                    self._patient.remove(ticket)
                elif self._holder is not ticket:
                    self._queue.remove(caller, ticket)
                if self._holder is ticket:
                    self._holder = None
                self._changed.notify_all()

    def _is_next(self, ticket: object) -> bool:
        first = self._queue.first() if len(self._queue) else self._patient[0]
        return self._holder is None and first is ticket
