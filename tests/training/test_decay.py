"""The decay curve: gain and likelihood against the days since the snapshot, and what it says about retraining."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from inhouse_retrieval import Repository
from inhouse_training import RowScore
from inhouse_training.cut import cut_repository
from inhouse_training.decay import LEAST_CHANGES, Decay, days_since, measure_decay
from inhouse_training.decay_plot import plot_decay
from inhouse_training.earlier_versions import earlier_decays
from inhouse_training.evaluation import Evaluation
from inhouse_training.recipe import Recipe
from inhouse_training.registry import AdapterManifest, Registry
from inhouse_training.report import decay_tables


def aged(gains: list[float], tokens: int = 50) -> tuple[Evaluation, dict[str, float]]:
    """Changes a day apart, each with a gain over the base in nats per token."""
    names = tuple(f"{number:040x}" for number in range(len(gains)))
    base = tuple(RowScore(3.0 * tokens, tokens) for _ in gains)
    candidate = tuple(RowScore((3.0 - gain) * tokens, tokens) for gain in gains)
    scores = {"base": base, "candidate": candidate}
    general = {"base": {"English": 2.0}, "candidate": {"English": 2.0}}
    return Evaluation(names, {"closed_book": scores}, general), {name: float(at) for at, name in enumerate(names)}


def test_a_gain_that_falls_is_seen_in_its_bins_its_slope_and_its_sentence() -> None:
    decay = measure_decay(*aged([1.0 - 0.03 * day for day in range(30)]))
    assert [each.changes for each in decay.bins] == [5] * 6
    assert [(each.first_day, each.last_day) for each in decay.bins[:2]] == [(0, 4), (5, 9)]
    first, last = decay.bins[0], decay.bins[-1]
    assert first.gain.mean == pytest.approx(0.94) and last.gain.mean == pytest.approx(0.19)
    assert first.loss.mean == pytest.approx(2.06)
    assert first.gain.low < first.gain.mean < first.gain.high
    assert decay.slope is not None and decay.slope.mean == pytest.approx(-0.03)
    # 1.0 at day 0: half of it is gone after 0.5 / 0.03 days.
    assert "falls by 0.900 nats per token in 30 days" in decay.advice
    assert "half of it is gone after 17 days, so retrain at least that often" in decay.advice


def test_a_slow_fall_is_not_extrapolated() -> None:
    decay = measure_decay(*aged([1.0 - 0.001 * day for day in range(30)]))
    assert decay.advice.endswith("half of it was still there at the end, so retraining every 29 days is enough.")


def test_a_trend_that_is_not_sure_is_none() -> None:
    steady = [0.5 + (0.2 if day % 2 else -0.2) for day in range(30)]
    assert "No decay is sure over 30 changes of 0 to 29 days" in measure_decay(*aged(steady)).advice
    assert "No gain over the base model is sure" in measure_decay(*aged([-each for each in steady])).advice


def test_too_few_changes_or_all_of_one_day_say_nothing() -> None:
    falling = [1.0 - 0.03 * day for day in range(30)]
    evaluation, days = aged(falling)
    few = measure_decay(*aged(falling[: LEAST_CHANGES - 1]))
    assert (few.slope, few.advice) == (None, "") and len(few.bins) == 3
    assert measure_decay(evaluation, dict.fromkeys(days, 3.0)).advice == ""
    undated = measure_decay(evaluation, dict(list(days.items())[:4]))
    assert undated.bins == () and undated.advice == ""


def test_changes_of_two_days_have_no_curve_to_show() -> None:
    evaluation, days = aged([0.5] * 30)
    assert measure_decay(evaluation, days).shown and decay_tables(measure_decay(evaluation, days), ())
    within = measure_decay(evaluation, {name: 3 + at / 15 for at, name in enumerate(days)})
    assert within.bins and not within.shown and decay_tables(within, ()) == []
    assert not measure_decay(evaluation, {}).shown


def test_days_count_from_the_snapshot_and_never_below_zero(history: Repository, tiny_recipe: Recipe) -> None:
    cut = cut_repository(history, tiny_recipe)
    week = replace(cut, as_of=min(change.merged_at for change in cut.held_out if change.merged_at) - timedelta(days=7))
    days = days_since(week)
    assert set(days) == {change.commit for change in cut.held_out}
    assert min(days.values()) == pytest.approx(7)
    assert set(days_since(replace(cut, as_of=cut.as_of + timedelta(days=1))).values()) == {0.0}


def test_a_curve_is_kept_and_drawn_with_those_of_earlier_versions(tmp_path: Path) -> None:
    decay = measure_decay(*aged([1.0 - 0.03 * day for day in range(30)]))
    stored = Decay.from_json(json.loads(json.dumps(decay.to_json())))
    assert stored.bins[0].gain.mean == pytest.approx(decay.bins[0].gain.mean, abs=1e-6)
    assert (stored.advice, len(stored.bins)) == (decay.advice, 6)
    plot_decay("new", decay, [("older1", stored)], tmp_path / "decay.svg")
    drawn = (tmp_path / "decay.svg").read_text()
    assert drawn.count("<!-- older1 -->") == 1 and "days since the snapshot" in drawn


def test_curves_of_earlier_versions_come_from_the_registry(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "adapters")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    curve = measure_decay(*aged([0.5] * 30)).to_json()

    def add(day: int, base: str = "b", **metrics: object) -> str:
        (adapter / "adapter_model.safetensors").write_text(f"weights of day {day}")
        manifest = AdapterManifest("tiny", base, f"{day:040x}", metrics=metrics, created=f"2026-01-{day:02}T00:00:00")
        return registry.add(adapter, manifest).version

    first, second = add(1, decay=curve), add(2, decay=curve)
    add(3)  # registered before curves were measured
    add(4, base="another", decay=curve)
    this, _later = add(5, decay=curve), add(6, decay=curve)
    assert [version for version, _ in earlier_decays(registry, this)] == [first, second]
