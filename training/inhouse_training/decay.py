"""How an adapter ages: its score on later changes against the days since the snapshot that it learned.

The held-out changes lie at different distances from the snapshot. Binned by that distance they show whether what was
learned of the repository is worth less for a change of next month than for one of tomorrow. Changes differ in
difficulty, so the gain over the base model on the same changes says more than the likelihood, which is given too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from .cut import Cut
from .engine import BASE, RowScore
from .evaluation import CANDIDATE, Evaluation, Interval, paired_gain

LEAST_CHANGES = 20
"""Fewer say nothing about a trend, and nothing is said."""
LEAST_DAYS = 2
"""Changes that all lie within so many days show no course of time, and reports leave the curve out."""
_BIN_CHANGES = 5
"""A bin holds this many at least."""
_MOST_BINS = 6
_RESAMPLES = 4000
_SEED = 3407


@dataclass(frozen=True, slots=True)
class DecayBin:
    """Changes that landed ``first_day`` to ``last_day`` days after the snapshot.

    Attributes:
        gain: over the base model, in nats per token.
        loss: of the adapter, in nats per token.
    """

    first_day: float
    last_day: float
    changes: int
    gain: Interval
    loss: Interval


@dataclass(frozen=True, slots=True)
class Decay:
    """A decay curve.

    Attributes:
        mode: how the changes were asked for, as in the evaluation.
        bins: by age.
        slope: by how much the gain changes in a day, in nats per token; ``None`` for too few changes.
        advice: how often to retrain, as a sentence; empty for too few changes.
    """

    mode: str
    bins: tuple[DecayBin, ...]
    slope: Interval | None
    advice: str

    @property
    def shown(self) -> bool:
        """Whether there is a course of time to show: bins that reach over more than :data:`LEAST_DAYS` days."""
        return bool(self.bins) and self.bins[-1].last_day - self.bins[0].first_day > LEAST_DAYS

    def to_json(self) -> dict[str, Any]:
        """For metrics; numbers are rounded."""
        rounded: dict[str, Any] = _rounded(asdict(self))
        return rounded

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> Decay:
        """What :meth:`to_json` gave."""
        bins = tuple(
            DecayBin(**{**each, "gain": Interval(**each["gain"]), "loss": Interval(**each["loss"])})
            for each in stored["bins"]
        )
        slope = Interval(**stored["slope"]) if stored["slope"] else None
        return Decay(stored["mode"], bins, slope, stored["advice"])


def days_since(cut: Cut, moment: datetime | None = None) -> dict[str, float]:
    """Commit of each held-out change -> days from ``moment``, or from the snapshot, until it landed.

    A change without a date has none here. One that claims to be older than the snapshot counts as of its day.
    """
    start = moment or cut.as_of
    return {
        change.commit: max(0.0, (change.merged_at - start).total_seconds() / 86_400)
        for change in cut.held_out
        if change.merged_at is not None
    }


def measure_decay(evaluation: Evaluation, days: Mapping[str, float]) -> Decay:
    """The decay curve of the candidate in the way that the product answers.

    Args:
        days: commit -> days since the candidate's snapshot; changes that it does not name are left out.
    """
    mode = evaluation.served_mode
    base, candidate = evaluation.scores[mode][BASE], evaluation.scores[mode][CANDIDATE]
    known = sorted((days[commit], at) for at, commit in enumerate(evaluation.changes) if commit in days)
    ages = [age for age, _ in known]
    before, after = ([scores[at] for _, at in known] for scores in (base, candidate))
    bins = []
    for start, end in _bins(len(known)):
        old, new = before[start:end], after[start:end]
        bins.append(DecayBin(ages[start], ages[end - 1], end - start, paired_gain(old, new), _loss(new)))
    if len(known) < LEAST_CHANGES or ages[-1] - ages[0] < 1:
        return Decay(mode, tuple(bins), None, "")
    slope = gain_slope(ages, before, after)
    return Decay(mode, tuple(bins), slope, _advice(slope, paired_gain(before, after), ages))


def _bins(count: int) -> list[tuple[int, int]]:
    """Slices of equally many changes, oldest first."""
    number = min(_MOST_BINS, count // _BIN_CHANGES)
    edges = [count * at // number for at in range(number + 1)] if number else []
    return list(pairwise(edges))


def _loss(scores: Sequence[RowScore]) -> Interval:
    return paired_gain(scores, [RowScore(0.0, score.tokens) for score in scores])


def gain_slope(days: Sequence[float], before: Sequence[RowScore], after: Sequence[RowScore]) -> Interval:
    """The slope of the gain per token over the days: least squares weighted by tokens, bootstrap over changes."""
    import numpy

    tokens = numpy.array([score.tokens for score in after], dtype=float)
    saved = numpy.array([old.nats - new.nats for old, new in zip(before, after, strict=True)]) / tokens
    draws = numpy.random.default_rng(_SEED).integers(0, len(tokens), size=(_RESAMPLES, len(tokens)))

    def slope(chosen: Any) -> Any:
        weights, x, y = tokens[chosen], numpy.asarray(days)[chosen], saved[chosen]
        total = weights.sum(axis=-1, keepdims=True)
        x = x - (weights * x).sum(axis=-1, keepdims=True) / total
        spread = (weights * x * x).sum(axis=-1)
        # A resample in which all changes are of one moment has no slope.
        return (weights * x * y).sum(axis=-1) / numpy.where(spread > 0, spread, numpy.nan)

    low, high = numpy.nanpercentile(slope(draws), [2.5, 97.5])
    return Interval(float(slope(numpy.arange(len(tokens)))), float(low), float(high))


def _advice(slope: Interval, gain: Interval, days: Sequence[float]) -> str:
    """How often to retrain. A trend is believed only when its whole interval is below zero."""
    span = f"{len(days)} changes of {days[0]:.0f} to {days[-1]:.0f} days after the snapshot"
    if gain.low <= 0:
        return f"No gain over the base model is sure on {span}, so there is nothing that could decay."
    if slope.high >= 0:
        return (
            f"No decay is sure over {span}: by these, retraining more often than every {days[-1]:.0f} days is not "
            "called for."
        )
    monthly = -30 * slope.mean
    first = gain.mean - slope.mean * (sum(days) / len(days) - days[0])
    half = days[0] - first / 2 / slope.mean
    told = f"The gain falls by {monthly:.3f} nats per token in 30 days, measured on {span}"
    if half <= days[-1]:
        return f"{told}: half of it is gone after {half:.0f} days, so retrain at least that often."
    return f"{told}: half of it was still there at the end, so retraining every {days[-1]:.0f} days is enough."


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value
