"""How well a score of lines finds those that were found wanting: ROC-AUC, pooled and within pull requests.

Pooled, a line of one pull request is compared with those of all others, so that a score which only knows careless pull
requests from careful ones looks good; within, only lines of the same pull request are compared, each pull request with
both kinds of line counting the same. Intervals are 95 %, from a bootstrap over pull requests (Efron, 1979); a gain over
base surprisal is paired, on the same draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inhouse_server.review.line_scores import (
    BASE_SURPRISAL,
    RANDOM,
    SCORES,
    Floats,
    LineTokens,
    random_scores,
    score_lines,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RESAMPLES = 1_000
LEAST_REQUESTS = 200
"""Pull requests with both kinds of line, below which nothing is decided."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, eq=False, slots=True)
class ScoredLines:
    """Lines with their scores.

    Attributes:
        requests: number of the pull request of each line, from 0.
        wanting: whether the line was found wanting.
        values: name of the score -> one value a line.
    """

    requests: NDArray[np.int64]
    wanting: NDArray[np.bool_]
    values: dict[str, Floats]

    @property
    def with_both(self) -> int:
        """Pull requests with both kinds of line."""
        bad, good = (set(self.requests[kind].tolist()) for kind in (self.wanting, ~self.wanting))
        return len(bad & good)


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """How well one score does.

    Attributes:
        pooled, within: ROC-AUC.
        pooled_gain, within_gain: how much above base surprisal.
    """

    score: str
    pooled: Interval
    within: Interval
    pooled_gain: Interval
    within_gain: Interval

    @property
    def beats_base(self) -> bool:
        """Whether both gains lie above 0 with their whole intervals."""
        return self.pooled_gain.low > 0 and self.within_gain.low > 0


@dataclass(frozen=True, slots=True)
class LineEvaluation:
    """The table of one repository, or of several taken together."""

    requests: int
    with_both: int
    lines: int
    wanting: int
    results: tuple[ScoreResult, ...]

    def result(self, score: str) -> ScoreResult:
        """The row of a score."""
        return next(result for result in self.results if result.score == score)

    def to_json(self) -> dict[str, Any]:
        """For ``--json`` and result files."""
        return plain_json(self)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the house score may be shown.

    Attributes:
        score: the one that was chosen, before the repositories that decide were looked at.
        reason: one sentence.
    """

    on: bool
    score: str
    reason: str


def scored_lines(lines: Sequence[LineTokens], requests: Sequence[int], wanting: Sequence[bool]) -> ScoredLines:
    """Every score of :data:`SCORES` of these lines, and random numbers."""
    numbers = np.array(requests, dtype=np.int64)
    values = {score.name: score_lines(score, lines, numbers) for score in SCORES}
    values[RANDOM] = random_scores(len(lines))
    return ScoredLines(numbers, np.array(wanting, dtype=bool), values)


def together(parts: Sequence[ScoredLines]) -> ScoredLines:
    """Several repositories as one. Scores become their share of the repository's lines that lie below, as the
    calibration makes them, since the scales of two adapters are not the same."""
    requests: list[NDArray[np.int64]] = []
    offset = 0
    for part in parts:
        requests.append(part.requests + offset)
        offset += int(part.requests.max(initial=-1)) + 1
    names = list(parts[0].values)
    values = {name: np.concatenate([_share_below(part.values[name]) for part in parts]) for name in names}
    return ScoredLines(np.concatenate(requests), np.concatenate([part.wanting for part in parts]), values)


def roc_auc(values: Floats, wanting: NDArray[np.bool_]) -> float:
    """The chance that a line found wanting scores higher than one that was not, a tie counting half; ``nan`` when there
    is only one kind."""
    pairs, bad, good = _pairs(values, wanting, np.zeros(len(values), dtype=np.intp), 1)
    return float(pairs[0, 0] / (bad[0] * good[0])) if bad[0] and good[0] else float("nan")


def evaluate_scores(lines: ScoredLines, resamples: int = RESAMPLES) -> LineEvaluation:
    """The table: every score, with intervals, and its gain over base surprisal on the same draws."""
    requests = np.unique(lines.requests)
    draws = _draws(len(requests), resamples)
    position = np.searchsorted(requests, lines.requests)
    found = {name: _measure(values, lines.wanting, position, draws) for name, values in lines.values.items()}
    base = found[BASE_SURPRISAL]
    results = [
        ScoreResult(
            name,
            interval_of(pooled),
            interval_of(within),
            interval_of(pooled - base[0]),
            interval_of(within - base[1]),
        )
        for name, (pooled, within) in found.items()
    ]
    return LineEvaluation(len(requests), lines.with_both, len(lines.wanting), int(lines.wanting.sum()), tuple(results))


def choose(selection: LineEvaluation) -> str:
    """The score whose smaller gain over base surprisal, pooled or within, is largest where scores are selected."""
    could_be = {score.name for score in SCORES if score.house}

    def gain(result: ScoreResult) -> float:
        return min(result.pooled_gain.mean, result.within_gain.mean)

    return max((result for result in selection.results if result.score in could_be), key=gain).score


def decide(score: str, report: LineEvaluation) -> Decision:
    """On only where the chosen score is above base surprisal, interval above 0, on enough pull requests it was not
    chosen on."""
    if report.with_both < LEAST_REQUESTS:
        reason = f"{report.with_both} pull requests have both kinds of line, and {LEAST_REQUESTS} are needed to decide."
        return Decision(False, score, reason)
    result = report.result(score)
    told = ", ".join(
        f"{where} {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
        for where, gain in (("pooled", result.pooled_gain), ("within pull requests", result.within_gain))
    )
    if not result.beats_base:
        return Decision(False, score, f"“{score}” is not above base surprisal beyond chance: {told}.")
    return Decision(True, score, f"“{score}” is above base surprisal: {told}.")


def table(evaluation: LineEvaluation) -> list[list[str]]:
    """The rows to print, a heading first."""

    def shown(interval: Interval, sign: str = "") -> str:
        if math.isnan(interval.mean):
            return "no case"
        return f"{interval.mean:{sign}.3f} ({interval.low:{sign}.3f} to {interval.high:{sign}.3f})"

    rows = [["score", "ROC-AUC pooled", "within pull requests", "over base surprisal, pooled", "within"]]
    for result in evaluation.results:
        gains = [shown(result.pooled_gain, "+"), shown(result.within_gain, "+")]
        same = result.score == BASE_SURPRISAL
        rows.append([result.score, shown(result.pooled), shown(result.within), *(["", ""] if same else gains)])
    return rows


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def by_repository(evaluations: Mapping[str, LineEvaluation], score: str) -> list[list[str]]:
    """One row for each repository: base surprisal beside a score."""
    rows = [
        ["repository", "pull requests with both", "lines, wanting", "base pooled / within", f"{score} pooled / within"]
    ]
    for name, evaluation in evaluations.items():
        cells = [
            f"{result.pooled.mean:.3f} / {result.within.mean:.3f}"
            for result in (evaluation.result(BASE_SURPRISAL), evaluation.result(score))
        ]
        rows.append([name, str(evaluation.with_both), f"{evaluation.lines}, {evaluation.wanting}", *cells])
    return rows


def plain_json(figures: DataclassInstance) -> dict[str, Any]:
    """A dataclass of figures as JSON has them: what is no number, for want of cases, is ``null``."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    found: dict[str, Any] = plain(asdict(figures))
    return found


def _pairs(
    values: Floats, wanting: NDArray[np.bool_], requests: NDArray[np.intp], count: int
) -> tuple[Floats, Floats, Floats]:
    """``(pairs, bad, good)``: how many lines of either kind each request has, and in ``pairs[i, j]`` how often one of
    request i that was found wanting scores above one of request j that was not, a tie counting half."""
    bad, good = (np.bincount(requests[kind], minlength=count).astype(float) for kind in (wanting, ~wanting))
    rank = np.unique(values, return_inverse=True)[1].astype(np.int64)
    step = len(values) + 1  # so that the lines of one request lie together, by rank
    others = np.sort(requests[~wanting] * step + rank[~wanting])
    asked = np.arange(count) * step + rank[wanting][:, None]
    below, up_to = (np.searchsorted(others, asked, side=side) for side in ("left", "right"))
    before = np.concatenate([[0], np.cumsum(good)[:-1]])
    pairs = np.zeros((count, count))
    np.add.at(pairs, requests[wanting], (below + up_to) / 2 - before)
    return pairs, bad, good


def _measure(
    values: Floats, wanting: NDArray[np.bool_], requests: NDArray[np.intp], draws: Floats
) -> tuple[Floats, Floats]:
    """``(pooled, within)``: the figure of all pull requests first, then of each draw."""
    pairs, bad, good = _pairs(values, wanting, requests, draws.shape[1])
    both = (bad > 0) & (good > 0)
    each = np.diagonal(pairs)[both] / (bad * good)[both]
    with np.errstate(invalid="ignore"):
        pooled = ((draws @ pairs) * draws).sum(axis=1) / ((draws @ bad) * (draws @ good))
        within = draws[:, both] @ each / draws[:, both].sum(axis=1)
    return pooled, within


def _draws(requests: int, resamples: int) -> Floats:
    """How often each pull request counts: once each in the first row, then as drawn. The same draws every time."""
    random = np.random.default_rng(3407)
    drawn = (
        random.multinomial(requests, np.full(requests, 1 / requests), size=resamples) if requests else np.zeros((0, 0))
    )
    return np.vstack([np.ones(requests), drawn]).astype(float)


def interval_of(values: Floats) -> Interval:
    """The first value, and what lies between the 2.5th and the 97.5th percentile of the others."""
    known = values[1:][~np.isnan(values[1:])]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (float("nan"), float("nan"))
    return Interval(float(values[0]), float(low), float(high))


def _share_below(values: Floats) -> Floats:
    """For each value the share of all that lie below, equal ones counting half."""
    ordered = np.sort(values)
    below, up_to = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return (below + up_to) / (2 * max(len(values), 1))
