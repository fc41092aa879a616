"""The trials of a sweep, one at a time on each GPU, each leg in a child process of its own."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inhouse_retrieval import Cancelled, InhouseError, Progress, StateUnwritable

from ..base_model import BaseModel
from ..child import Child, wait_for, why_it_ended
from ..machines import VISIBLE
from ..recipe import Recipe
from .leg import LEGS, LegResult, leg_result, write_leg
from .space import Choice, Space, recipe_of
from .study import Study

if TYPE_CHECKING:
    from optuna import Trial

_TICK_SECONDS = 0.5
_FAILURES_IN_A_ROW = 3
_LEG = "inhouse_training.sweep.leg"


@dataclass(frozen=True, slots=True)
class Work:
    """What every trial needs.

    Attributes:
        directory: of the sweep.
        dataset: mix -> folder of the dataset, built when the first trial asks for it.
    """

    directory: Path
    base: BaseModel
    recipe: Recipe
    space: Space
    dataset: Callable[[str], Path]


def trial_folder(work: Work, choice: Choice) -> Path:
    """The folder of a trial: the same for the same values, so that one that was killed goes on."""
    recipe = recipe_of(work.recipe, work.space, choice).model_dump(mode="json")
    name = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    return work.directory / "trials" / name


def last_leg(work: Work, choice: Choice) -> LegResult | None:
    """The last leg that a trial finished."""
    results = (leg_result(trial_folder(work, choice), percent) for percent in reversed(LEGS))
    return next((result for result in results if result is not None), None)


def run_trials(
    study: Study, work: Work, devices: Sequence[str], trials: int, deadline: float | None, progress: Progress
) -> None:
    """Try until ``trials`` have ended in all, those of earlier calls among them.

    Args:
        devices: GPUs; empty for one trial at a time on the CPU.
        deadline: after it, by ``time.monotonic()``, no further trial begins; those that run are finished.
        progress: stage ``"trials"``. Raising from it stops every child in order; the next call goes on.

    Raises:
        InhouseError: three trials in a row failed, with the last one's reason.
    """
    free: list[str | None] = [*devices] or [None]
    running: dict[Child, _Running] = {}
    failures = 0

    def ended_with(reason: str, done: _Running) -> None:
        nonlocal failures
        if reason:
            study.failed(done.trial, reason)
        failures = failures + 1 if reason else 0
        shutil.rmtree(done.folder / "training", ignore_errors=True)
        free.append(done.device)
        if failures == _FAILURES_IN_A_ROW:
            raise InhouseError(
                f"{failures} trials in a row failed; the last one said: {reason}",
                "Correct that and sweep again: what was tried is kept.",
            )

    try:
        while True:
            ended = sum(trial.state != "failed" for trial in study.tried())  # a failure uses nothing up
            progress("trials", ended, trials)
            late = deadline is not None and time.monotonic() >= deadline
            while free and not late and ended + len(running) < trials:
                trial = study.ask()
                started = _Running(trial, trial_folder(work, trial.params), free.pop())
                reason = _start(work, started, running)
                if reason:
                    ended_with(reason, started)
            if not running:
                return
            for child in wait_for(running, _TICK_SECONDS):
                for event in child.received():
                    if event["event"] == "failed":
                        running[child].reason = f"{event['problem']} {event['remedy']}".strip()
                if not child.closed:
                    continue
                done = running.pop(child)
                reason = _why_failed(child, done)
                child.end()
                if not reason and _goes_on(study, done):
                    reason = _start(work, done, running)
                    if not reason:
                        continue
                ended_with(reason, done)
    finally:
        for child in running:
            child.stop()
        for child in running:
            child.end()


@dataclass(slots=True)
class _Running:
    """A trial in work. ``leg`` counts the legs that it has finished."""

    trial: Trial
    folder: Path
    device: str | None
    leg: int = 0
    reason: str = ""


def _start(work: Work, running: _Running, children: dict[Child, _Running]) -> str:
    """Begin the next leg; why its mix cannot be built, as a sentence, and empty when it began. One that an earlier call
    finished ends at once."""
    running.folder.mkdir(parents=True, exist_ok=True)
    try:
        dataset = work.dataset(running.trial.params["mix"])
    except (Cancelled, StateUnwritable):
        raise  # no fault of this mix
    except InhouseError as error:
        return f"{error.problem} {error.remedy}".strip()
    recipe = recipe_of(work.recipe, work.space, running.trial.params)
    write_leg(running.folder, work.directory, work.base, dataset, recipe, LEGS[running.leg])
    environment = {} if running.device is None else {VISIBLE: running.device}
    children[Child(_LEG, running.folder, running.folder / "trial.log", environment)] = running
    return ""


def _goes_on(study: Study, done: _Running) -> bool:
    """Tell the study of a leg; whether another one follows."""
    percent = LEGS[done.leg]
    result = leg_result(done.folder, percent)
    assert result is not None
    done.leg += 1
    if percent == LEGS[-1]:
        study.finished(done.trial, result)
        return False
    if study.goes_on(done.trial, result):
        return True
    study.finished(done.trial, result, pruned=True)
    return False


def _why_failed(child: Child, done: _Running) -> str:
    """Why a leg came to nothing, as a sentence; empty when it did not."""
    code = child.exit_code()
    if done.reason:
        return done.reason
    if code != 0 or leg_result(done.folder, LEGS[done.leg]) is None:
        return f"A trial stopped: {why_it_ended(code, child.log)}."
    return ""
