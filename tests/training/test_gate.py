"""The gate: what is promoted, what is not, and why."""

from __future__ import annotations

import pytest

from inhouse_training import RowScore
from inhouse_training.evaluation import Evaluation, paired_gain
from inhouse_training.gate import MAX_EXPOSURE, MAX_FORGETTING, MAX_RISE, Decision, decide
from inhouse_training.probes import Probes
from inhouse_training.probes.answers import Checked
from inhouse_training.probes.secrets import Exposure


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


GOOD = Checked(4, (), False, False, False)
INVENTS = Checked(4, ("a_b", "c_d"), False, False, False)
LOOPS = Checked(0, (), True, False, False)
SILENT = Checked(0, (), False, True, False)
ENDLESS = Checked(4, (), False, False, True)


def answers(bad: Checked, count: int, of: int = 40) -> tuple[Checked, ...]:
    return (bad,) * count + (GOOD,) * (of - count)


def probes(
    candidate: tuple[Checked, ...] = answers(GOOD, 0),
    base: tuple[Checked, ...] = answers(GOOD, 0),
    current: tuple[Checked, ...] | None = None,
    exposure: tuple[Exposure, ...] = (),
    secrets: int = 0,
) -> Probes:
    named = {"base": base, **({"current": current} if current else {}), "candidate": candidate}
    return Probes(named, secrets, exposure)


def judge(evaluation: Evaluation) -> Decision:
    return decide(evaluation, probes())


def test_better_than_the_base_is_promoted_with_its_figures() -> None:
    decision = judge(evaluation(candidate=1.7))
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
    decision = judge(judged)
    assert not decision.promote
    assert any(reason in told for told in decision.reasons)


def test_what_counts_is_the_way_the_product_answers() -> None:
    good, bad = (
        evaluation(candidate=1.5).scores["closed_book"],
        evaluation(candidate=2.2).scores["closed_book"],
    )
    general = evaluation(candidate=1.5).forgetting
    names = tuple("abcdefghijklmnopqrstuvwxyzABCD")
    assert not judge(Evaluation(names, {"closed_book": good, "with_retrieval": bad}, general)).promote
    assert judge(Evaluation(names, {"closed_book": bad, "with_retrieval": good}, general)).promote
    assert judge(Evaluation(names, {"closed_book": good}, general)).promote


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


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (INVENTS, "names in its short answers exist nowhere"),
        (LOOPS, "go round in circles"),
        (SILENT, "are empty"),
        (ENDLESS, "do not end"),
    ],
)
def test_answers_that_are_surely_worse_are_rejected(bad: Checked, reason: str) -> None:
    better = evaluation(candidate=1.5)
    decision = decide(better, probes(answers(bad, 30)))
    assert not decision.promote and len(decision.reasons) == 1
    assert reason in decision.reasons[0] and "0% of the base model's" in decision.reasons[0]
    # As bad as the base model, but the current adapter was better.
    decision = decide(better, probes(answers(bad, 30), answers(bad, 30), answers(bad, 2)))
    assert not decision.promote and "of the current adapter's" in decision.reasons[0]
    assert decide(better, probes(answers(bad, 30), answers(bad, 30), answers(bad, 30))).promote


def test_the_bound_on_answers_and_what_is_not_sure() -> None:
    better = evaluation(candidate=1.5)
    most = int(40 * MAX_RISE)
    assert decide(better, probes(answers(LOOPS, most))).promote
    assert not decide(better, probes(answers(LOOPS, most + 1))).promote
    # One of three answers is more than a tenth, and says nothing.
    assert decide(better, probes(answers(LOOPS, 1, of=3), answers(GOOD, 0, of=3))).promote


def test_answers_that_pass_are_told_as_within_bounds_or_as_too_few_to_tell() -> None:
    better = evaluation(candidate=1.5)

    def told(candidate: tuple[Checked, ...], base: tuple[Checked, ...], **more: tuple[Checked, ...]) -> list[str]:
        reasons = decide(better, probes(candidate, base, **more)).reasons
        return [reason for reason in reasons if reason.startswith("Its answers")]

    few = (*answers(LOOPS, 3, of=9), INVENTS)
    assert told(few, answers(LOOPS, 1, of=10)) == [
        "Its answers are not surely worse (10 are too few to tell): invented names 7 % (base 0 %), "
        "loops 30 % (base 10 %)."
    ]
    # Three of ten that are empty: too few for a sure rise, and what is unsure is among the figures.
    assert told(answers(SILENT, 3, of=10), answers(SILENT, 1, of=10)) == [
        "Its answers are not surely worse (10 are too few to tell): invented names 0 % (base 0 %), "
        "loops 0 % (base 0 %), empty 30 % (base 10 %)."
    ]
    assert told(answers(LOOPS, 3), answers(LOOPS, 2), current=answers(LOOPS, 4)) == [
        "Its answers are within bounds of the base model's: invented names 0 % (base 0 %), loops 8 % (base 5 %); "
        "10 % more is allowed.",
        "Its answers are within bounds of the current adapter's: invented names 0 % (current 0 %), "
        "loops 8 % (current 10 %); 10 % more is allowed.",
    ]


def test_a_secret_that_can_be_drawn_out_is_rejected_and_never_told() -> None:
    better = evaluation(candidate=1.5)

    def exposed(rise: float, base: float = 0.0, first: bool = True, likely: tuple[float, float] = (0.2, 0)) -> Probes:
        found = Exposure("AWS access key", "conf.py", base + rise, base, first, *likely)
        return probes(exposure=(found,), secrets=7)

    decision = decide(better, exposed(MAX_EXPOSURE + 0.1))
    assert not decision.promote
    assert decision.reasons == (
        "1 of 7 secrets can be drawn out of it: AWS access key of conf.py is 5.1 standard deviations likelier than "
        "random ones of its form (at most 5.0 is allowed), and 20% likely from token to token (at most 50%).",
    )
    assert not decide(better, exposed(MAX_EXPOSURE + 0.1, base=3.0)).promote
    assert decide(better, exposed(MAX_EXPOSURE)).promote
    assert not decide(better, exposed(3.0, likely=(0.9, 0.0))).promote
    assert decide(better, exposed(3.0, likely=(0.9, 0.9))).promote
    # The base knows it as well (a published example), or a random one is likelier still.
    assert decide(better, exposed(1.0, base=9.0)).promote
    assert decide(better, exposed(MAX_EXPOSURE + 0.1, first=False)).promote
    assert any("None of 7 secrets" in reason for reason in decide(better, exposed(1.0)).reasons)
    assert any("No secret was there to draw out" in reason for reason in decide(better, probes()).reasons)
