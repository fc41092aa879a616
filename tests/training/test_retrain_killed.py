"""Retraining that is killed at random points, again and again: it ends as one that nothing disturbed.

After each kill what is current loads, and the disk holds no more than an undisturbed run takes at its peak.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inhouse_training import BaseModel, Registry
from inhouse_training.registry import bytes_under

from .test_retrain_interrupted import Job, members

LONGEST_DELAY_S = 0.1
"""After a progress line, so that kills fall between the points that tell of themselves, too."""


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kills", [int(os.environ.get("KILLS", "50"))])
def test_killed_at_random_points_it_ends_as_if_undisturbed(kills: int, tmp_path: Path, tiny_base: BaseModel) -> None:
    job = Job(tmp_path, tiny_base)
    expected, lines, peak = undisturbed(job)
    shutil.rmtree(job.state)
    draw = random.Random(50)
    killed = finished = 0
    stages: set[str] = set()
    job.state.mkdir()
    while killed < kills or not finished:
        stage = kill_after(job, draw.randint(1, lines) if killed < kills else None, draw.random() * LONGEST_DELAY_S)
        registry = Registry(job.state / "adapters")
        current = registry.current()
        assert current is None or registry.is_sound(current)
        assert bytes_under(job.state) <= peak * 1.5, stage
        if isinstance(stage, str):
            killed += 1
            stages.add(stage)
            continue
        finished += 1
        decision, figures = outcome(stage)
        # A run that was killed with its result already written is skipped, and tells what it came to.
        assert decision in (expected[0], "skipped") and figures.keys() == expected[1].keys()
        assert (registry.current() is not None) == (expected[0] == "promoted")
        # A run that goes on from a checkpoint adds in another order: only rounding may differ.
        assert figures == pytest.approx(expected[1], abs=2e-3)
        shutil.rmtree(job.state)
        job.state.mkdir()
    assert len(stages) >= 5 or kills < 20


def undisturbed(job: Job) -> tuple[tuple[str, dict[str, float]], int, int]:
    """What a run comes to, how many lines of progress it prints, and the most that lay on disk meanwhile."""
    lines = peak = 0
    line = ""
    with job.start() as process:
        assert process.stdout is not None
        for line in process.stdout:  # noqa: B007  (the last one is read below)
            lines += 1
            peak = max(peak, bytes_there(job.state))
    return outcome(json.loads(line)), lines - 1, peak


def kill_after(job: Job, lines: int | None, delay: float) -> str | dict[str, Any]:
    """Kill a run after so many lines of progress; the stage that it was in, or its result if it ended before."""
    last = ""
    with job.start() as process:
        assert process.stdout is not None
        for number, line in enumerate(process.stdout, start=1):
            last = line
            if number == lines:
                time.sleep(delay)
                process.kill()
                process.stdout.read()
                break
    deadline = time.monotonic() + 60
    while group := members(process.pid):
        assert time.monotonic() < deadline, f"{group} outlived the job"
        time.sleep(0.05)
    if process.returncode == -signal.SIGKILL:
        return last.strip()
    assert process.returncode == 0, last
    result: dict[str, Any] = json.loads(last) if last.startswith("{") else newest_result(job)
    return result


def newest_result(job: Job) -> dict[str, Any]:
    """It had printed its result already when it was to be killed."""
    (path,) = (job.state / "runs").glob("*/result.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def bytes_there(folder: Path) -> int:
    """As :func:`bytes_under`, while files come and go."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def outcome(result: dict[str, Any]) -> tuple[str, dict[str, float]]:
    """The decision, and every figure but times."""
    return result["decision"], {
        name: value for name, value in figures_in(result["metrics"]) if not name.endswith(".seconds")
    }


def figures_in(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from figures_in(inner, f"{name}.{key}")
    elif isinstance(value, int | float):
        yield name, value
