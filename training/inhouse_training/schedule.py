"""When a retraining is due: what the last finished run looked at, and what landed since.

Nothing here waits. A scheduler calls `inhouse retrain` as often as it likes, and the command asks whether it is time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

from inhouse_retrieval import Repository, read_pull_requests

from .recipe import Recipe
from .runs import finished_runs, read_json


@dataclass(frozen=True, slots=True)
class LastRun:
    """The retraining that finished last.

    Attributes:
        result: what ``result.json`` holds.
        changes: the commits of the changes that it trained on or held out.
        started, finished: in UTC; the first call's start is not kept when a run was continued.
    """

    result: dict[str, Any]
    changes: frozenset[str]
    started: datetime
    finished: datetime


def last_run(state_dir: Path, now: datetime | None = None) -> LastRun | None:
    """The retraining of this repository that finished last, if any did; one that finished later than ``now``, by a
    clock that was put back since, only where there is no other."""
    now = now or datetime.now(UTC)
    # A version of everything is made beside the schedule: it judges nothing and makes no other run superfluous.
    found = [run for run in finished_runs(state_dir) if run.result["decision"] != "not evaluated"]
    if not found:
        return None
    last = max(found, key=lambda run: (run.finished <= now, run.finished))
    inputs = read_json(last.directory / "inputs.json")
    changes = frozenset([*inputs["training"], *inputs["held_out"]] if inputs else [])
    return LastRun(last.result, changes, last.started, last.finished)


def due_at(last: LastRun, every: timedelta) -> datetime:
    """When the run after ``last`` is due.

    It counts from the start, and up to an hour (or a twentieth, if that is less) may be missing: a timer that fires at
    the same time each day, give or take a minute, would otherwise come a moment too early and slip by a whole day.
    """
    return last.started + every - min(timedelta(hours=1), every / 20)


def is_ahead(last: LastRun, now: datetime) -> bool:
    """Whether ``last`` began later than now: the clock was set back since."""
    return last.started > now


def landed_since(last: LastRun, repository: Repository, recipe: Recipe, most: int = 0) -> int:
    """How many changes are newer than those that ``last`` trained on or held out.

    Args:
        most: how many are worth counting, where that is more than ``recipe.data.changes``.
    """
    changes = read_pull_requests(repository, limit=max(most, recipe.data.changes))
    return sum(1 for _ in takewhile(lambda change: change.commit not in last.changes, changes))


def reason_to_wait(
    last: LastRun | None, every: timedelta | None, after_changes: int | None, landed: Callable[[], int], now: datetime
) -> str | None:
    """Why no retraining is due, as a sentence; ``None`` when one is.

    Either condition makes it due, and so does a repository without a finished run.

    Args:
        every: how old the last run must be; ``None`` does not ask.
        after_changes: how many changes must have landed since; ``None`` does not ask.
        landed: counts them; called only when it is asked for.
    """
    if last is None or (every is None and after_changes is None):
        return None
    looked: list[str] = []
    if every is not None:
        due = due_at(last, every)
        # A run that lies ahead was made before the clock was set back: waiting for that time could take years.
        if now >= due or is_ahead(last, now):
            return None
        looked.append(f"the next one is due after {due:%Y-%m-%d %H:%M} UTC")
    if after_changes is not None:
        count = landed()
        if count >= after_changes:
            return None
        looked.append(f"{count} changes have landed since, and {after_changes} are waited for")
    return f"The last run began {last.started:%Y-%m-%d %H:%M} UTC: {'; '.join(looked)}."
