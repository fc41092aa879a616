"""Retraining that is killed, stopped or runs out of disk at any stage, and then goes on. A tiny model, real TRL."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inhouse_training import BaseModel, Registry

from .conftest import TINY
from .history import make_history

JOB = """
import json, resource, signal, sys
from pathlib import Path
from inhouse_retrieval import InhouseError, Repository
from inhouse_training import BaseModel
from inhouse_training.recipe import load_recipe
from inhouse_training.retrain import retrain
base, root, state, recipe, room = sys.argv[1:]
def stop(signum, frame):
    raise KeyboardInterrupt
signal.signal(signal.SIGTERM, stop)
if int(room):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(room), int(room)))
def told(stage, done, total):
    print(stage, flush=True)
try:
    result = retrain(Repository.open(Path(root)), Path(state), load_recipe(recipe),
                     BaseModel("tiny", Path(base), "0" * 64, ""), told)
    print(json.dumps(result.to_json()), flush=True)
except KeyboardInterrupt:
    sys.exit(130)
except InhouseError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
    sys.exit(1)
"""
STAGES = (
    "reading the history",
    "reading held-out changes",
    "reading files",
    "loading the model",
    "training",
    "evaluating",
)


class Job:
    """One repository and what it takes to retrain on it in a process of its own."""

    def __init__(self, folder: Path, base: BaseModel) -> None:
        self.root = make_history(folder / "shop", commits=12).root
        self.state = folder / "state"
        self.state.mkdir()
        self.recipe = folder / "tiny.toml"
        self.recipe.write_text(TINY.format(budget=3000, rate=1e-3))
        self.base = base

    def start(self, room: int = 0) -> subprocess.Popen[str]:
        """``room``: the longest file that may be written, in bytes; 0 means no bound."""
        arguments = [self.base.path, self.root, self.state, self.recipe, room]
        command = [sys.executable, "-c", JOB, *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def stop_at(self, stage: str, number: signal.Signals) -> int:
        """Begin and send a signal at the first sight of ``stage``; the exit code, once no child is left."""
        with self.start() as process:
            assert process.stdout is not None
            seen = ""
            for line in process.stdout:
                seen += line
                if line.strip() == stage:
                    break
            else:
                raise AssertionError(f"{stage} did not come: {seen}")
            process.send_signal(number)
            process.stdout.read()
        deadline = time.monotonic() + 30
        while group := members(process.pid):
            assert time.monotonic() < deadline, f"{group} outlived the job"
            time.sleep(0.05)
        return process.returncode

    def finish(self) -> None:
        """Run to the end, and find everything in order."""
        with self.start() as process:
            said = process.communicate(timeout=300)[0]
        assert process.returncode == 0, said
        result = json.loads(said.splitlines()[-1])
        assert result["decision"] in ("promoted", "rejected"), result
        registry = Registry(self.state / "adapters")
        assert [version.version for version in registry.list()] == [result["candidate"]]
        registry.verify(result["candidate"])
        (run,) = (self.state / "runs").iterdir()
        assert Path(result["report"]).exists()
        left = [path.name for path in run.rglob("*") if "partial" in path.name or path.name == "checkpoints"]
        assert left == [] and not list((self.state / "adapters").glob(".adding-*"))


def members(session: int) -> list[int]:
    """Processes of this session that still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(") ", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(folder.name))
    return found


@pytest.fixture
def job(tmp_path: Path, tiny_base: BaseModel) -> Job:
    return Job(tmp_path, tiny_base)


def test_killed_and_stopped_at_stage_after_stage(job: Job) -> None:
    assert job.stop_at("training", signal.SIGKILL) == -signal.SIGKILL
    assert job.stop_at("evaluating", signal.SIGTERM) == 130
    job.finish()


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("stage", STAGES)
def test_killed_or_stopped_at_every_stage(job: Job, stage: str, number: signal.Signals) -> None:
    assert job.stop_at(stage, number) == (130 if number == signal.SIGTERM else -signal.SIGKILL)
    job.finish()


def test_a_full_disk_is_said(job: Job) -> None:
    fill_the_disk(job, 2_000)


@pytest.mark.long
@pytest.mark.parametrize("room", [2_000, 60_000])
def test_after_a_full_disk_the_job_goes_on(job: Job, room: int) -> None:
    # The dataset does not fit; then the dataset fits and the adapter's checkpoint does not.
    fill_the_disk(job, room)
    job.finish()


def fill_the_disk(job: Job, room: int) -> None:
    with job.start(room) as process:
        said = process.communicate(timeout=300)[0]
    assert process.returncode == 1, said
    assert "Traceback" not in said and "does not know" not in said, said
    # torch does not say why a disk took less than it was given.
    assert os.strerror(errno.EFBIG) in said or os.strerror(errno.ENOSPC) in said, said
