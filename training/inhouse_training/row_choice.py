"""Which rows are trained on, and in which order: shares, the token budget, and what is kept for validation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .kinds import Kind
from .recipe import DataSettings
from .synthesis.rows import over_share

CONVERSATIONS: tuple[Kind, ...] = ("conversation", "written", "qa")
"""Kinds of rows that the article counts among its conversations."""
_OVER_SHARE = "over its share of the learned tokens"
_OVER_BUDGET = "over the recipe's token budget"


@dataclass(slots=True)
class Candidate:
    """A row that could be trained on.

    Attributes:
        tokens: of the whole row.
        learned_tokens: of those, the ones with a label.
        source_tokens: of the text that was read for it.
        order: a hash by which rows are shuffled.
    """

    kind: Kind
    name: str
    part: int
    tokens: int
    learned_tokens: int
    source_tokens: int
    order: bytes


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen.

    Attributes:
        order: indices of the rows to train on, shuffled.
        dropped: indices of the others, each with its reason.
        validation: indices of the conversations that would have come last, in that order.
    """

    order: tuple[int, ...]
    dropped: tuple[tuple[int, str], ...]
    validation: tuple[int, ...] = ()


def choose_rows(candidates: Sequence[Candidate], data: DataSettings) -> Choice:
    """The rows within the shares and the token budget of a recipe; the draw depends on the seed alone."""
    shares = data.shares
    dropped = [(index, "switched off in the recipe") for index, row in enumerate(candidates) if not shares[row.kind]]
    wanted = [index for index, row in enumerate(candidates) if shares[row.kind]]
    order = sorted(wanted, key=lambda index: candidates[index].order)
    over = _over_share(candidates, order, data)
    dropped += [(index, _OVER_SHARE) for index in over]
    order = [index for index in order if index not in over]
    if data.max_train_tokens and sum(candidates[index].tokens for index in order) > data.max_train_tokens:
        chosen, over = _within_budget(candidates, order, data)
        dropped += [(index, _OVER_SHARE) for index in sorted(over)]
        dropped += [(index, _OVER_BUDGET) for index in sorted(order) if index not in chosen and index not in over]
        order = [index for index in order if index in chosen]
    conversations = [index for index in order if candidates[index].kind in CONVERSATIONS]
    kept = math.ceil(data.validation_conversations * len(conversations))
    validation = tuple(conversations[len(conversations) - kept :])
    held = set(validation)
    return Choice(tuple(index for index in order if index not in held), tuple(dropped), validation)


def _over_share(candidates: Sequence[Candidate], order: Sequence[int], data: DataSettings) -> set[int]:
    learned = [(row.kind, row.learned_tokens) for row in map(candidates.__getitem__, order)]
    return {order[at] for at in over_share(learned, data.shares)}


def _within_budget(
    candidates: Sequence[Candidate], order: Sequence[int], data: DataSettings
) -> tuple[set[int], set[int]]:
    """What the budget has room for, and which synthetic rows would take more than their share of that."""
    over: set[int] = set()
    while True:
        chosen = _filled(candidates, [index for index in order if index not in over], data)
        more = _over_share(candidates, [index for index in order if index in chosen], data)
        if not more:
            return chosen, over
        over |= more


def _filled(candidates: Sequence[Candidate], order: Sequence[int], data: DataSettings) -> set[int]:
    """Rows of at most ``max_train_tokens`` tokens, of whose learned tokens each kind has its share.

    As water fills vessels that stand on the same floor, each as wide as its share: all kinds rise together, and one
    that has no more rows leaves its part to the others in proportion.
    """
    learned: Counter[Kind] = Counter()
    levels: dict[int, float] = {}
    for index in order:
        row = candidates[index]
        kind = data.counted_as(row.kind)
        learned[kind] += row.learned_tokens
        levels[index] = learned[kind] / data.shares[kind]
    chosen: set[int] = set()
    left = data.max_train_tokens
    for index in sorted(order, key=levels.__getitem__):
        if candidates[index].tokens <= left:
            left -= candidates[index].tokens
            chosen.add(index)
    return chosen
