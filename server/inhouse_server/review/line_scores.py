"""Scores of an added line by the base model and the tuned one: the higher, the more the line departs from the house.

Each is a small pure function of what the two models think of the line's tokens; :data:`SCORES` lists them all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from inhouse_training import BASE, LineRow, ScoredRow, TransformersEngine

Floats = NDArray[np.float64]
FOLDS = 5
NOTHING = -np.inf
"""The score of a line about which a score has nothing to say: below every other."""


@dataclass(frozen=True, eq=False, slots=True)
class LineTokens:
    """What both models think of the tokens of one line. Every array has one entry a token, nats throughout.

    Attributes:
        base, tuned: negative log-likelihood of what is written.
        base_margin, tuned_margin: how much likelier than that the tuned model's own choice is, by each model.
        base_below, tuned_below: as ``base`` and ``tuned``, where the file is read below precedents of the house.
        conventional: whether the token carries a convention.
    """

    base: Floats
    tuned: Floats
    base_margin: Floats
    tuned_margin: Floats
    base_below: Floats
    tuned_below: Floats
    conventional: NDArray[np.bool_]


def base_surprisal(line: LineTokens) -> float:
    """Mean over the line of the base model: what any model of code finds odd."""
    return float(line.base.mean())


def tuned_surprisal(line: LineTokens) -> float:
    """Mean over the line of the tuned model."""
    return float(line.tuned.mean())


def difference(line: LineTokens) -> float:
    """How much odder the tuned model finds the line than the base model does, on average."""
    return float((line.tuned - line.base).mean())


def largest_difference(line: LineTokens) -> float:
    """The same at the token where it is largest."""
    return float((line.tuned - line.base).max())


def tuned_margin(line: LineTokens) -> float:
    """How much likelier than what is written the tuned model finds its own choice, at the token where most."""
    return float(line.tuned_margin.max())


def house_margin(line: LineTokens) -> float:
    """The same less what the base model makes of that choice: a preference that came with tuning."""
    return float((line.tuned_margin - line.base_margin).max())


def base_below_precedents(line: LineTokens) -> float:
    """Mean over the line of the base model that has read precedents."""
    return float(line.base_below.mean())


def tuned_below_precedents(line: LineTokens) -> float:
    """Mean over the line of the tuned model that has read precedents."""
    return float(line.tuned_below.mean())


def precedents_difference(line: LineTokens) -> float:
    """How much odder the base model finds the line once it has read precedents, on average."""
    return float((line.base_below - line.base).mean())


def base_total(line: LineTokens) -> float:
    """Sum over the line of the base model: a control, base surprisal and length in one."""
    return float(line.base.sum())


def base_largest(line: LineTokens) -> float:
    """The base model at the token that it finds oddest: a control for the scores of a single token."""
    return float(line.base.max())


def tokens(line: LineTokens) -> float:
    """How long the line is: a control, since a long line has more to be changed."""
    return float(len(line.base))


def over_conventions(score: Callable[[LineTokens], float]) -> Callable[[LineTokens], float]:
    """``score`` of the tokens that carry a convention alone; a line without any has nothing to answer for."""

    def of(line: LineTokens) -> float:
        keep = line.conventional
        if not keep.any():
            return NOTHING
        return score(LineTokens(*(getattr(line, field.name)[keep] for field in fields(line))))

    return of


@dataclass(frozen=True, slots=True)
class Score:
    """One way to score a line.

    Attributes:
        of: the score itself.
        beyond: what is regressed out of it, on other pull requests; ``None``: nothing.
        house: whether it could be the house score; the others are there to compare with.
    """

    name: str
    of: Callable[[LineTokens], float]
    beyond: Callable[[LineTokens], float] | None = None
    house: bool = True


BASE_SURPRISAL = "base surprisal"
RANDOM = "random"
_CONVENTIONS = {each: over_conventions(each) for each in (base_surprisal, tuned_surprisal, difference, house_margin)}
SCORES: tuple[Score, ...] = (
    Score(BASE_SURPRISAL, base_surprisal, house=False),
    Score("length in tokens", tokens, house=False),
    Score("base surprisal, total", base_total, house=False),
    Score("base surprisal, largest token", base_largest, house=False),
    Score("tuned surprisal", tuned_surprisal),
    Score("difference", difference),
    Score("largest single-token difference", largest_difference),
    Score("residual", tuned_surprisal, beyond=base_surprisal),
    Score("base surprisal, conventions", _CONVENTIONS[base_surprisal], house=False),
    Score("tuned surprisal, conventions", _CONVENTIONS[tuned_surprisal]),
    Score("difference, conventions", _CONVENTIONS[difference]),
    Score("residual, conventions", _CONVENTIONS[tuned_surprisal], beyond=_CONVENTIONS[base_surprisal]),
    Score("margin", tuned_margin),
    Score("house margin", house_margin),
    Score("house margin, conventions", _CONVENTIONS[house_margin]),
    Score("base surprisal below precedents", base_below_precedents),
    Score("tuned surprisal below precedents", tuned_below_precedents),
    Score("difference by precedents", precedents_difference),
    Score("base residual below precedents", base_below_precedents, beyond=base_surprisal),
    Score("residual below precedents", tuned_below_precedents, beyond=base_surprisal),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A regression line, ``slope * x + intercept``."""

    slope: float
    intercept: float

    def residual(self, x: Floats, y: Floats) -> Floats:
        """How far ``y`` lies above the line; where either is no number, ``y`` itself."""
        known = np.isfinite(x) & np.isfinite(y)
        return np.where(known, y - self.slope * np.where(known, x, 0.0) - self.intercept, y)


def fit(x: Floats, y: Floats) -> Line:
    """Least squares over what is finite; the flat line through the mean when ``x`` says nothing."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < 2 or np.ptp(x) == 0:
        return Line(0.0, float(y.mean()) if len(y) else 0.0)
    slope, intercept = np.polyfit(x, y, 1)
    return Line(float(slope), float(intercept))


def score_lines(
    score: Score,
    lines: Sequence[LineTokens],
    requests: NDArray[np.int64],
    fit_on: tuple[Sequence[LineTokens], NDArray[np.int64]] | None = None,
) -> Floats:
    """One value for each line.

    A residual is that of a regression on other pull requests: those of the four other folds.

    Args:
        requests: number of the pull request of each line.
        fit_on: lines to fit on, with their pull requests, when they are not these.
    """
    values = np.array([score.of(line) for line in lines], dtype=float)
    if score.beyond is None:
        return values
    x = np.array([score.beyond(line) for line in lines], dtype=float)
    known_x, known_y, known_folds = x, values, fold(requests)
    if fit_on is not None:
        known_x, known_y = (np.array([of(line) for line in fit_on[0]]) for of in (score.beyond, score.of))
        known_folds = fold(fit_on[1])
    found = values.copy()
    folds = fold(requests)
    for number in range(FOLDS):
        inside, others = folds == number, known_folds != number
        found[inside] = fit(known_x[others], known_y[others]).residual(x[inside], values[inside])
    return found


def fold(requests: NDArray[np.int64]) -> NDArray[np.int64]:
    """The fold of each pull request, the same whichever others there are."""
    return np.array([_digest(int(number)) % FOLDS for number in requests], dtype=np.int64)


def random_scores(count: int) -> Floats:
    """What to expect of a score that knows nothing: the same numbers every time, and others for another repository."""
    return np.random.default_rng((20_261_124, count)).random(count)


def read_lines(
    engine: TransformersEngine, adapter: str, rows: Sequence[LineRow], below: Sequence[ScoredRow]
) -> list[dict[int, LineTokens]]:
    """What the base model and the adapter think of the lines of each row: line -> its tokens.

    Args:
        below: each row below its precedents, with the same labelled tokens.

    Raises:
        InhouseError: the adapter is unknown or corrupt, or a row is longer than the model reads.
    """
    scored = [row.row for row in rows]
    tuned, tuned_below = engine.score_tokens(scored, adapter), engine.score_tokens(below, adapter)
    base = engine.score_tokens(scored, BASE, [each.best for each in tuned])
    base_below = engine.score_tokens(below, BASE)
    found: list[dict[int, LineTokens]] = []
    for row, before, after, *informed in zip(rows, base, tuned, base_below, tuned_below, strict=True):
        of_line, carrying = np.array(row.lines, dtype=int), np.array(row.conventional, dtype=bool)
        margins = before.nats - before.other_nats, after.nats - after.best_nats
        columns = np.stack([before.nats, after.nats, *margins, *(each.nats for each in informed)]).astype(float)
        lines: dict[int, LineTokens] = {}
        for number in dict.fromkeys(row.lines):
            here = of_line == number
            written, as_tuned, margin, tuned_margin, below_written, below_tuned = columns[:, here]
            lines[number] = LineTokens(
                written, as_tuned, margin, tuned_margin, below_written, below_tuned, carrying[here]
            )
        found.append(lines)
    return found


def _digest(number: int) -> int:
    return int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:4], "big")
