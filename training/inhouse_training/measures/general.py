"""What was forgotten: likelihood of general English and code, by the texts that the gate also reads.

There are few of them, so the bootstrap draws blocks of tokens; each is scored with all of its text before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..engine import RowScore, ScoredRow
from ..evaluation import CLOSED_BOOK, forgetting_row
from ..forgetting_texts import FORGETTING_TEXTS
from ..prompts import IGNORED
from . import Likelihood
from .later_texts import scored_bytes
from .recall import TokenScorer

BLOCK_TOKENS = 32
"""About a sentence or two lines."""


def general_likelihoods(engine: TokenScorer, tokenizer: Any, adapters: Mapping[str, str]) -> list[Likelihood]:
    """One for each kind of general text; its items are blocks of :data:`BLOCK_TOKENS` tokens.

    Raises:
        InhouseError: an adapter cannot be loaded.
    """
    found = []
    for kind, texts in FORGETTING_TEXTS.items():
        rows = [forgetting_row(tokenizer, text) for text in texts]
        sizes = tuple(size for row in rows for size in _block_bytes(tokenizer, row))
        scores = {}
        for label, adapter in adapters.items():
            nats = (each.nats.tolist() for each in engine.score_tokens(rows, adapter))
            scores[label] = tuple(RowScore(sum(block), len(block)) for row in nats for block in _blocks(row))
        found.append(Likelihood(f"general_{kind.lower()}", sizes, {CLOSED_BOOK: scores}))
    return found


def _block_bytes(tokenizer: Any, row: ScoredRow) -> Iterator[int]:
    # The first token of a row is not scored: nothing stands before it.
    for block in _blocks(row.labels[1:]):
        yield scored_bytes(tokenizer, ScoredRow((IGNORED, *block), (IGNORED, *block)))


def _blocks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), BLOCK_TOKENS):
        yield values[start : start + BLOCK_TOKENS]
