"""A retraining that has finished, as its files on disk: what training leaves without the minutes that it takes."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from inhouse_retrieval import Repository
from inhouse_training import AdapterManifest, BaseModel, Recipe, Registry, RetrainResult, open_run, start_run
from inhouse_training.registry import WEIGHTS_NAME
from inhouse_training.runs import write_json

METRICS = {"training": {"tokens": 6000, "seconds": 12.0, "steps": 8}}


def finish_run(
    repository: Repository, state_dir: Path, recipe: Recipe, base: BaseModel, started: datetime, retrieval: bool = True
) -> RetrainResult:
    """The files of a run on the repository as it is now, whose candidate was rejected."""
    run = open_run(repository, state_dir, recipe, base, retrieval)
    start_run(run)
    adapter = run.training / "adapter"
    adapter.mkdir(parents=True)
    (adapter / WEIGHTS_NAME).write_bytes(run.directory.name.encode())
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    manifest = AdapterManifest(
        base.name, base.sha256, run.cut.snapshot, recipe=recipe.model_dump(mode="json"), metrics=METRICS
    )
    version = Registry(state_dir / "adapters").add(adapter, manifest).version
    result = RetrainResult("rejected", ("It was no better.",), version, None, METRICS, None)
    times = {"started": started.isoformat(), "finished": (started + timedelta(minutes=20)).isoformat()}
    write_json(run.directory / "result.json", {**result.to_json(), **times})
    return result
