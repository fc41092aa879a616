"""What a scheduler asks of whatever runs a model: pieces of prompts, and the next tokens of answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True, slots=True)
class Reading:
    """Tokens of one prompt that are read next; their last one is token ``done + len(ids)`` of the conversation.

    Attributes:
        start: where the conversation begins in the pool. adapter: its row in the stack.
        last: whether the prompt ends here.
    """

    ids: Sequence[int]
    done: int
    start: int
    adapter: int
    last: bool


@dataclass(frozen=True, slots=True)
class Writing:
    """One answer's next step.

    Attributes:
        token: what is read, or ``None`` when that is the token chosen for row ``source`` of the step before.
        done: tokens of the conversation so far. start, adapter: as in :class:`Reading`.
        draft: tokens that may follow ``token``, read with it.
    """

    token: int | None
    source: int
    done: int
    start: int
    adapter: int
    draft: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Chosen:
    """The likeliest tokens after a step, perhaps still being computed: one for each token that was read.

    Attributes:
        logits: [tokens read, vocabulary], until the next step.
    """

    logits: torch.Tensor
    _tokens: torch.Tensor
    _ready: Any

    def tokens(self) -> list[int]:
        """Waits until they are there."""
        if self._ready is not None:
            self._ready.synchronize()
        tokens: list[int] = self._tokens.tolist()
        return tokens


class Runs(Protocol):
    """Runs a model, or several, over a pool of keys and values. Belongs to whoever holds the engine's turn."""

    @property
    def ahead(self) -> bool:
        """Whether a step may begin before the tokens of the one before are known here."""

    def read(self, readings: Sequence[Reading]) -> torch.Tensor:
        """Read pieces of prompts. Logits of the next token of those that end here, in the order given."""

    def write(self, rows: Sequence[Writing]) -> Chosen:
        """One step of each answer, in ascending order of their start; returns once it is under way."""

    def copy(self, start: int, to: int, count: int) -> None:
        """Copy the keys and values of ``count`` tokens within the pool."""


class Versions(Protocol):
    """The versions that can be run at once. Belongs to whoever holds the engine's turn."""

    def has(self, version: str) -> bool:
        """Whether it is there; if so, it counts as asked for."""

    def can_add(self, in_use: Collection[str]) -> bool:
        """Whether there is room for one more beside those ``in_use``."""

    def row(self, version: str) -> int:
        """The number by which a token of the next step says that it is of this version."""
