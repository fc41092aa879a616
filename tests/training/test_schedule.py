"""When a retraining is due, and what it would do."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from inhouse_retrieval import InhouseError, Repository
from inhouse_training import (
    BaseModel,
    Recipe,
    Registry,
    find_base_model,
    forget_runs,
    is_ahead,
    landed_since,
    last_run,
    open_run,
    parse_interval,
    plan_retraining,
    reason_to_wait,
    start_run,
)
from inhouse_training.base_model import DEFAULT_BASE
from inhouse_training.retrain import retrain
from inhouse_training.runs import forget_superseded, write_json

from .finished import finish_run
from .history import commit, git, handler, make_history

BASE = BaseModel("tiny", Path(), "0" * 64, "")
"""Named only: nothing here loads it."""
SUNDAY = datetime(2026, 11, 1, 2, 0, tzinfo=UTC)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    folder = tmp_path / ".inhouse"
    folder.mkdir()
    return folder


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("text", "length"),
    [("30m", timedelta(minutes=30)), ("12h", timedelta(hours=12)), ("7d", timedelta(days=7)),
     ("2w", timedelta(weeks=2)), ("0", timedelta())],
)  # fmt: skip
def test_lengths_of_time(text: str, length: timedelta) -> None:
    assert parse_interval(text) == length


@pytest.mark.parametrize("text", ["", "7", "d", "7 d", "07d", "-7d", "7y", "7d7d", "99999d", "7d\n"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(InhouseError, match="is not a length of time"):
        parse_interval(text)


def test_a_run_is_due_when_the_last_is_old_or_enough_has_landed(
    history: Repository, tiny_recipe: Recipe, state_dir: Path
) -> None:
    week = timedelta(days=7)
    assert last_run(state_dir) is None
    assert reason_to_wait(None, week, 5, lambda: 0, SUNDAY) is None, "the first one is always due"
    finish_run(history, state_dir, tiny_recipe, BASE, SUNDAY)
    last = last_run(state_dir)
    assert last is not None and (last.started, last.finished) == (SUNDAY, SUNDAY + timedelta(minutes=20))

    def wait(at: datetime, every: timedelta | None = None, after: int | None = None, landed: int = 0) -> str | None:
        return reason_to_wait(last, every, after, lambda: landed, at)

    assert wait(SUNDAY) is None, "nothing is asked for"
    assert wait(SUNDAY, timedelta()) is None
    early = wait(SUNDAY + timedelta(days=6), week)
    assert early is not None and "2026-11-01 02:00" in early and "due after 2026-11-08 01:00" in early
    # A timer of each night at two, a moment early.
    assert wait(SUNDAY + week - timedelta(seconds=30), week) is None
    # The clock was set back since: it may be years until then.
    assert wait(SUNDAY - timedelta(days=3), week) is None and is_ahead(last, SUNDAY - timedelta(days=3))
    # One run whose clock was ahead does not hide those after it, and where it is the only one it is told.
    finish_run(history, state_dir, tiny_recipe, replace(BASE, sha256="1" * 64), SUNDAY + timedelta(days=900))
    assert last_run(state_dir, SUNDAY + week) == last
    ahead = last_run(state_dir, SUNDAY + timedelta(days=901))
    assert ahead is not None and ahead.started == SUNDAY + timedelta(days=900)
    few = wait(SUNDAY + week, after=5, landed=4)
    assert few is not None and "4 changes have landed since, and 5 are waited for" in few
    assert wait(SUNDAY, after=5, landed=5) is None
    assert wait(SUNDAY, week, 5, landed=5) is None and wait(SUNDAY + week, week, 5, landed=0) is None
    assert wait(SUNDAY, week, 5, landed=4) is not None


def test_changes_that_landed_since_the_last_run_are_counted(
    tmp_path: Path, tiny_recipe: Recipe, state_dir: Path
) -> None:
    shop = make_history(tmp_path / "shop", commits=14)
    finish_run(shop, state_dir, tiny_recipe, BASE, SUNDAY)
    last = last_run(state_dir)
    assert last is not None and landed_since(last, shop, tiny_recipe) == 0
    for noun in ("stamp", "parcel"):
        commit(shop.root, f"Let clerks update a {noun}", **{f"handlers__{noun}_py": handler(noun)})
    assert landed_since(last, shop, tiny_recipe) == 2
    git(shop.root, "commit", "--quiet", "--amend", "--message", "Let clerks update parcels")
    assert landed_since(last, shop, tiny_recipe) == 2


def test_unfinished_runs_of_the_same_recipe_go_when_a_later_one_begins(
    tmp_path: Path, tiny_recipe: Recipe, state_dir: Path
) -> None:
    shop = make_history(tmp_path / "shop", commits=14)
    other = tiny_recipe.model_copy(update={"seed": 5})
    finish_run(shop, state_dir, tiny_recipe, replace(BASE, sha256="1" * 64), SUNDAY)
    failed, elsewhere = (open_run(shop, state_dir, recipe, BASE) for recipe in (tiny_recipe, other))
    for run in (failed, elsewhere):
        start_run(run)
        run.training.mkdir()
    forget_superseded(state_dir, failed)
    assert failed.training.exists(), "it goes on by itself"
    commit(shop.root, "Let clerks update a stamp", handlers__stamp_py=handler("stamp"))
    later = open_run(shop, state_dir, tiny_recipe, BASE)
    start_run(later)
    forget_superseded(state_dir, later)
    assert not failed.training.exists() and (failed.directory / "inputs.json").exists()
    assert elsewhere.training.exists(), "what another recipe trained can go on"
    assert len(list((state_dir / "runs").glob("*/training"))) == 2, "and a finished one is forget_runs' to delete"


def test_a_plan_agrees_with_the_job_and_writes_nothing(tmp_path: Path, tiny_recipe: Recipe, state_dir: Path) -> None:
    shop = make_history(tmp_path / "shop", commits=16)
    plan = plan_retraining(shop, state_dir, tiny_recipe, BASE)
    assert (plan.decision, plan.training_changes + plan.held_out_changes) == ("train", 15)
    assert (plan.rows, plan.predicted_seconds, plan.current) == (None, None, None)
    assert plan.snapshot == git(shop.root, "rev-parse", f"HEAD~{plan.held_out_changes}")
    assert not list(state_dir.iterdir())

    done = finish_run(shop, state_dir, tiny_recipe, BASE, SUNDAY)
    before = tree(state_dir)
    plan = plan_retraining(shop, state_dir, tiny_recipe, BASE)
    assert tree(state_dir) == before
    again = retrain(shop, state_dir, tiny_recipe, BASE)
    assert (plan.decision, again.decision) == ("skip", "skipped") and plan.reasons == again.reasons
    assert again.candidate == done.candidate

    assert done.candidate is not None
    manifest = Registry(state_dir / "adapters").get(done.candidate).manifest
    # Its candidate was collected: that is no reason to train again.
    registry = Registry(state_dir / "adapters")
    assert [entry.version for entry in registry.collect()] == [done.candidate]
    assert retrain(shop, state_dir, tiny_recipe, BASE).decision == "skipped"
    assert plan_retraining(shop, state_dir, tiny_recipe, BASE).decision == "skip"
    registry.add(open_run(shop, state_dir, tiny_recipe, BASE).training / "adapter", manifest)

    # Another change, and the dataset of its run was built already: six passes would be too many, one is as planned.
    commit(shop.root, "Let clerks update a stamp", handlers__stamp_py=handler("stamp"))
    run = open_run(shop, state_dir, tiny_recipe, BASE)
    start_run(run)
    run.dataset.mkdir()
    write_json(run.dataset / "manifest.json", {"rows": 40, "row_tokens": 3000})
    plan = plan_retraining(shop, state_dir, tiny_recipe, BASE)
    assert (plan.decision, plan.rows, plan.training_tokens) == ("train", 40, 3000)
    assert (plan.predicted_seconds, plan.predicted_from) == (6.0, done.candidate), "500 tokens a second"

    (run.training).mkdir()
    (run.training / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "tokens": 700, "seconds": 1.4}\n')
    (reason,) = plan_retraining(shop, state_dir, tiny_recipe, BASE).reasons
    assert "interrupted after 1 steps" in reason


def test_a_base_model_is_looked_for_without_fetching(
    base_model: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_base_model(DEFAULT_BASE) == base_model
    assert find_base_model("nobody/has-this") is None
    assert find_base_model(str(base_model.path)) is not None
    monkeypatch.setenv("INHOUSE_CACHE", str(tmp_path / "empty"))
    assert find_base_model(DEFAULT_BASE) is None
    assert not (tmp_path / "empty").exists()


def test_old_runs_lose_their_data_and_keep_their_results(tmp_path: Path, state_dir: Path) -> None:
    now = SUNDAY.timestamp()
    for number, kind in enumerate(["finished"] * 7 + ["interrupted"] * 2):
        run = state_dir / "runs" / f"{kind}{number}"
        for part in ("dataset", "training"):
            (run / part).mkdir(parents=True)
            (run / part / "data").write_bytes(bytes(1000))
        for name in ["inputs.json", "report.html"] + (["result.json"] if kind == "finished" else []):
            (run / name).write_text("{}")
            os.utime(run / name, (now + number, now + number))

    def left(part: str) -> list[str]:
        return sorted(path.parent.name for path in (state_dir / "runs").glob(f"*/{part}"))

    # Training: six older finished runs and one interrupted; datasets: two and one.
    assert forget_runs(state_dir, unfinished=True, dry_run=True) == (6 + 1 + 2 + 1) * 1000
    assert forget_runs(state_dir) == (6 + 2) * 1000
    assert left("training") == ["finished6", "interrupted7", "interrupted8"]
    assert forget_runs(state_dir, unfinished=True) == 2000
    assert left("training") == ["finished6", "interrupted8"]
    assert left("dataset") == [*(f"finished{number}" for number in range(2, 7)), "interrupted8"]
    assert len(left("report.html")) == 9 and len(left("result.json")) == 7
