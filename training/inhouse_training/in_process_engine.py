"""What the engines of this process have in common: whose turn it is, and how one answer is decoded by itself.

Engines that make answers together decode in :mod:`~inhouse_training.batching.scheduler` instead. One loop does the
decoding, since three promises need its inside: a cancelled answer stops within one token (or one block of the prompt),
an answer ends on the adapter that it began with, and memory stays bounded (logits only where they are read). Greedy
answers copy from the prompt by prompt-lookup decoding, which pays on code.
"""

from __future__ import annotations

from . import lean as lean  # first: it decides what transformers takes along

# isort: split
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any, Literal, Protocol

import torch

from inhouse_retrieval import InhouseError

from .base_model import BaseModel, load_tokenizer
from .decoding import Constrained, Drafts, FairLock, Sampler, TextStream, likeliest
from .devices import HeldMemory
from .engine import BASE, Finished, GenerationEvent, GenerationRequest, Message, RowScore, ScoredRow, TextDelta
from .fill_in import FillIn, fill_in_ids, fill_in_tokens
from .prompts import chat_ids, end_of_turn_ids, literal_ids, raw_row
from .weights import Weights

PREFILL_BLOCK = 512
"""Prompt tokens per forward pass: cancellation is looked at in between, and attention scratch space stays
small."""
SHORTEST_PREFIX = 16
"""Tokens that a prompt must have in common with the conversation before, for what was read of it to be used again."""


class Conversation(Protocol):
    """What a model has read, and keeps of it.

    Attributes:
        read: the tokens, in order.
        can_forget: whether the last ones can be taken back, and the rest be used again.
    """

    read: list[int]
    can_forget: bool

    def forward(self, ids: list[int], keep: int) -> torch.Tensor:
        """Read ``ids``; logits [keep, vocabulary] of what follows the last ``keep`` of them."""

    def forget(self, count: int) -> None:
        """Take the last ``count`` tokens back."""


class InProcessEngine(ABC):
    """The part of :class:`~inhouse_training.engine.Engine` that does not depend on what computes.

    Args:
        base: a resolved base model.
        adapters: gives the verified folder of an adapter version, or raises InhouseError;
            ``Registry.verify`` is one.
    """

    def __init__(self, base: BaseModel, adapters: Callable[[str], Path]) -> None:
        self._base = base
        self._adapters = adapters
        self._tokenizer = load_tokenizer(base)
        self._turn = FairLock()
        self._ends = end_of_turn_ids(self._tokenizer)
        self._kept: tuple[str, Conversation] | None = None  # adapter and conversation of the last answer

    @property
    def base_model(self) -> str:
        return self._base.name

    @property
    @abstractmethod
    def weights(self) -> Weights:
        """In how many bits those of the base model are held."""

    @property
    @abstractmethod
    def context_tokens(self) -> int: ...

    @property
    def streams(self) -> int:
        """Answers that are made at once."""
        return 1

    @property
    @abstractmethod
    def loaded_adapters(self) -> tuple[str, ...]: ...

    @abstractmethod
    def held_memory(self) -> HeldMemory:
        """What this process holds of the device that the model is on; waits for the answer under way."""

    @abstractmethod
    def close(self) -> None:
        """Give all memory back, once the answer under way has ended. Nothing may be asked afterwards."""

    @abstractmethod
    def score(self, rows: Sequence[ScoredRow], adapter: str = BASE) -> list[RowScore]:
        """Negative log-likelihood of labelled tokens; see the protocol. Answers may be given between two
        batches."""

    def prepare(self, adapter: str) -> None:
        """Have what answers with this adapter ready, so that the first question does not wait for it.

        Raises:
            InhouseError: the adapter is unknown or corrupt.
        """
        with self._turn.hold(Event()):
            self._activate(adapter)

    # What follows is called with the turn held.

    @abstractmethod
    def _activate(self, adapter: str) -> None:
        """Make what is read from now on be read with this adapter, or raise InhouseError."""

    @abstractmethod
    def _new_conversation(self) -> Conversation:
        """One in which nothing has been read, with the adapter that is active."""

    @property
    @abstractmethod
    def _device(self) -> torch.device:
        """Where logits are."""

    def _check_lengths(self, rows: Sequence[ScoredRow]) -> None:
        """Refuse rows that the model cannot read whole."""
        longest = max((len(row.input_ids) for row in rows), default=0)
        if longest > self.context_tokens:
            raise InhouseError(
                f"A row of {longest} tokens is longer than the {self.context_tokens} that {self._base.name} reads.",
                "Cut the rows shorter.",
            )

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

    # ------------------------------------------------------------------------------------------------------
    # Decoding. The caller holds the turn.

    def _tokens(
        self, prompt: list[int], request: GenerationRequest, limit: int, cancel: Event
    ) -> Generator[int, None, None]:
        """At most ``limit`` new token ids, the end token included; ends early when cancelled."""
        conversation = self._begin(prompt, request.adapter)
        read = conversation.read
        own = self._chooser(request)
        choose = own or likeliest
        # A copied token would have to be checked against the schema before it is known to be chosen.
        drafts = Drafts(prompt) if own is None and conversation.can_forget else None
        try:
            logits = torch.empty(0)
            while len(read) < len(prompt):
                if cancel.is_set():
                    return
                logits = conversation.forward(prompt[len(read) : len(read) + PREFILL_BLOCK], 1)
            token = choose(logits)[0]
            made = 0
            while True:
                yield token
                made += 1
                if made >= limit or cancel.is_set():
                    return
                # Leave room: what is copied must not run over the limit.
                draft = drafts.propose(token, limit - made - 1) if drafts else []
                chosen = choose(conversation.forward([token, *draft], len(draft) + 1))
                agreed = drafts.checked(draft, chosen) if drafts else 0
                if agreed < len(draft):
                    conversation.forget(len(draft) - agreed)
                for copied in draft[:agreed]:
                    yield copied
                    made += 1
                    if cancel.is_set():
                        return
                token = chosen[agreed]
        finally:
            if conversation.can_forget and read:
                self._kept = (request.adapter, conversation)

    def _begin(self, prompt: list[int], adapter: str) -> Conversation:
        """A conversation in which a beginning of ``prompt`` has been read already, or nothing; that of the last answer
        is used up.

        At least one token is left to be read: what follows it comes from the forward pass.
        """
        kept, self._kept = self._kept, None
        if kept and kept[0] == adapter:
            read = kept[1].read
            pairs = zip(read, prompt[:-1], strict=False)
            same = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(read), len(prompt) - 1))
            if same >= SHORTEST_PREFIX:
                if same < len(read):
                    kept[1].forget(len(read) - same)
                return kept[1]
        return self._new_conversation()

    def forget(self) -> None:
        """Read the next prompt from its beginning, whatever it has in common with the last one."""
        with self._turn.hold(Event()):
            self._kept = None

    def _chooser(self, request: GenerationRequest) -> Callable[[torch.Tensor], list[int]] | None:
        """How this request chooses tokens, where it is not just the likeliest ones."""
        sampler = Sampler(request, self._device) if request.temperature > 0 else None
        return Constrained(self._tokenizer, request.schema, sampler or likeliest) if request.schema else sampler


class _OrWanted(Event):
    """Set when another event is, or while somebody waits who goes first; only :meth:`is_set` is asked."""

    def __init__(self, cancel: Event, turn: FairLock) -> None:
        super().__init__()
        self._cancel = cancel
        self._turn = turn

    def is_set(self) -> bool:
        return self._cancel.is_set() or self._turn.wanted


def generation_ends(settings: Any) -> frozenset[int]:
    """End tokens that a model's generation settings name beside the tokenizer's."""
    ends = getattr(settings, "eos_token_id", None)
    return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])
