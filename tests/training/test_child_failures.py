"""Why a training child ends, told in sentences: memory, disk, a base model that changed."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from inhouse_retrieval import InhouseError, Repository
from inhouse_training import AdapterManifest, BaseModel, Recipe, Registry, open_run
from inhouse_training.cut import cut_repository
from inhouse_training.dataset import build_dataset
from inhouse_training.finetune import finetune, training_curve
from inhouse_training.judging import current_before
from inhouse_training.recipe import parse_recipe
from inhouse_training.registry import WEIGHTS_NAME
from inhouse_training.trainers import Reporter, TrainingStopped, tell_failure

from .conftest import TINY
from .test_finetune import children


def told(error: Exception) -> tuple[str, str]:
    """What the parent hears of an error in the child."""
    reading, writing = os.pipe()
    reporter = Reporter(writing)
    tell_failure(reporter, error)
    event = json.loads(os.read(reading, 9999))
    os.close(reading)
    return event["problem"], event["remedy"]


def test_memory_that_runs_out_is_told_with_what_would_fit() -> None:
    with pytest.raises(RuntimeError) as cpu:
        torch.empty(1 << 50)
    assert told(cpu.value) == (
        "The model and one batch do not fit this machine's memory.",
        "`inhouse train --dry-run` says what would fit.",
    )
    gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of …")
    assert told(gpu)[0] == "The model and one batch do not fit the GPU's memory."
    assert told(RuntimeError("could not create a primitive")) == told(cpu.value)
    assert told(MemoryError())[0] == told(OSError(errno.ENOMEM, "…"))[0] == told(cpu.value)[0]


def test_a_full_disk_and_a_known_problem_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    problem, remedy = told(OSError(errno.ENOSPC, "No space left on device", "/state/checkpoint"))
    assert problem == "/state/checkpoint cannot be written: No space left on device." and "goes on" in remedy
    assert told(InhouseError("It is corrupt.", "Fetch it.")) == ("It is corrupt.", "Fetch it.")
    assert told(TrainingStopped("the loss became nan", "Lower it."))[0] == "Training stopped: the loss became nan."
    assert capfd.readouterr().err == ""


WRITE = """
import json, resource, signal, sys
import torch
from pathlib import Path
from safetensors.torch import save_file
from inhouse_retrieval import InhouseError
from inhouse_training.export import _made_at
from inhouse_training.trainers import why_full
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
large, told = {"weights": torch.zeros(10_000)}, []
for write in (save_file, torch.save):
    try:
        write(large, sys.argv[1] + "/file")
    except Exception as error:
        told.append([type(error).__name__, why_full(error)])
    try:
        with _made_at(Path(sys.argv[1]) / "export") as work:
            write(large, work / "file")
    except InhouseError as error:
        told.append([type(error).__name__, error.problem])
print(json.dumps(told))
"""


def test_what_libraries_say_of_a_full_disk_is_understood(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WRITE, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    large, full = os.strerror(errno.EFBIG), os.strerror(errno.ENOSPC)
    assert json.loads(done.stdout) == [
        ["SafetensorError", large],
        ["InhouseError", f"{tmp_path / 'export'} cannot be written: {large}."],
        ["RuntimeError", full],
        ["InhouseError", f"{tmp_path / 'export'} cannot be written: {full}."],
    ]
    assert told(Exception("No space left on device (os error 28)"))[0] == f"The disk cannot be written: {full}."
    assert not list(tmp_path.glob(".exporting-*"))


def test_what_nobody_foresaw_is_a_sentence_and_the_log_has_the_rest(capfd: pytest.CaptureFixture[str]) -> None:
    assert told(ValueError("two rows\nof five lines"))[0] == (
        "It met a problem that inhouse does not know: ValueError: two rows."
    )
    assert "of five lines" in capfd.readouterr().err


def test_an_adapter_of_a_base_model_that_changed_is_not_compared_and_not_lost(
    history: Repository, tiny_recipe: Recipe, tiny_base: BaseModel, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / WEIGHTS_NAME).write_bytes(b"weights")
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    registry = Registry(tmp_path / "adapters")
    version = registry.add(adapter, AdapterManifest("tiny", "f" * 64, "a" * 40)).version
    registry.promote(version, "It was better.")
    run = open_run(history, tmp_path, tiny_recipe, tiny_base)
    current, remark = current_before(registry, tiny_base, run)
    assert current is None and remark == (
        f"It was not compared with the current adapter {version}, which belongs to another base model."
    )
    assert registry.current() == version and registry.is_sound(version)
    assert current_before(registry, replace(tiny_base, sha256="f" * 64), run) == (version, "")


@pytest.mark.long
def test_training_that_runs_out_of_memory_keeps_its_checkpoint_and_goes_on(
    history: Repository, tokenizer: Any, tiny_base: BaseModel, tmp_path: Path
) -> None:
    recipe = parse_recipe(TINY.format(budget=4500, rate=1e-3), "tiny", "tiny.toml")
    dataset = build_dataset(history, tokenizer, recipe, cut_repository(history, recipe), tmp_path / "dataset")
    strangers, squeezed = set(children(os.getpid())), set[int]()

    def squeeze(stage: str, done: int, total: int | None) -> None:
        if stage == "training" and done == 2:
            for child in set(children(os.getpid())) - strangers - squeezed:
                squeezed.add(child)
                # A little more than it holds now: the next batch's logits, 75 MB, do not fit.
                size = re.search(r"VmSize:\s+(\d+)", Path(f"/proc/{child}/status").read_text())
                assert size is not None
                most = (int(size[1]) << 10) + (24 << 20)
                resource.prlimit(child, resource.RLIMIT_AS, (most, most))

    with pytest.raises(InhouseError) as stopped:
        finetune(tiny_base, dataset.directory, recipe, tmp_path / "run", squeeze)
    assert stopped.value.problem == "The model and one batch do not fit this machine's memory."
    reached = len(training_curve(tmp_path / "run"))
    assert reached >= 2 and list((tmp_path / "run" / "checkpoints").glob("checkpoint-*"))
    began: list[int] = []

    def note(stage: str, done: int, total: int | None) -> None:
        if stage == "training":
            began.append(done)

    finetune(tiny_base, dataset.directory, recipe, tmp_path / "run", note)
    assert began[0] >= 1, "it went on from its checkpoint"
