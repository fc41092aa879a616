"""Training on everything, as the article did: nothing is held out, so nothing can judge what comes of it.

Such a version is registered as not evaluated. The gate never sees it; a person may promote it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from inhouse_retrieval import Progress, Repository, no_progress

from .base_model import BaseModel, load_tokenizer
from .dataset import build_dataset
from .devices import MakeRoom, as_it_is
from .finetune import check_run, finetune, training_curve
from .recipe import Recipe
from .registry import Registry
from .replay import replay_source
from .retrain import (
    NOT_EVALUATED,
    RetrainResult,
    finished_result,
    nothing_changed,
    now,
    training_metrics,
    version_manifest,
)
from .runs import forget_runs, hold_runs, open_run, start_run, write_json
from .synthesis.cache import stored_replies


def retrain_on_everything(
    repository: Repository,
    state_dir: Path,
    recipe: Recipe,
    base: BaseModel,
    progress: Progress = no_progress,
    make_room: MakeRoom = as_it_is,
) -> RetrainResult:
    """Train the recipe on the whole history up to the newest commit, and register the version without promoting it.

    Args:
        make_room: as :func:`~inhouse_training.retrain.retrain` takes it.

    Raises:
        Busy: another retraining of this repository runs.
        StateUnwritable: the state directory cannot be written.
        Cancelled: ``progress`` raised it; the next call goes on from there.
        InhouseError: training stopped.
    """
    with hold_runs(state_dir):
        registry = Registry(state_dir / "adapters")
        progress("reading the history", 0, None)
        run = open_run(repository, state_dir, recipe, base, all_data=True)
        finished = finished_result(run, registry)
        if finished is not None:
            reason = nothing_changed(finished)
            return RetrainResult(
                "skipped", (reason,), finished["candidate"], registry.current(), finished["metrics"], None
            )
        check_run(recipe, base)
        started = now()
        start_run(run)
        tokenizer = load_tokenizer(base)
        replay = replay_source(base, recipe, progress, make_room)
        generated = partial(stored_replies, state_dir)
        dataset = build_dataset(repository, tokenizer, recipe, run.cut, run.dataset, progress, replay, generated)
        make_room()
        adapter = finetune(base, dataset.directory, recipe, run.training, progress)
        curve = training_curve(run.training)
        metrics = {"training": training_metrics(curve)}
        current = registry.current()
        version = registry.add(adapter, version_manifest(dataset, recipe, base, metrics, current, evaluated=False))
        reason = (
            f"{version.version} was trained on everything, so no later change is left to evaluate it on. It was not "
            f"promoted: 'inhouse adapters promote {version.version}' does that by hand."
        )
        result = RetrainResult(NOT_EVALUATED, (reason,), version.version, current, metrics, None)
        write_json(run.directory / "result.json", {**result.to_json(), "started": started, "finished": now()})
        forget_runs(state_dir)
        return result
