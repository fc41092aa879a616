"""What a retraining would look at and do, told beforehand. Nothing is written where the state lies."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from inhouse_retrieval import InhouseError, Progress, Repository, no_progress

from .base_model import DEFAULT_BASE, BaseModel, find_base_model, load_tokenizer
from .cut import Cut
from .dataset import Dataset, build_dataset, is_whole
from .finetune import training_curve, training_passes
from .forecast import Forecast, RowCount, count_rows, forecast_training
from .judging import current_before, judging_changes
from .machines import Machine
from .recipe import Recipe
from .registry import AdapterVersion, Registry
from .retrain import finished_result, nothing_changed
from .room import Room
from .runs import Run, open_run, read_json
from .synthesis.cache import stored_replies


@dataclass(frozen=True, slots=True)
class RetrainPlan:
    """What :func:`~inhouse_training.retrain.retrain` would do now.

    Attributes:
        decision: ``"train"``, ``"skip"`` for the ``reasons``, each a sentence, or ``"refuse"`` for what does not fit or
            could not be judged.
        snapshot: the commit that would be trained on.
        training_changes, held_out_changes: how many changes there are of each.
        current: the adapter that the candidate would compete with.
        run: the folder of the run.
        steps_done: optimiser steps that an interrupted run has done already.
        rows, row_tokens: of the dataset, if it was built already.
        training_tokens: what training would read, all passes together; an estimate from ``predicted_from`` when there
            is no dataset yet.
        predicted_seconds: how long training alone would take at the speed of ``predicted_from``, the newest version
            that this base model was trained to here.
        forecast: rows, steps, memory, time and cost of the training, where it was asked for.
        room: where its memory would come from, on this machine.
    """

    decision: Literal["train", "skip", "refuse"]
    reasons: tuple[str, ...]
    recipe: str
    base_model: str
    snapshot: str
    training_changes: int
    held_out_changes: int
    current: str | None
    run: Path
    steps_done: int
    rows: int | None
    row_tokens: int | None
    training_tokens: int | None
    predicted_seconds: float | None
    predicted_from: str | None
    forecast: Forecast | None = None
    room: Room | None = None

    def to_json(self) -> dict[str, Any]:
        """The stable JSON contract of ``inhouse retrain --dry-run --json``."""
        forecast = self.forecast.to_json() if self.forecast is not None else None
        return {**asdict(self), "reasons": list(self.reasons), "run": str(self.run), "forecast": forecast}


def plan_retraining(
    repository: Repository,
    state_dir: Path,
    recipe: Recipe,
    base: BaseModel,
    retrieval: bool = True,
    judged: bool = True,
) -> RetrainPlan:
    """Look at the repository as a retraining would.

    Args:
        judged: whether the candidate is judged; a training alone needs no changes for that.

    Raises:
        InhouseError: the history is too short.
    """
    registry = Registry(state_dir / "adapters")
    run = open_run(repository, state_dir, recipe, base, retrieval)
    finished = finished_result(run, registry)
    steps = len(training_curve(run.training))
    manifest = read_json(run.dataset / "manifest.json")
    tokens = None
    if manifest is not None:
        tokens = manifest["row_tokens"] * training_passes(recipe, manifest["row_tokens"])
    example = _example(registry, recipe, base)
    seconds = None
    if example is not None:
        past = example.manifest.metrics["training"]
        if tokens is None and example.manifest.recipe == recipe.model_dump(mode="json"):
            tokens = past["tokens"]
        if tokens is not None:
            seconds = round(tokens * past["seconds"] / past["tokens"], 1)
    reason = _reason_to_train(run, registry, steps) if finished is None else nothing_changed(finished)
    refusal = _not_to_be_judged(repository, registry, recipe, base, run) if finished is None and judged else ""
    return RetrainPlan(
        decision="skip" if finished is not None else "refuse" if refusal else "train",
        reasons=(refusal or reason,),
        recipe=recipe.name,
        base_model=base.name,
        snapshot=run.cut.snapshot,
        training_changes=len(run.cut.training),
        held_out_changes=len(run.cut.held_out),
        current=registry.current(),
        run=run.directory,
        steps_done=steps,
        rows=manifest["rows"] if manifest else None,
        row_tokens=manifest["row_tokens"] if manifest else None,
        training_tokens=tokens,
        predicted_seconds=seconds,
        predicted_from=example.version if example and seconds is not None else None,
    )


def _not_to_be_judged(repository: Repository, registry: Registry, recipe: Recipe, base: BaseModel, run: Run) -> str:
    """Why nothing could judge the candidate; empty when there are changes enough."""
    try:
        judging_changes(repository, registry, recipe, run.cut, current_before(registry, base, run)[0])
    except InhouseError as error:
        return f"{error.problem} {error.remedy}"
    return ""


def with_forecast(
    plan: RetrainPlan,
    run: Run,
    repository: Repository,
    state_dir: Path,
    recipe: Recipe,
    base: BaseModel,
    machine: Machine,
    price: float | None,
    here: bool = True,
    progress: Progress = no_progress,
    room: Room | None = None,
) -> RetrainPlan:
    """The plan with what its training would take; a run that does not fit the machine is refused.

    Args:
        price: of the machine for an hour.
        here: whether ``machine`` is this one, so that former runs tell how fast it is.
        room: where the memory would come from, if this machine was looked at: what is free there then counts in place
            of all that it has.
    """
    rows = count_planned(run.dataset, run.cut, repository, state_dir, recipe, base, progress)
    speed = None
    if here and plan.predicted_seconds and plan.training_tokens:
        speed = plan.training_tokens / plan.predicted_seconds
    if room is not None and machine.gpu:
        machine = replace(machine, memory=room.memory)
    forecast = forecast_training(recipe, base, rows, machine, price, speed)
    plan = replace(plan, forecast=forecast, room=room)
    if room is not None and room.decision == "refuse":
        return replace(plan, decision="refuse", reasons=(f"{room.told} {room.remedy}",))
    if forecast.refusal:
        return replace(plan, decision="refuse", reasons=(forecast.refusal,))
    return plan


def count_planned(
    directory: Path,
    cut: Cut,
    repository: Repository,
    state_dir: Path,
    recipe: Recipe,
    base: BaseModel,
    progress: Progress,
) -> RowCount | None:
    """Count the rows of a dataset: of the one in ``directory``, or of one that is built elsewhere and thrown away;
    ``None`` when there is no tokenizer to count with."""
    if is_whole(directory):
        return count_rows(Dataset(directory))
    remarks = []
    counting: BaseModel | None = base
    if not base.sha256:
        counting = find_base_model(DEFAULT_BASE)
        remarks.append(f"Counted with the tokenizer of {DEFAULT_BASE}, since {base.name} is not on this machine.")
    if counting is None:
        return None
    if recipe.data.replay_share:
        remarks.append("Replayed texts are drawn by the training itself and not counted.")
    with tempfile.TemporaryDirectory(prefix="inhouse-plan-") as scratch:
        made = Path(scratch) / "dataset"
        generated = partial(stored_replies, state_dir)
        tokenizer = load_tokenizer(counting)
        dataset = build_dataset(repository, tokenizer, recipe, cut, made, progress, generated=generated)
        return count_rows(dataset, " ".join(remarks))


def _example(registry: Registry, recipe: Recipe, base: BaseModel) -> AdapterVersion | None:
    """The newest version whose training tells how fast this one would be: the same base model, and the same recipe
    where there is one."""
    timed = [
        version
        for version in registry.list()
        if version.manifest.base_sha256 == base.sha256 and version.manifest.metrics.get("training", {}).get("tokens")
    ]
    same = [version for version in timed if version.manifest.recipe.get("name") == recipe.name]
    return max(same or timed, key=lambda version: version.manifest.created, default=None)


def _reason_to_train(run: Run, registry: Registry, steps: int) -> str:
    if read_json(run.directory / "result.json") is not None:
        return "The run of these inputs has finished, but the adapter that it made is gone or damaged."
    if steps:
        return f"The run of these inputs was interrupted after {steps} steps and would go on from its last checkpoint."
    if registry.current() is None:
        return "No run of these inputs has finished, and no adapter is current."
    return "No run of these inputs has finished: the changes, the recipe or the base model are others than before."
