"""What `inhouse eval model` measures beside what the gate decides by: more texts, and answers that are graded.

Everything compares the same adapters on the same items, each with and without retrieval. Nothing here is read by the
gate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..engine import RowScore
from ..evaluation import CANDIDATE, Interval, paired_gain

LATER_FILES = "later_files"
LATER_CHANGES = "later_changes"
LATER_EDITS = "later_edits"


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
        """Nats per token and bits per byte of each adapter, and what the candidate gains in both."""
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
                if other != CANDIDATE and self.sizes
            }
        return found


@dataclass(frozen=True, slots=True)
class Graded:
    """Grades of answers, 0 to 1, higher is better unless the name says otherwise.

    Attributes:
        grades: mode -> adapter label -> one grade per item.
    """

    name: str
    grades: Mapping[str, Mapping[str, tuple[float, ...]]]

    def metrics(self) -> dict[str, Any]:
        """The mean grade of each adapter, and how much higher the candidate's is."""
        found: dict[str, Any] = {}
        for mode, labels in self.grades.items():
            items = len(next(iter(labels.values())))
            found["items"] = items
            found[mode] = {label: round(sum(grades) / items, 4) if items else None for label, grades in labels.items()}
            found[mode]["difference"] = {
                f"to_{other}": rounded(paired_difference(labels[other], labels[CANDIDATE]))
                for other in labels
                if other != CANDIDATE and items
            }
        return found


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
