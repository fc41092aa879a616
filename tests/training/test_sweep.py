"""A sweep: what its study remembers, and real trials of a tiny model in child processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import Cancelled, InhouseError, Repository, StateUnwritable, no_progress
from inhouse_training import BaseModel, Recipe, RowScore, load_recipe, run_sweep
from inhouse_training.child import Child
from inhouse_training.evaluation import Interval
from inhouse_training.gate import MAX_FORGETTING
from inhouse_training.machines import Machine, visible_gpus
from inhouse_training.memory import GIB
from inhouse_training.recipe import parse_recipe
from inhouse_training.sweep import job as sweeping
from inhouse_training.sweep.leg import LEGS, LegResult
from inhouse_training.sweep.space import own_choice, space_around
from inhouse_training.sweep.study import STARTUP_TRIALS, Study, within_bounds
from inhouse_training.sweep.trials import Work, run_trials
from inhouse_training.sweep.yardstick import Score

from .conftest import TINY
from .history import make_history
from .test_finetune import children, is_running

TWO_CORES = Machine("2 cores", False, 24 * GIB, 0.1)
SMALL = TINY.format(budget=1600, rate=1e-3) + "[sweep]\nbatches = [2]\nmixes = { edits = { file_share = 0.2 } }\n"


def leg(percent: int, gain: float, forgot: float = 0.0) -> LegResult:
    """What a leg of a trial came to."""
    score = Score(Interval(gain, gain - 0.1, gain + 0.1), {"English": forgot, "Python": -0.1}, (RowScore(1.0, 2),))
    return LegResult(percent, score, 8, 1000, 2.0, 1.5)


def open_study(folder: Path, recipe: Recipe) -> Study:
    return Study(folder / "study.sqlite", space_around(recipe), own_choice(recipe), recipe.seed)


def test_where_all_failed_the_recipe_as_it_is_comes_first_again(tmp_path: Path, tiny_recipe: Recipe) -> None:
    study = open_study(tmp_path, tiny_recipe)
    for _ in range(2):
        study.failed(study.ask(), "The disk is full.")
    assert {trial.state for trial in study.tried()} == {"failed"}
    again = open_study(tmp_path, tiny_recipe)
    first = again.ask()
    assert first.params == own_choice(tiny_recipe)
    again.finished(first, leg(LEGS[0], 0.2))
    assert open_study(tmp_path, tiny_recipe).ask().params != own_choice(tiny_recipe), "it has had its turn"


def test_a_child_is_asked_to_stop_once(tmp_path: Path) -> None:
    """It counts what it is sent while it takes its time; its module is a script of this test's."""
    (tmp_path / "patient.py").write_text(
        "import signal, sys, time, os\n"
        "asked = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: asked.append(1))\n"
        'os.write(int(sys.argv[2]), b\'{"event": "ready"}\\n\')\n'
        "while not asked: time.sleep(0.01)\n"
        'os.write(int(sys.argv[2]), b\'{"event": "asked"}\\n\')\n'
        "time.sleep(0.3)\n"
        "open('asked', 'w').write(str(len(asked)))\n"
    )
    child = Child("patient", tmp_path, tmp_path / "log", {})
    assert child.received() == [{"event": "ready"}], (tmp_path / "log").read_text()
    child.stop()
    assert child.received() == [{"event": "asked"}]
    child.end()
    assert (tmp_path / "asked").read_text() == "1"


def test_a_trial_that_falls_behind_is_given_up(tmp_path: Path, tiny_recipe: Recipe) -> None:
    study = open_study(tmp_path, tiny_recipe)
    for number in range(STARTUP_TRIALS):
        trial = study.ask()
        assert number or trial.params == own_choice(tiny_recipe)
        assert study.goes_on(trial, leg(LEGS[0], -1.0 if number == 1 else 0.2 + number / 100)), (
            "too few to compare with"
        )
        study.finished(trial, leg(LEGS[-1], 0.3 + number / 100))
    behind, ahead = study.ask(), study.ask()
    assert not study.goes_on(behind, leg(LEGS[0], 0.1))
    study.finished(behind, leg(LEGS[0], 0.1), pruned=True)
    assert study.goes_on(ahead, leg(LEGS[0], 0.5))
    study.finished(ahead, leg(LEGS[-1], 0.6))
    states = [(trial.state, trial.gain) for trial in study.tried()[-2:]]
    assert states == [("pruned", 0.1), ("finished", 0.6)]


def test_the_best_is_one_that_the_gate_would_not_reject(tmp_path: Path, tiny_recipe: Recipe) -> None:
    study = open_study(tmp_path, tiny_recipe)
    results = {}
    for gain, forgot in ((0.2, 0.0), (0.9, MAX_FORGETTING + 0.01), (0.3, MAX_FORGETTING)):
        trial = study.ask()
        study.goes_on(trial, leg(LEGS[0], gain, forgot))
        results[trial.number] = leg(LEGS[-1], gain, forgot)
        study.finished(trial, results[trial.number])
    failed = study.ask()
    study.failed(failed, "It did not fit.")
    tried = study.tried()
    assert [trial.reason for trial in tried] == ["", "", "", "It did not fit."]
    assert [trial.gain for trial in within_bounds(tried, results)] == [0.3, 0.2]


def test_after_a_kill_the_trial_that_ran_comes_first_again(tmp_path: Path, tiny_recipe: Recipe) -> None:
    killed = open_study(tmp_path, tiny_recipe)
    done = killed.ask()
    killed.finished(done, leg(LEGS[-1], 0.2))
    ran, beside = killed.ask().params, killed.ask().params
    again = open_study(tmp_path, tiny_recipe)
    assert [trial.number for trial in again.tried()] == [done.number]
    assert [again.ask().params, again.ask().params] == [ran, beside]
    assert again.ask().params not in (ran, beside)


FULL = """
import resource, signal, sys
from pathlib import Path
from inhouse_training import load_recipe
from inhouse_training.sweep.space import own_choice, space_around
from inhouse_training.sweep.study import Study, plain_storage_errors
recipe, file = load_recipe("cpu-trial"), Path(sys.argv[1])
study = Study(file, space_around(recipe), own_choice(recipe), 1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = file.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    with plain_storage_errors(file):
        for _ in range(200):
            study.ask()
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.long
def test_a_full_disk_under_the_study_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path / "study.sqlite")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert said.stdout.startswith("StateUnwritable") and "study.sqlite cannot be read or written" in said.stdout


def test_a_mix_that_cannot_be_built_fails_its_trial_and_not_the_sweep(tmp_path: Path) -> None:
    recipe = parse_recipe(SMALL, "tiny", "tiny.toml")
    study = open_study(tmp_path, recipe)
    answers: list[Exception] = [InhouseError("There is no such text.", "Write some."), Cancelled("Enough.")]

    def dataset(mix: str) -> Path:
        raise answers.pop(0)

    work = Work(tmp_path, BaseModel("tiny", tmp_path, "0" * 64, ""), recipe, space_around(recipe), dataset)
    with pytest.raises(Cancelled):
        run_trials(study, work, (), 5, None, no_progress)
    assert [(each.state, each.reason) for each in study.tried()] == [("failed", "There is no such text. Write some.")]
    answers += [InhouseError(f"Mix {number} is empty.") for number in range(3)]
    with pytest.raises(InhouseError, match=r"^3 trials in a row failed; the last one said: Mix 2 is empty\."):
        run_trials(study, work, ("0", "1"), 5, None, no_progress)
    assert len(study.tried()) == 4 and not answers
    answers.append(StateUnwritable("The disk is full."))
    with pytest.raises(StateUnwritable):
        run_trials(study, work, (), 5, None, no_progress)
    assert len(study.tried()) == 4, "that was no fault of the mix"


def test_gpus_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8f2a,")
    assert visible_gpus() == ("3", "GPU-8f2a")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ("0", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert visible_gpus() == ()


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Enough changes to hold some out twice."""
    return make_history(tmp_path_factory.mktemp("longer") / "shop", commits=30)


JOB = """
import json, sys
from pathlib import Path
from inhouse_retrieval import Repository
from inhouse_training import BaseModel, load_recipe, run_sweep
from inhouse_training.machines import Machine
base, root, state, recipe, trials = sys.argv[1:]
base = BaseModel("tiny", Path(base), "0" * 64, "")
machine = Machine("2 cores", False, 24 << 30, 0.1)
result = run_sweep(Repository.open(Path(root)), Path(state), load_recipe(recipe), base, machine, int(trials))
print(json.dumps(result.to_json()))
"""


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_sweep_that_is_killed_goes_on_and_leaves_nothing_behind(
    tiny_base: BaseModel, longer: Repository, tmp_path: Path
) -> None:
    file, state = tmp_path / "tiny.toml", tmp_path / "state"
    file.write_text(SMALL)
    state.mkdir()
    command = [sys.executable, "-c", JOB, *map(str, (tiny_base.path, longer.root, state, file, 2))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 600
        while not list(state.glob("sweeps/*/trials/*/training/checkpoints/checkpoint-*")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        legs = children(process.pid)
        trainers = [trainer for child in legs for trainer in children(child)]
        process.kill()
    assert legs and trainers
    deadline = time.monotonic() + 20
    while any(map(is_running, [*legs, *trainers])):
        assert time.monotonic() < deadline, "a child outlived the sweep"
        time.sleep(0.05)
    (begun,) = state.glob("sweeps/*/trials/*")

    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert [trial["state"] for trial in result["trials"]] == ["finished", "finished"]
    folders = set(state.glob("sweeps/*/trials/*"))
    assert len(folders) == 2 and begun in folders, "the trial that was killed went on"
    sweep = Path(result["directory"])
    left = {path.name for path in sweep.iterdir()} | {path.name for path in begun.iterdir()}
    assert not left & {"datasets", "training"} and not list(sweep.rglob("*.partial"))

    # What chose is in the recipe, and the recipe is one.
    recipe = load_recipe(result["recipe"])
    best = next(trial for trial in result["trials"] if trial["number"] == result["best"])
    assert best["gain"] == max(trial["gain"] for trial in result["trials"])
    assert (recipe.lora.rank, recipe.optimizer.learning_rate) == (best["rank"], best["learning_rate"])
    assert recipe.selected_until and result["judging_changes"] > result["selection_changes"] >= 5
    page = Path(result["report"]).read_text()
    assert "data:image/svg+xml;base64," in page and "Trials, best first" in page
    assert "<script" not in page and "http:" not in page.replace("http://www.w3.org", "")

    # Asked again, nothing is trained again.
    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert json.loads(again.stdout.splitlines()[-1])["trials"] == result["trials"]


@pytest.mark.long
def test_two_gpus_work_at_two_trials_and_a_stop_ends_both(
    tiny_base: BaseModel, longer: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "visible_gpus", lambda: ("4", "7"))
    recipe = parse_recipe(SMALL, "tiny", "tiny.toml")
    strangers = set(children(os.getpid()))
    seen: list[str] = []

    def told(stage: str, done: int, total: int | None) -> None:
        here = set(children(os.getpid())) - strangers
        if stage == "trials" and len(here) == 2:
            variables = [Path(f"/proc/{child}/environ").read_bytes().split(b"\0") for child in here]
            seen.extend(line.decode() for each in variables for line in each if b"CUDA_VISIBLE" in line)
            raise Cancelled("Enough.")

    with pytest.raises(Cancelled):
        run_sweep(longer, tmp_path, recipe, tiny_base, TWO_CORES, 4, None, told)
    assert sorted(seen) == ["CUDA_VISIBLE_DEVICES=4", "CUDA_VISIBLE_DEVICES=7"]
    assert set(children(os.getpid())) <= strangers


@pytest.mark.long
def test_trials_that_fail_are_told_in_a_sentence_and_end_the_sweep(
    tiny_base: BaseModel, longer: Repository, tmp_path: Path
) -> None:
    # The loss is no number from the first step on.
    recipe = parse_recipe(SMALL.replace("learning_rate = 0.001", "learning_rate = 1e30"), "tiny", "tiny.toml")
    with pytest.raises(InhouseError, match=r"3 trials in a row failed.* became (nan|inf) at step") as told:
        run_sweep(longer, tmp_path, recipe, tiny_base, TWO_CORES, 9)
    assert "Traceback" not in str(told.value)
    assert not list(tmp_path.glob("sweeps/*/trials/*/training"))


def test_a_sweep_over_other_changes_is_another_one(history: Repository, tiny_base: BaseModel, tmp_path: Path) -> None:
    recipe = parse_recipe(SMALL, "tiny", "tiny.toml")
    plan = sweeping.plan_sweep(history, tmp_path, recipe, tiny_base, TWO_CORES)
    same = sweeping.plan_sweep(history, tmp_path, recipe, tiny_base, TWO_CORES)
    assert plan.directory == same.directory and not list(tmp_path.iterdir())
    other: list[Any] = [
        sweeping.plan_sweep(history, tmp_path, recipe, tiny_base, TWO_CORES, retrieval=False),
        sweeping.plan_sweep(history, tmp_path, recipe, replace(tiny_base, sha256="1" * 64), TWO_CORES),
        sweeping.plan_sweep(history, tmp_path, load_recipe("cpu-trial"), tiny_base, TWO_CORES),
    ]
    assert len({plan.directory, *(each.directory for each in other)}) == 4
