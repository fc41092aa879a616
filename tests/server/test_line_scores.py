"""Scores of lines, how they are judged, and what a threshold promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inhouse_server.review.calibration import calibrate, threshold
from inhouse_server.review.line_evaluation import (
    LEAST_REQUESTS,
    LineEvaluation,
    ScoredLines,
    choose,
    decide,
    evaluate_scores,
    roc_auc,
    together,
)
from inhouse_server.review.line_scores import (
    BASE_SURPRISAL,
    NOTHING,
    SCORES,
    LineTokens,
    base_below_precedents,
    base_largest,
    base_surprisal,
    base_total,
    difference,
    fit,
    fold,
    house_margin,
    largest_difference,
    over_conventions,
    precedents_difference,
    score_lines,
    tokens,
    tuned_below_precedents,
    tuned_margin,
    tuned_surprisal,
)


def line(base: list[float], tuned: list[float], conventional: list[bool] | None = None) -> LineTokens:
    margins = np.array(tuned) / 2, np.array(tuned)
    below = np.array(base) * 2, np.array(tuned) * 3
    return LineTokens(np.array(base), np.array(tuned), *margins, *below, np.array(conventional or [False] * len(base)))


def test_each_score_is_what_its_name_says() -> None:
    one = line([1.0, 2.0, 6.0], [2.0, 0.0, 7.5], [True, True, False])
    assert base_surprisal(one) == 3.0
    assert tuned_surprisal(one) == pytest.approx(9.5 / 3)
    assert difference(one) == pytest.approx(0.5 / 3)
    assert largest_difference(one) == 1.5
    assert tuned_margin(one) == 7.5
    assert house_margin(one) == 3.75
    assert (base_total(one), base_largest(one), tokens(one)) == (9.0, 6.0, 3.0)
    assert (base_below_precedents(one), precedents_difference(one)) == (6.0, 3.0)
    assert tuned_below_precedents(one) == pytest.approx(9.5)
    assert over_conventions(difference)(one) == -0.5
    assert over_conventions(tuned_below_precedents)(one) == 3.0
    assert over_conventions(difference)(line([1.0], [9.0])) == NOTHING
    assert len({score.name for score in SCORES}) == len(SCORES)


def test_a_residual_is_fitted_on_other_pull_requests_and_forgets_base_surprisal() -> None:
    random = np.random.default_rng(1)
    requests = np.repeat(np.arange(40), 10)
    base = random.uniform(0, 5, 400)
    departs = random.random(400) < 0.2
    lines = [line([b], [0.6 * b + 1 + d]) for b, d in zip(base, departs, strict=True)]
    residual = next(score for score in SCORES if score.name == "residual")
    values = score_lines(residual, lines, requests)
    assert roc_auc(values, departs) == 1.0
    assert abs(np.corrcoef(values, base)[0, 1]) < 0.1
    odd = fold(requests) == fold(np.array([0]))[0]
    changed = [line([each.base[0]], [99.0]) if own else each for each, own in zip(lines, odd, strict=True)]
    assert score_lines(residual, changed, requests)[~odd] != pytest.approx(values[~odd]), "the others are fitted on it"
    kept = fit(base[~odd], np.array([each.tuned[0] for each in lines])[~odd])
    assert values[odd] == pytest.approx(kept.residual(base[odd], np.array([each.tuned[0] for each in lines])[odd]))
    silent = score_lines(next(s for s in SCORES if s.name == "residual, conventions"), lines, requests)
    assert set(silent) == {NOTHING}


def test_roc_auc_counts_pairs_and_half_of_ties() -> None:
    values, wanting = np.array([3.0, 1.0, 2.0, 2.0, -np.inf]), np.array([True, False, True, False, False])
    pairs = [(a > b) + (a == b) / 2 for a in values[wanting] for b in values[~wanting]]
    assert roc_auc(values, wanting) == pytest.approx(np.mean(pairs))
    assert np.isnan(roc_auc(values, np.zeros(5, dtype=bool)))


def test_the_table_counts_all_pairs_and_each_pull_request_alike() -> None:
    lines = made(9, 8, within=1.0)
    evaluation = evaluate_scores(lines, resamples=50)
    for name, values in lines.values.items():
        result = evaluation.result(name)
        assert result.pooled.mean == pytest.approx(roc_auc(values, lines.wanting))
        alone = [roc_auc(values[lines.requests == n], lines.wanting[lines.requests == n]) for n in range(9)]
        assert result.within.mean == pytest.approx(np.nanmean(alone))
        assert result.pooled.low < result.pooled.high
    assert evaluation.with_both == np.count_nonzero(~np.isnan(alone))


def made(requests: int, seed: int, within: float, between: float = 0.0) -> ScoredLines:
    """Pull requests of 12 lines with a score that knows lines (``within``) or careless pull requests (``between``)."""
    random = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(requests), 12)
    careless = random.random(requests)[numbers]
    wanting = random.random(len(numbers)) < careless
    noise = random.normal(size=(len(SCORES), len(numbers)))
    values = {score.name: row for score, row in zip(SCORES, noise, strict=True)}
    values["margin"] = values["margin"] + within * wanting
    values["residual"] = values["residual"] + between * careless
    return ScoredLines(numbers, wanting, values)


def as_if_enough(lines: ScoredLines) -> LineEvaluation:
    return replace(evaluate_scores(lines, resamples=400), with_both=LEAST_REQUESTS)


def test_a_score_that_only_knows_careless_pull_requests_does_not_win() -> None:
    evaluation = evaluate_scores(made(80, 1, within=1.0, between=4.0), resamples=400)
    careless, real = evaluation.result("residual"), evaluation.result("margin")
    assert careless.pooled.mean > 0.7 and careless.within.mean < 0.55
    assert not careless.beats_base
    assert real.within.low <= real.within.mean <= real.within.high
    assert real.beats_base
    assert choose(evaluation) == "margin"
    decision = decide("margin", as_if_enough(made(80, 2, within=1.0)))
    assert decision.on and "within pull requests +0." in decision.reason


def test_the_house_score_stays_off_without_proof() -> None:
    few: LineEvaluation = evaluate_scores(made(40, 3, within=3.0), resamples=100)
    assert few.with_both < LEAST_REQUESTS
    assert not decide("margin", few).on
    assert "200 are needed" in decide("margin", few).reason
    none = decide("margin", as_if_enough(made(80, 4, within=0.0)))
    assert not none.on and "not above base surprisal" in none.reason


def test_repositories_are_taken_together_by_rank() -> None:
    one, other = made(5, 5, 0.0), made(7, 6, 0.0)
    other.values[BASE_SURPRISAL] *= 1000
    both = together([one, other])
    assert both.requests.max() == 11
    assert both.values[BASE_SURPRISAL].max() < 1
    part = both.requests < 5
    assert np.argsort(both.values[BASE_SURPRISAL][part]).tolist() == np.argsort(one.values[BASE_SURPRISAL]).tolist()


def test_a_threshold_keeps_its_promise_and_is_silent_when_too_little_landed() -> None:
    scores = np.random.default_rng(7).exponential(size=2_000)
    found = calibrate(scores, lines_per_alarm=200)
    assert found.threshold is not None
    assert sum(found.is_remarkable(score) for score in scores) == 10
    assert "at most one of 200 lines" in found.says
    few = calibrate(scores[:999], lines_per_alarm=200)
    assert few.threshold is None and not few.is_remarkable(1e9)
    assert "999 lines landed" in few.says and "1000 are needed" in few.says
    tied = np.array([5.0] * 30 + [1.0] * 970)
    assert sum(tied > threshold(tied, 200)) == 0, "equal scores are all above or none, and 30 are too many"
