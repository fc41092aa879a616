"""The history of versions in a report: what each is made of, what it gained, what became of it, and which is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inhouse_training import AdapterManifest, Registry
from inhouse_training.registry import WEIGHTS_NAME
from inhouse_training.report_page import Page, write_page
from inhouse_training.version_history import version_history, version_tables

GAIN = {"over_base": {"mean": 0.5123, "low": 0.25, "high": 0.75}}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "adapters")


def add(registry: Registry, day: int, evaluated: bool = True, **metrics: Any) -> str:
    made = registry.root.parent / f"made{day}"
    made.mkdir()
    (made / WEIGHTS_NAME).write_bytes(f"weights of day {day}".encode())
    (made / "adapter_config.json").write_text("{}")
    manifest = AdapterManifest(
        "tiny", "0" * 64, f"{day:040x}", {"name": f"recipe-{day}"}, metrics=metrics, evaluated=evaluated,
        created=f"2026-11-{day:02}T02:00:00+00:00",
    )  # fmt: skip
    return registry.add(made, manifest).version


def test_every_version_is_told_with_its_gain_its_end_and_its_first_reason(registry: Registry) -> None:
    better = ["Better than the base model on 30 later changes.", "Forgetting is within bounds."]
    first = add(registry, 1, gain=GAIN, gate=better)
    registry.promote(first, " ".join(better))
    second = add(registry, 2, gain=GAIN, gate=["Not surely better than the current adapter."])
    third = add(registry, 3, evaluated=False)
    registry.promote(third, "by hand, not evaluated")
    registry.rollback("by hand")
    newest, middle, oldest = version_history(registry)
    assert [each.version for each in (newest, middle, oldest)] == [third, second, first]
    assert (oldest.outcome, oldest.served, oldest.reason) == ("promoted", True, better[0])
    assert oldest.gain is not None and (oldest.gain.mean, oldest.gain.low, oldest.gain.high) == (0.5123, 0.25, 0.75)
    assert (middle.outcome, middle.served) == ("rejected", False) and middle.reason.startswith("Not surely better")
    assert (newest.outcome, newest.gain, newest.reason) == ("promoted by hand, rolled back from", None, "")
    assert (newest.recipe, newest.snapshot, newest.made[:10]) == ("recipe-3", f"{3:040x}", "2026-11-03")


def test_what_was_removed_is_told_by_what_became_of_it(registry: Registry) -> None:
    first, second = add(registry, 1), add(registry, 2)
    for version in (first, second):
        registry.promote(version, "Better.")
    registry.use_base("by hand")
    registry.collect(keep=1)
    there, gone = version_history(registry)
    assert (there.version, gone.version) == (second, first)
    assert (gone.outcome, gone.made) == ("promoted; removed since", "")
    (table,) = version_tables((there, gone))
    assert table.note.startswith("Served now: the base model alone.") and table.rows[1][1:4] == ("?", "?", "?")


def test_it_stands_in_the_page_and_in_the_text(registry: Registry, tmp_path: Path) -> None:
    hostile = "Worse than <b>| before |</b>."
    version = add(registry, 1, gain=GAIN, gate=[hostile])
    html = write_page(Page("A report", (), (), {}, version_tables(version_history(registry))), tmp_path)
    page, text = html.read_text(), html.with_suffix(".md").read_text()
    for told in (page, text):
        assert "History of versions" in told and version in told and "+0.512 (+0.250 to +0.750)" in told
        assert "recipe-1" in told and "2026-11-01" in told and "rejected" in told
    assert "&lt;b&gt;| before |&lt;/b&gt;" in page and "<b>" not in page
    assert "\\<b\\>\\| before \\|" in text


def test_a_long_history_is_cut_and_counted(registry: Registry) -> None:
    for day in range(1, 24):
        add(registry, day)
    (table,) = version_tables(version_history(registry))
    assert len(table.rows) == 20 and table.note.endswith("3 older ones are not shown.")
    assert version_tables(()) == []
