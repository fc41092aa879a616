"""The gate: what is promoted, what is not, and why."""

from __future__ import annotations

import pytest

from inhouse_training import RowScore
from inhouse_training.evaluation import Evaluation, paired_gain
from inhouse_training.gate import MAX_FORGETTING, decide


def scored(loss: float, wobble: float = 0.0, changes: int = 30) -> tuple[RowScore, ...]:
    """Changes of 50 tokens each around a loss in nats per token."""
    return tuple(RowScore(50 * (loss + (wobble if at % 2 else -wobble)), 50) for at in range(changes))


def evaluation(
    candidate: float,
    base: float = 2.0,
    current: float | None = None,
    wobble: float = 0.0,
    forgot: float = 0.1,
    changes: int = 30,
) -> Evaluation:
    scores = {"base": scored(base, changes=changes), "candidate": scored(candidate, wobble, changes)}
    if current is not None:
        scores["current"] = scored(current, changes=changes)
    general = {"base": {"English": 2.5}, "candidate": {"English": 2.5 + forgot}}
    names = tuple(f"{number:040x}" for number in range(changes))
    return Evaluation(names, {"closed_book": scores, "with_retrieval": scores}, general)


def test_better_than_the_base_is_promoted_with_its_figures() -> None:
    decision = decide(evaluation(candidate=1.7))
    assert decision.promote
    assert "+0.300 nats per token" in decision.reasons[0]
    assert "with retrieval" in decision.reasons[0]


@pytest.mark.parametrize(
    ("judged", "reason"),
    [
        (evaluation(candidate=2.1), "Not surely better than the base model"),
        (evaluation(candidate=1.98, wobble=0.4), "Not surely better than the base model"),
        (evaluation(candidate=1.7, current=1.6), "Not surely better than the current adapter"),
        (evaluation(candidate=1.7, current=1.7), "Not surely better than the current adapter"),
        (evaluation(candidate=1.2, forgot=MAX_FORGETTING + 0.01), "forgot too much of English"),
        (evaluation(candidate=1.2, changes=4), "too few to judge by"),
    ],
)
def test_anything_less_is_rejected_with_the_reason(judged: Evaluation, reason: str) -> None:
    decision = decide(judged)
    assert not decision.promote
    assert any(reason in told for told in decision.reasons)


def test_what_counts_is_the_way_the_product_answers() -> None:
    good, bad = (
        evaluation(candidate=1.5).scores["closed_book"],
        evaluation(candidate=2.2).scores["closed_book"],
    )
    general = evaluation(candidate=1.5).forgetting
    names = tuple("abcdefghijklmnopqrstuvwxyzABCD")
    assert not decide(Evaluation(names, {"closed_book": good, "with_retrieval": bad}, general)).promote
    assert decide(Evaluation(names, {"closed_book": bad, "with_retrieval": good}, general)).promote
    assert decide(Evaluation(names, {"closed_book": good}, general)).promote


def test_the_interval_is_paired_and_the_same_every_time() -> None:
    # The changes differ far more from each other than the two adapters do: only pairing sees the gain.
    before = [RowScore(100 * (1 + at), 100) for at in range(20)]
    after = [RowScore(score.nats - 5 - at % 3, 100) for at, score in enumerate(before)]
    gain = paired_gain(before, after)
    assert gain == paired_gain(before, after)
    assert 0.05 <= gain.low < gain.mean < gain.high <= 0.07


def test_an_evaluation_survives_its_file() -> None:
    judged = evaluation(candidate=1.7, current=1.8)
    assert Evaluation.from_json(judged.to_json()) == judged
