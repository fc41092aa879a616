"""The training child process: what a trainer is given, how it reports, and what both trainers share.

A trainer is a module that :mod:`inhouse_training.finetune` starts as ``python -m
inhouse_training.trainers.NAME RUN_DIR PIPE PARENT``. It reads ``RUN_DIR/job.json``, writes one JSON object
a line into the pipe, keeps checkpoints under ``RUN_DIR/checkpoints`` and leaves the adapter in
``RUN_DIR/adapter``, which appears only when it is complete.

Nothing here imports torch, so that the parent can use it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inhouse_retrieval import InhouseError

from ..base_model import BaseModel
from ..recipe import Recipe

PR_SET_PDEATHSIG = 1
STOPPED_EXIT_CODE = 75
_NO_ROOM = ("can't allocate memory", "Cannot allocate memory", "could not create a primitive")
"""What torch and, the last of them, oneDNN say when a processor's memory runs out."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TORCH_WROTE_LESS = "unexpected pos"
"""What torch's writer of archives says when a disk took less than it was given; it does not say why."""


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


@dataclass(frozen=True, slots=True)
class Workers:
    """The processes that train together, and which of them this is."""

    rank: int
    size: int


def workers() -> Workers:
    """As torch.distributed's variables tell it; one worker where they are not set."""
    return Workers(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


class TrainingStopped(Exception):
    """Training cannot go on; the message is the reason, as the end of the sentence "Training stopped: …"."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


class Reporter:
    """Writes events into the pipe to the parent: ``{"event": NAME, …}``, one a line."""

    def __init__(self, pipe: int) -> None:
        self._pipe = os.fdopen(pipe, "w", encoding="utf-8", buffering=1)

    def send(self, event: str, **values: object) -> None:
        """Send one event; of several workers only the first tells more than failures."""
        if workers().rank and event != "failed":
            return
        self._pipe.write(json.dumps({"event": event, **values}) + "\n")


def run_trainer(train: Callable[[Job, Path, Reporter], bool]) -> None:
    """Be the child process: ``train`` returns whether it came to its end (and not to a request to stop)."""
    run_dir, pipe, parent = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    die_with(parent)
    reporter = Reporter(pipe)
    try:
        finished = train(Job.load(run_dir), run_dir, reporter)
    except Exception as error:
        tell_failure(reporter, error)
        sys.exit(1)
    if not finished:
        sys.exit(STOPPED_EXIT_CODE)
    reporter.send("finished")


def tell_failure(reporter: Reporter, error: Exception) -> None:
    """Tell the parent in sentences why this child ends; what nobody foresaw goes into the child's log in full."""
    room, full = out_of(error), why_full(error)
    if isinstance(error, TrainingStopped):
        reporter.send("failed", problem=f"Training stopped: {error}.", remedy=error.remedy)
    elif isinstance(error, InhouseError):
        reporter.send("failed", problem=error.problem, remedy=error.remedy)
    elif room:
        reporter.send(
            "failed",
            problem=f"The model and one batch do not fit {room}.",
            remedy="`inhouse train --dry-run` says what would fit.",
        )
    elif full:
        place = error.filename if isinstance(error, OSError) else None
        reporter.send(
            "failed",
            problem=f"{place or 'The disk'} cannot be written: {full}.",
            remedy="Free some space; the job then goes on where it stopped.",
        )
    else:
        traceback.print_exception(error)
        # Where several train together, the others' calls to one that ended fail in many ways.
        first = (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
        reporter.send(
            "failed",
            problem=f"It met a problem that inhouse does not know: {type(error).__name__}: {first}.",
            remedy="The log in its folder says more.",
            unforeseen=True,
        )


def why_full(error: Exception) -> str:
    """What the system says of a disk that takes no more, when this error tells of one; else empty.

    Only Python's own writing raises an ``OSError``: safetensors has a type of its own and Rust's text, torch a
    ``RuntimeError``, some a bare ``Exception``.
    """
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno in _FULL else ""
    told = f"{error} {error.__context__ or ''}"
    for number in _FULL:
        if os.strerror(number) in told:
            return os.strerror(number)
    return os.strerror(errno.ENOSPC) if isinstance(error, RuntimeError) and _TORCH_WROTE_LESS in told else ""


def out_of(error: Exception) -> str:
    """Which memory ran out; empty when none did. On a processor torch has no type of its own for it."""
    told = str(error)
    if "CUDA out of memory" in told:
        return "the GPU's memory"
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "this machine's memory"
    return "this machine's memory" if isinstance(error, RuntimeError) and any(map(told.__contains__, _NO_ROOM)) else ""


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
