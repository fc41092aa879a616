"""Runs on disk: one folder for each set of inputs, shared by the dataset, training and retraining commands.

The folder's name is a hash of the inputs, so that a job that was killed goes on where it was, and what one
command made (a dataset, a trained adapter) the next one uses.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from inhouse_retrieval import Busy, PullRequestStore, Repository, StateUnwritable, Wiki

from .base_model import BaseModel
from .chat_template import template_digest
from .cut import Cut, cut_repository, whole_history
from .dataset import FORMAT, Dataset, is_whole
from .memory import check_targets
from .recipe import Recipe
from .registry import AdapterManifest, bytes_under
from .synthesis.cache import replies_digest
from .synthesis.rows import wanted_topics
from .written_conversations import conversations_digest

KEPT_RUNS = 5
"""Finished runs whose dataset stays."""
_HOLDER = "retrain.pid"
_DISK_ERRORS = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOTDIR, errno.EEXIST
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One set of inputs and the folder that holds what is made from it.

    Attributes:
        directory: ``dataset/``, ``training/``, ``evaluation.json``, ``report.html`` and ``result.json`` lie
        in it, and an ``evaluation-VERSION/`` for each version that was evaluated on its own.
    """

    cut: Cut
    inputs: dict[str, Any]
    directory: Path

    @property
    def dataset(self) -> Path:
        """Where the dataset is built."""
        return self.directory / "dataset"

    @property
    def training(self) -> Path:
        """Where the adapter is trained."""
        return self.directory / "training"


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A retraining that has ended.

    Attributes:
        result: what ``result.json`` holds.
        started, finished: in UTC; the first call's start is not kept when a run was continued.
    """

    directory: Path
    result: dict[str, Any]
    started: datetime
    finished: datetime


def finished_runs(state_dir: Path) -> list[FinishedRun]:
    """The retrainings of a repository that have ended, that which ended last first."""
    found = []
    for path in (state_dir / "runs").glob("*/result.json"):
        result = read_json(path)
        if result:
            finished = datetime.fromisoformat(result["finished"])
            # Runs of earlier versions of inhouse noted only their end.
            started = datetime.fromisoformat(result.get("started", result["finished"]))
            found.append(FinishedRun(path.parent, result, started, finished))
    return sorted(found, key=lambda run: run.finished, reverse=True)


def open_run(
    repository: Repository,
    state_dir: Path,
    recipe: Recipe,
    base: BaseModel,
    retrieval: bool = True,
    all_data: bool = False,
) -> Run:
    """The run that belongs to the repository as it is now. Its folder is made by :func:`start_run`.

    Args:
        all_data: hold nothing out.

    Raises:
        InhouseError: the history is too short to hold anything out, hand-made conversations or exports cannot be read,
            or the base model has no such layers as the recipe names.
    """
    check_targets(recipe, base)
    with PullRequestStore.if_there(state_dir) or contextlib.nullcontext() as store:
        cut = (whole_history if all_data else cut_repository)(repository, recipe, store)
    inputs = inputs_of(cut, repository, state_dir, recipe, base, retrieval)
    if all_data:
        inputs["all_data"] = True
    name = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]
    return Run(cut, inputs, state_dir / "runs" / name)


def inputs_of(
    cut: Cut, repository: Repository, state_dir: Path, recipe: Recipe, base: BaseModel, retrieval: bool
) -> dict[str, Any]:
    """Everything that what is made from a cut depends on, as its folder notes it."""
    generated = replies_digest(state_dir, wanted_topics(recipe.data))
    return {
        "format": FORMAT,
        "snapshot": cut.snapshot,
        "training": [change.commit for change in cut.training],
        "held_out": [change.commit for change in cut.held_out],
        "recipe": recipe.model_dump(mode="json"),
        "base_sha256": base.sha256,
        "chat_template": template_digest(base.path) if base.sha256 else "",
        "retrieval": retrieval,
        "exclude": list(repository.exclude),
        "wiki": [*repository.wiki, *Wiki(repository).states_until(cut.as_of)],
        **({"forge": cut.forge} if cut.forge else {}),
        **({"exports": cut.exports} if cut.exports else {}),
        **({"conversations": conversations_digest(cut.conversations)} if cut.conversations else {}),
        **({"synthesis": generated} if generated else {}),
    }


def start_run(run: Run) -> None:
    """Make the run's folder and note its inputs there."""
    run.directory.mkdir(parents=True, exist_ok=True)
    write_json(run.directory / "inputs.json", run.inputs)


@contextlib.contextmanager
def hold_runs(state_dir: Path) -> Iterator[None]:
    """Hold a repository's runs: one job at a time builds, trains or evaluates.

    Raises:
        Busy: another process holds them.
        StateUnwritable: the state directory cannot be written, before or while they are held.
    """
    with _plain_disk_errors(state_dir), _locked(state_dir):
        yield


def runs_holder(state_dir: Path) -> int | None:
    """The process that builds, trains or evaluates now; ``None`` when none does. Nothing is written."""
    try:
        pid = int((state_dir / _HOLDER).read_text(encoding="ascii"))
        os.kill(pid, 0)
    except PermissionError:  # it lives, and is another user's
        return pid
    except (OSError, ValueError):
        return None
    return pid


@contextlib.contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(state_dir / "retrain.lock")
    holder = state_dir / _HOLDER
    try:
        lock.acquire(timeout=0)
    except Timeout:
        pid = holder.read_text(encoding="ascii").strip() if holder.exists() else ""
        raise Busy(
            f"This repository is being retrained already{f' by process {pid}' if pid else ''}.",
            "Wait for it to end, or stop that process.",
        ) from None
    try:
        holder.write_text(f"{os.getpid()}\n", encoding="ascii")
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def _plain_disk_errors(state_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise StateUnwritable(
            f"{state_dir} cannot be written: {os.strerror(error.errno)}.",
            "Free some space or correct its permissions; the job then goes on where it stopped.",
        ) from error


def forget_runs(state_dir: Path, unfinished: bool = False, dry_run: bool = False) -> int:
    """Delete the data and adapters of older runs. Results and reports stay, so that those runs are still skipped.

    The newest finished run keeps its training folder, the newest :data:`KEPT_RUNS` their datasets.

    Args:
        unfinished: also delete what was interrupted, except the newest: that one can go on.

    Returns:
        Bytes that were freed, or would be.
    """
    runs = state_dir / "runs"
    finished = _newest_first(runs.glob("*/result.json"))
    doomed = [run / "training" for run in finished[1:]] + [run / "dataset" for run in finished[KEPT_RUNS:]]
    if unfinished:
        interrupted = [run for run in _newest_first(runs.glob("*/inputs.json")) if run not in finished]
        doomed += [run / part for run in interrupted[1:] for part in ("training", "dataset")]
    freed = sum(bytes_under(folder) for folder in doomed)
    if not dry_run:
        for folder in doomed:
            shutil.rmtree(folder, ignore_errors=True)
    return freed


def forget_superseded(state_dir: Path, run: Run) -> None:
    """Delete the data of earlier runs of the same recipe that never finished: ``run`` looks at what they looked at and
    at what landed since. What another recipe made can go on."""
    for noted in (state_dir / "runs").glob("*/inputs.json"):
        inputs = read_json(noted)
        if noted.parent == run.directory or inputs is None or inputs["recipe"] != run.inputs["recipe"]:
            continue
        if not (noted.parent / "result.json").exists():
            for part in ("training", "dataset"):
                shutil.rmtree(noted.parent / part, ignore_errors=True)


def dataset_of(state_dir: Path, version: AdapterManifest) -> Dataset | None:
    """The dataset that a version was trained on; ``None`` when its run's data are gone (:func:`forget_runs`)."""
    rows = version.dataset.get("rows_sha256")
    for manifest in sorted((state_dir / "runs").glob("*/dataset/manifest.json")):
        stored = read_json(manifest)
        if rows and stored is not None and stored.get("rows_sha256") == rows and is_whole(manifest.parent):
            return Dataset(manifest.parent)
    return None


def _newest_first(files: Iterable[Path]) -> list[Path]:
    """The folders of ``files``, that of the last written file first."""
    return [path.parent for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)]


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in ``path``, or ``None`` when the stage that writes it has not finished."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        # Written by rename, so a broken file means a broken disk; the stage is then done again.
        return None
    return found


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` so that ``path`` holds either all of it or what it held before."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
