"""The golden record of a version: what it thinks of fixed texts, token by token.

Another program that loads the version is asked about the same tokens. It must agree, as a wrong scale, a wrong order
of rows or an adapter that was left out gives text that still looks like an answer. Likelihoods of given tokens are
compared and no generated text: a rounding in one step changes every word after it.

The record lies beside the weights as ``golden.json``. It is no part of the version's name: the same weights give
slightly other figures on another device.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from inhouse_retrieval import InhouseError, StateUnwritable

from .engine import BASE, ScoredRow
from .evaluation import forgetting_row
from .forgetting_texts import FORGETTING_TEXTS
from .registry import Registry

GOLDEN_NAME = "golden.json"
TOKENS_PER_TEXT = 128

Nats = tuple[float, ...]
"""Negative log-likelihood of each token of a text after its first."""


@dataclass(frozen=True, slots=True)
class Golden:
    """What a version and its base model think of fixed texts.

    Attributes:
        version: the adapter.
        base_model: name of the base, for messages.
        ids: the token ids of each text.
        base, adapter: nats of each text's tokens after the first, without and with the adapter.
    """

    version: str
    base_model: str
    ids: tuple[tuple[int, ...], ...]
    base: tuple[Nats, ...]
    adapter: tuple[Nats, ...]

    @property
    def effect(self) -> float:
        """How far the adapter moves the base, as :func:`distance` measures it."""
        return distance(self.base, self.adapter)


class TokenScorer(Protocol):
    """An engine that tells what it thinks of single tokens."""

    @property
    def base_model(self) -> str:
        """Name of the base model."""

    def score_tokens(self, rows: Sequence[ScoredRow], adapter: str = BASE) -> list[Any]:
        """For each row something with ``nats``, one figure for each labelled token."""


def distance(one: Sequence[Nats], other: Sequence[Nats]) -> float:
    """Mean absolute difference in nats per token; differences of both signs do not cancel.

    Infinite when the two are not about the same tokens.
    """
    if [len(row) for row in one] != [len(row) for row in other]:
        return float("inf")
    apart = [abs(a - b) for row, against in zip(one, other, strict=True) for a, b in zip(row, against, strict=True)]
    return sum(apart) / len(apart) if apart else float("inf")


def make_golden(engine: TokenScorer, tokenizer: Any, version: str) -> Golden:
    """Score the fixed texts with the version's base and with the version."""
    texts = [text for texts in FORGETTING_TEXTS.values() for text in texts]
    ids = [forgetting_row(tokenizer, text).input_ids[:TOKENS_PER_TEXT] for text in texts]
    rows = [ScoredRow(each, each) for each in ids]

    def nats(adapter: str) -> tuple[Nats, ...]:
        return tuple(tuple(round(float(each), 5) for each in row.nats) for row in engine.score_tokens(rows, adapter))

    return Golden(version, engine.base_model, tuple(ids), nats(BASE), nats(version))


def keep_golden(registry: Registry, golden: Golden) -> None:
    """Write the record beside the version's weights, in one step.

    Raises:
        InhouseError: there is no such version.
        StateUnwritable: the folder cannot be written.
    """
    folder = registry.get(golden.version).path
    partial = folder / f".{GOLDEN_NAME}.{os.getpid()}"
    try:
        partial.write_text(json.dumps(asdict(golden)) + "\n", encoding="utf-8")
        partial.replace(folder / GOLDEN_NAME)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise StateUnwritable(
            f"The golden record of {golden.version} cannot be written: {error.strerror or error}.",
            "Free some space, or make the folder of the adapters writable.",
        ) from error


def read_golden(registry: Registry, version: str) -> Golden:
    """The record of a version.

    Raises:
        InhouseError: it has none, or one that cannot be read.
    """
    remedy = f"Make it with `inhouse adapters golden {version}` where the base model is."
    try:
        stored = json.loads((registry.get(version).path / GOLDEN_NAME).read_text(encoding="utf-8"))
        ids = tuple(tuple(int(each) for each in row) for row in stored["ids"])
        base, adapter = (
            tuple(tuple(float(each) for each in row) for row in stored[key]) for key in ("base", "adapter")
        )
        golden = Golden(str(stored["version"]), str(stored["base_model"]), ids, base, adapter)
    except FileNotFoundError:
        raise InhouseError(f"The version {version} has no golden record to check servers by.", remedy) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InhouseError(f"The golden record of {version} cannot be read: {error}.", remedy) from error
    if golden.version != version:
        raise InhouseError(f"The golden record of {version} is that of {golden.version}.", remedy)
    return golden
