"""What `inhouse eval model` measures beside what the gate decides by: more texts, and answers that are graded.

Everything compares the same adapters on the same items, each with and without retrieval. Nothing here is read by the
gate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from ..engine import RowScore
from ..evaluation import CANDIDATE, Interval, paired_gain, paired_rise

Item = TypeVar("Item")

LATER_FILES = "later_files"
LATER_CHANGES = "later_changes"
LATER_EDITS = "later_edits"
SHOWN_EDITS = "later_edits_of_shown_files"
ORACLE = "oracle"
"""A mode beside those of the evaluation: the prompt holds what a search that never misses would find."""
VALIDATION = "validation_conversations"

LEAST_ITEMS = 5
"""Of fewer a bootstrap gives intervals that are far too narrow: that of a single item has no width at all."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How well one kind of later text is predicted.

    Attributes:
        sizes: UTF-8 bytes of the scored text, by item.
        scores: mode -> adapter label -> one score per item.
    """

    kind: str
    sizes: tuple[int, ...]
    scores: Mapping[str, Mapping[str, tuple[RowScore, ...]]]

    def metrics(self) -> dict[str, Any]:
        """Nats per token and bits per byte of each adapter, and what the candidate gains in both, where there are
        :data:`LEAST_ITEMS`."""
        found: dict[str, Any] = {"items": len(self.sizes)}
        for mode, labels in self.scores.items():
            bytewise = {label: bits_by_byte(rows, self.sizes) for label, rows in labels.items()}
            found[mode] = {
                label: {"nats_per_token": _mean(rows), "bits_per_byte": _mean(bytewise[label])}
                for label, rows in labels.items()
            }
            found[mode]["gain"] = {
                f"over_{other}": {
                    "nats_per_token": rounded(paired_gain(labels[other], labels[CANDIDATE])),
                    "bits_per_byte": rounded(paired_gain(bytewise[other], bytewise[CANDIDATE])),
                }
                for other in labels
                if other != CANDIDATE and len(self.sizes) >= LEAST_ITEMS
            }
        return found


@dataclass(frozen=True, slots=True)
class Graded:
    """Grades of answers, 0 to 1.

    Attributes:
        grades: mode -> adapter label -> one grade per item.
        higher_is_better: whether a higher grade is the better one.
        span_shown: mode -> share of the prompts that held what the answer must quote.
    """

    name: str
    grades: Mapping[str, Mapping[str, Sequence[float]]]
    higher_is_better: bool = True
    span_shown: Mapping[str, float] = field(default_factory=dict)

    def metrics(self) -> dict[str, Any]:
        """The mean grade of each adapter, and how much higher the candidate's is."""
        found = _by_mode(self.grades, self.higher_is_better, _average, paired_difference)
        for mode, share in self.span_shown.items():
            found[mode]["span_in_prompt"] = round(share, 4)
        return found


@dataclass(frozen=True, slots=True)
class Shared:
    """Shares of what the answers hold: of all names that they speak of, say.

    Attributes:
        counts: mode -> adapter label -> for each item how many hits there are, and out of how many.
        higher_is_better: whether a higher share is the better one.
    """

    name: str
    counts: Mapping[str, Mapping[str, Sequence[tuple[int, int]]]]
    higher_is_better: bool

    def metrics(self) -> dict[str, Any]:
        """The share of each adapter, and how much higher the candidate's is."""
        return _by_mode(self.counts, self.higher_is_better, _share_of, paired_rise)


def _by_mode(
    modes: Mapping[str, Mapping[str, Sequence[Item]]],
    higher_is_better: bool,
    mean: Callable[[Sequence[Item]], float],
    difference: Callable[[Sequence[Item], Sequence[Item]], Interval],
) -> dict[str, Any]:
    found: dict[str, Any] = {"better": "higher" if higher_is_better else "lower"}
    for mode, labels in modes.items():
        items = len(labels[CANDIDATE])
        found[mode] = {label: round(mean(given), 4) if items else None for label, given in labels.items()}
        found[mode]["items"] = items
        found[mode]["difference"] = {
            f"to_{other}": rounded(difference(labels[other], labels[CANDIDATE]))
            for other in labels
            if other != CANDIDATE and items >= LEAST_ITEMS
        }
    return found


def _average(grades: Sequence[float]) -> float:
    return sum(grades) / len(grades)


def _share_of(counts: Sequence[tuple[int, int]]) -> float:
    return sum(hits for hits, _ in counts) / max(sum(of for _, of in counts), 1)


def bits_by_byte(scores: Sequence[RowScore], sizes: Sequence[int]) -> list[RowScore]:
    """The same likelihoods in bits, over bytes in place of tokens: comparable between tokenizers."""
    return [RowScore(score.nats / math.log(2), size) for score, size in zip(scores, sizes, strict=True)]


def paired_difference(before: Sequence[float], after: Sequence[float]) -> Interval:
    """How much higher ``after`` is than ``before`` on average, both on the same items: bootstrap over items."""
    # One token an item: the mean of grades is then the loss per token with its sign turned.
    return paired_gain([RowScore(-each, 1) for each in before], [RowScore(-each, 1) for each in after])


def rounded(interval: Interval) -> dict[str, float]:
    """For metrics."""
    return {name: round(value, 4) for name, value in asdict(interval).items()}


def _mean(scores: Sequence[RowScore]) -> float | None:
    """Per token or byte; ``None`` when there is nothing."""
    tokens = sum(score.tokens for score in scores)
    return round(sum(score.nats for score in scores) / tokens, 4) if tokens else None
