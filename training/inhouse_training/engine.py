"""The protocol that every engine speaks: stream, cancel, score.

It lives in the training package because a model must be trained, evaluated and served on identical tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Literal, Protocol

Role = Literal["system", "user", "assistant"]
BASE = "base"
"""The adapter name that stands for the base model without an adapter."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


def _untold() -> None:
    """Where nobody wants to know when a request begins."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What to generate.

    Attributes:
        adapter: an adapter version, or :data:`BASE`.
        max_tokens: new tokens at most.
        temperature: 0 is greedy decoding, the default, as in the article.
        schema: a JSON schema that the text must follow, as JSON text; empty for free text.
        caller: who asks. Where requests wait for a model of this process, those of all callers begin in turn.
        begun: called once, in any thread, when such a request waits no more; it must return at once.
    """

    messages: tuple[Message, ...]
    adapter: str = BASE
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    schema: str = ""
    caller: str = ""
    begun: Callable[[], None] = _untold


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a stream.

    Attributes:
        reason: ``"stop"`` (the model ended its turn), ``"length"`` (``max_tokens`` reached) or ``"cancelled"``.
    """

    reason: Literal["stop", "length", "cancelled"]
    prompt_tokens: int
    completion_tokens: int


GenerationEvent = TextDelta | Finished


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """Token ids and labels of equal length; label -100 is not scored. Position i predicts token i + 1."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RowScore:
    """Sum of negative log-likelihood in nats over ``tokens`` scored tokens."""

    nats: float
    tokens: int


class Engine(Protocol):
    """A loaded base model with any number of adapters. Methods may be called from any thread."""

    @property
    def base_model(self) -> str:
        """Name of the base model, as provenance shows it."""

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus answer, in tokens."""

    @property
    def loaded_adapters(self) -> tuple[str, ...]:
        """Versions that are in memory in this process, and may be read again from their folders."""

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens that these messages take once rendered with the chat template and the generation prompt."""

    def stream(self, request: GenerationRequest, cancel: Event) -> Iterator[GenerationEvent]:
        """Generate; ends with exactly one :class:`Finished`. Setting ``cancel`` stops within one token.

        Raises:
            InhouseError: the adapter is unknown or corrupt, or the prompt does not fit the context.
        """

    def score(self, rows: Sequence[ScoredRow], adapter: str = BASE) -> list[RowScore]:
        """Negative log-likelihood of each row's labelled tokens, in the order given.

        Raises:
            InhouseError: this engine cannot score (a remote server, say).
        """
