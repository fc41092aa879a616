"""A sweep from its changes to its best recipe.

Which changes choose and which judge is settled first (:func:`~inhouse_training.cut.selection_cut`): those that the next
retraining will be judged by are not read here at all, so that what was chosen can still be judged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from inhouse_retrieval import InhouseError, Progress, PullRequest, PullRequestStore, Repository, no_progress

from ..base_model import BaseModel, load_tokenizer
from ..child import Child, wait_for, why_it_ended
from ..cut import LEAST_HELD_OUT, Cut, held_out_change, selection_cut
from ..dataset import build_dataset
from ..evaluation import Interval, paired_gain
from ..machines import Machine, visible_gpus
from ..recipe import Recipe
from ..recipe_text import recipe_text
from ..replay import replay_source
from ..runs import hold_runs, inputs_of, write_json
from ..synthesis.cache import stored_replies
from ..weights import weights_here
from .leg import LegResult
from .space import Choice, Space, own_choice, recipe_of, space_around, what_fits
from .study import Study, Tried, plain_storage_errors, within_bounds
from .trials import Work, last_leg, run_trials
from .yardstick import Yardstick, ask_for_yardstick

_TICK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What a sweep is made of, before anything runs.

    Attributes:
        directory: where everything of it lies; named by a hash of what it depends on.
        selection: the changes that score a trial, newest first.
        judging: how many newer changes are left to judge what comes of it.
    """

    directory: Path
    cut: Cut
    selection: tuple[PullRequest, ...]
    judging: int
    space: Space
    inputs: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As ``inhouse sweep --dry-run --json`` has it."""
        return {
            "directory": str(self.directory),
            "snapshot": self.cut.snapshot,
            "selection_changes": len(self.selection),
            "judging_changes": self.judging,
            "left_out": list(self.space.left_out),
            "space": self.space.to_json(),
        }


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One trial for the table. ``leg`` is the last one that it finished; ``None`` when it failed before."""

    tried: Tried
    leg: LegResult | None

    def to_json(self) -> dict[str, Any]:
        """As ``inhouse sweep --json`` has it."""
        told: dict[str, Any] = {**asdict(self.tried), **dict(self.tried.choice)}
        del told["choice"]
        if self.leg is not None:
            score = self.leg.score
            told |= {"low": score.gain.low, "high": score.gain.high, "forgot": score.forgot}
            told |= {"steps": self.leg.steps, "tokens": self.leg.tokens, "seconds": self.leg.seconds}
            told["training_loss"] = self.leg.loss
        return told


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep came to.

    Attributes:
        scored: of the changes that were to choose, those whose added lines could be scored, which did.
        trials: in the order in which they began.
        best: number of the best trial that forgot no more than the gate allows.
        over_own: how much better it is than the recipe as it was, on the same changes; ``None`` where that was not
            finished or is itself the best.
        recipe: the best trial as a recipe.
        report: the HTML report.
    """

    plan: SweepPlan
    mode: str
    scored: int
    trials: tuple[TrialResult, ...]
    best: int
    over_own: Interval | None
    recipe: Path
    report: Path

    def to_json(self) -> dict[str, Any]:
        """The stable JSON contract of ``inhouse sweep --json``."""
        return {
            "directory": str(self.plan.directory),
            "snapshot": self.plan.cut.snapshot,
            "selection_changes": len(self.plan.selection),
            "scored_changes": self.scored,
            "judging_changes": self.plan.judging,
            "mode": self.mode,
            "left_out": list(self.plan.space.left_out),
            "trials": [trial.to_json() for trial in self.trials],
            "best": self.best,
            "over_own": asdict(self.over_own) if self.over_own else None,
            "recipe": str(self.recipe),
            "report": str(self.report),
        }


def plan_sweep(
    repository: Repository, state_dir: Path, recipe: Recipe, base: BaseModel, machine: Machine, retrieval: bool = True
) -> SweepPlan:
    """Look at the repository and the machine as a sweep would; nothing is written.

    Raises:
        InhouseError: the history is too short, a mix or a batch is not valid, or nothing fits the machine.
    """
    space = what_fits(recipe, space_around(recipe), base, machine)
    with PullRequestStore.if_there(state_dir) or contextlib.nullcontext() as store:
        cut, selection = selection_cut(repository, recipe, store)
    inputs = {
        **inputs_of(cut, repository, state_dir, recipe, base, retrieval),
        "selection": [change.commit for change in selection],
        "space": space.to_json(),
    }
    name = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]
    judging = len(cut.held_out) - len(selection)
    return SweepPlan(state_dir / "sweeps" / name, cut, selection, judging, space, inputs)


def run_sweep(
    repository: Repository,
    state_dir: Path,
    recipe: Recipe,
    base: BaseModel,
    machine: Machine,
    trials: int,
    timeout: float | None = None,
    progress: Progress = no_progress,
    retrieval: bool = True,
) -> SweepResult:
    """Try ``trials`` settings around a recipe and write the best one as a recipe. A sweep that was stopped goes on.

    Args:
        trials: in all, those of earlier calls among them; the recipe as it is comes first.
        timeout: seconds after which no further trial begins.
        retrieval: whether the product answers with retrieved passages here, which is then how trials are scored.

    Raises:
        Busy: another job of this repository runs.
        StateUnwritable: the state directory cannot be written.
        Cancelled: ``progress`` raised it; the next call goes on from there.
        InhouseError: as :func:`plan_sweep`; or no trial finished within the gate's bounds.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    with hold_runs(state_dir):
        progress("reading the history", 0, None)
        plan = plan_sweep(repository, state_dir, recipe, base, machine, retrieval)
        _forget_others(plan.directory)
        plan.directory.mkdir(parents=True, exist_ok=True)
        write_json(plan.directory / "inputs.json", plan.inputs)
        yardstick = _yardstick(plan, repository, base, recipe, retrieval, progress)
        dataset = partial(_dataset, plan, repository, state_dir, recipe, base, progress)
        work = Work(plan.directory, base, recipe, plan.space, dataset)
        file = plan.directory / "study.sqlite"
        with plain_storage_errors(file):
            study = Study(file, plan.space, _first(plan.space, recipe), recipe.seed)
            run_trials(study, work, visible_gpus(), trials, deadline, progress)
            found = tuple(TrialResult(tried, last_leg(work, tried.choice)) for tried in study.tried())
        result = _result(plan, work, yardstick, found)
        for folder in [plan.directory / "datasets", *(plan.directory / "trials").glob("*/training")]:
            shutil.rmtree(folder, ignore_errors=True)
        return result


def _first(space: Space, recipe: Recipe) -> Choice:
    """The recipe as it is; with the highest rank that fits, where its own does not."""
    own = own_choice(recipe)
    return own if own["rank"] in space.ranks else {**own, "rank": max(space.ranks)}


def _yardstick(
    plan: SweepPlan, repository: Repository, base: BaseModel, recipe: Recipe, retrieval: bool, progress: Progress
) -> Yardstick:
    made = Yardstick.load(plan.directory)
    if made is not None:
        return made
    changes = [change for change in map(held_out_change, plan.selection) if change is not None]
    assert len(changes) >= LEAST_HELD_OUT
    weights = weights_here("auto", recipe.trainer.load_in_4bit)
    ask_for_yardstick(
        plan.directory, repository, base, plan.cut.snapshot, changes, recipe.evaluation, retrieval, weights
    )
    child = Child("inhouse_training.sweep.yardstick", plan.directory, plan.directory / "yardstick.log", {})
    failure: dict[str, Any] | None = None
    try:
        while not child.closed:
            progress("scoring the base model", 0, None)
            if wait_for([child], _TICK_SECONDS):
                failure = next((event for event in child.received() if event["event"] == "failed"), failure)
        code = child.exit_code()
    finally:
        child.end()
    if failure is not None:
        raise InhouseError(failure["problem"], failure["remedy"])
    made = Yardstick.load(plan.directory)
    if code != 0 or made is None:
        raise InhouseError(f"The base model could not be scored: {why_it_ended(code, child.log)}.", f"See {child.log}.")
    return made


def _dataset(
    plan: SweepPlan,
    repository: Repository,
    state_dir: Path,
    recipe: Recipe,
    base: BaseModel,
    progress: Progress,
    mix: str,
) -> Path:
    """The dataset of a mix, shared by all trials that have it."""
    chosen = recipe_of(recipe, plan.space, {**own_choice(recipe), "mix": mix})
    replay = replay_source(base, chosen, progress)
    generated: Callable[[], Any] = partial(stored_replies, state_dir)
    directory = plan.directory / "datasets" / mix
    tokenizer = load_tokenizer(base)
    return build_dataset(repository, tokenizer, chosen, plan.cut, directory, progress, replay, generated).directory


def _result(plan: SweepPlan, work: Work, yardstick: Yardstick, found: tuple[TrialResult, ...]) -> SweepResult:
    from .report import write_report

    legs = {trial.tried.number: trial.leg for trial in found if trial.leg is not None}
    fair = within_bounds([trial.tried for trial in found], legs)
    if not fair:
        failed = next((trial.tried.reason for trial in reversed(found) if trial.tried.reason), "")
        raise InhouseError(
            f"None of {len(found)} trials finished without forgetting more than the gate allows."
            + (f" The last one that failed said: {failed}" if failed else ""),
            "Sweep again with more --trials or a longer --timeout, or lower sweep.learning_rates in the recipe.",
        )
    best = fair[0]
    own = next((trial for trial in fair if dict(trial.choice) == own_choice(work.recipe)), None)
    over_own = None
    if own is not None and own.number != best.number:
        over_own = paired_gain(legs[own.number].score.changes, legs[best.number].score.changes)
    recipe = plan.directory / f"{work.recipe.name}-swept.toml"
    chosen = recipe_of(work.recipe, plan.space, best.choice).model_copy(
        update={"selected_until": plan.selection[0].commit}
    )
    gain = legs[best.number].score.gain
    remarks = (
        f"The best of {len(found)} trials around the recipe {work.recipe.name}, by `inhouse sweep`:",
        f"gain over the base model {gain.mean:+.3f} nats per token (95 % interval {gain.low:+.3f} to {gain.high:+.3f})",
        f"on {len(yardstick.rows)} changes after {plan.cut.snapshot[:12]}. They chose it, so it looks better on them",
        "than it is: `inhouse retrain --recipe` with this file judges it by later ones.",
    )
    recipe.write_text(recipe_text(chosen, remarks), encoding="utf-8")
    scored, report = len(yardstick.rows), plan.directory / "report.html"
    result = SweepResult(plan, yardstick.mode, scored, found, best.number, over_own, recipe, report)
    return replace(result, report=write_report(result, work.recipe))


def _forget_others(directory: Path) -> None:
    """Delete the data and checkpoints of other sweeps; what they came to stays."""
    for other in directory.parent.glob("*/inputs.json"):
        if other.parent != directory:
            for folder in [other.parent / "datasets", *(other.parent / "trials").glob("*/training")]:
                shutil.rmtree(folder, ignore_errors=True)
