"""The training child process: what a trainer is given, how it reports, and what both trainers share.

A trainer is a module that :mod:`inhouse_training.finetune` starts as ``python -m
inhouse_training.trainers.NAME RUN_DIR PIPE PARENT``. It reads ``RUN_DIR/job.json``, writes one JSON object
a line into the pipe, keeps checkpoints under ``RUN_DIR/checkpoints`` and leaves the adapter in
``RUN_DIR/adapter``, which appears only when it is complete.

Nothing here imports torch, so that the parent can use it.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..base_model import BaseModel
from ..recipe import Recipe

PR_SET_PDEATHSIG = 1
STOPPED_EXIT_CODE = 75


@dataclass(frozen=True, slots=True)
class Job:
    """One run.

    Attributes:
        dataset: folder of the dataset.
        rows_sha256: of its rows, so that a run is never continued on other data.
        passes: times that the rows are seen.
    """

    base: BaseModel
    dataset: Path
    rows_sha256: str
    passes: int
    recipe: Recipe

    def to_json(self) -> dict[str, Any]:
        """As ``job.json`` holds it."""
        return {
            "base": {**asdict(self.base), "path": str(self.base.path)},
            "dataset": str(self.dataset),
            "rows_sha256": self.rows_sha256,
            "passes": self.passes,
            "recipe": self.recipe.model_dump(mode="json"),
        }

    @staticmethod
    def load(run_dir: Path) -> Job:
        """Read ``job.json`` of a run."""
        stored = json.loads((run_dir / "job.json").read_text(encoding="utf-8"))
        base = BaseModel(**{**stored["base"], "path": Path(stored["base"]["path"])})
        recipe = Recipe.model_validate_json(json.dumps(stored["recipe"]))
        return Job(base, Path(stored["dataset"]), stored["rows_sha256"], stored["passes"], recipe)


class TrainingStopped(Exception):
    """Training cannot go on; the message is the reason, as the end of the sentence "Training stopped: …"."""


class Reporter:
    """Writes events into the pipe to the parent: ``{"event": NAME, …}``, one a line."""

    def __init__(self, pipe: int) -> None:
        self._pipe = os.fdopen(pipe, "w", encoding="utf-8", buffering=1)

    def send(self, event: str, **values: object) -> None:
        """Send one event."""
        self._pipe.write(json.dumps({"event": event, **values}) + "\n")


def run_trainer(train: Callable[[Job, Path, Reporter], bool]) -> None:
    """Be the child process: ``train`` returns whether it came to its end (and not to a request to stop)."""
    run_dir, pipe, parent = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    die_with(parent)
    reporter = Reporter(pipe)
    try:
        finished = train(Job.load(run_dir), run_dir, reporter)
    except TrainingStopped as stopped:
        reporter.send("failed", reason=str(stopped))
        sys.exit(1)
    if not finished:
        sys.exit(STOPPED_EXIT_CODE)
    reporter.send("finished")


def die_with(parent: int) -> None:
    """End this process when its parent ends, however the parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The newest complete checkpoint; half-written ones are removed.

    The trainer writes ``trainer_state.json`` last, so a checkpoint with a readable one is complete.
    """
    complete: dict[int, Path] = {}
    for folder in checkpoints.glob("checkpoint-*"):
        try:
            step = int(json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["global_step"])
        except (OSError, ValueError, KeyError):
            shutil.rmtree(folder, ignore_errors=True)
            continue
        complete[step] = folder
    return complete[max(complete)] if complete else None
