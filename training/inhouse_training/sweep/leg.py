"""One leg of a trial, in a child process: train to a part of the steps, then score what there is.

A trial is run in legs so that one that falls behind can be given up early. The training of each leg goes on from the
checkpoint of the leg before; the score of a leg is a file that is written once, so that a leg that was finished is
never done again. The model that scores and the one that is trained are never in memory together.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from inhouse_retrieval import InhouseError

from ..base_model import BaseModel
from ..finetune import finetune, training_curve
from ..recipe import Recipe
from ..runs import read_json, write_json
from ..trainers import Reporter, die_with, last_checkpoint, tell_failure
from ..weights import Weights, weights_here
from .yardstick import Score, Yardstick, measure

LEGS = (34, 100)
"""Percent of the steps after which a trial is scored. The last one counts; the one before it may end the trial."""
_ADAPTER = "trial"


@dataclass(frozen=True, slots=True)
class LegResult:
    """What a trial had come to at the end of a leg.

    Attributes:
        steps, tokens, seconds: of the training so far.
        loss: of the last training step; told, and never chosen by.
    """

    percent: int
    score: Score
    steps: int
    tokens: int
    seconds: float
    loss: float

    def to_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return asdict(self)


def write_leg(directory: Path, sweep: Path, base: BaseModel, dataset: Path, recipe: Recipe, percent: int) -> None:
    """Write down, in a trial's folder, what the child process is to do."""
    job = {
        "sweep": str(sweep),
        "base": {**asdict(base), "path": str(base.path)},
        "dataset": str(dataset),
        "recipe": recipe.model_dump(mode="json"),
        "percent": percent,
    }
    write_json(directory / "leg.json", job)


def leg_result(directory: Path, percent: int) -> LegResult | None:
    """What a leg came to, if it was finished."""
    stored = read_json(_result_file(directory, percent))
    return None if stored is None else LegResult(**{**stored, "score": Score.from_json(stored["score"])})


def _result_file(directory: Path, percent: int) -> Path:
    return directory / f"score-{percent}.json"


class _FarEnough(Exception):
    """Training has come to the end of the leg."""


def _run(directory: Path, reporter: Reporter) -> None:
    job = read_json(directory / "leg.json")
    assert job is not None
    base = BaseModel(**{**job["base"], "path": Path(job["base"]["path"])})
    recipe, percent = Recipe.model_validate_json(json.dumps(job["recipe"])), job["percent"]
    if leg_result(directory, percent) is not None:
        return  # of an earlier call of the sweep, which was stopped
    run = directory / "training"

    def told(stage: str, done: int, total: int | None) -> None:
        reporter.send("progress", stage=stage, done=done, total=total)
        if stage == "training" and total and percent < 100 and done * 100 >= percent * total:
            raise _FarEnough

    adapter: Path | None = None
    try:
        adapter = finetune(base, Path(job["dataset"]), recipe, run, told)
    except _FarEnough:
        # A short run may have come to its end before it was stopped.
        whole = run / "adapter"
        adapter = whole if whole.exists() else last_checkpoint(run / "checkpoints")
    if adapter is None:
        raise InhouseError("The training stopped and left no checkpoint.", f"See {run / 'trainer.log'}.")
    reporter.send("progress", stage="scoring", done=0, total=None)
    curve = training_curve(run)
    result = LegResult(
        percent,
        _score(Path(job["sweep"]), base, adapter, weights_here("auto", recipe.trainer.load_in_4bit)),
        len(curve),
        curve[-1].tokens,
        round(sum(step.seconds for step in curve), 1),
        curve[-1].loss,
    )
    write_json(_result_file(directory, percent), result.to_json())


def _score(sweep: Path, base: BaseModel, adapter: Path, weights: Weights) -> Score:
    import torch

    from ..transformers_engine import TransformersEngine

    yardstick = Yardstick.load(sweep)
    assert yardstick is not None
    try:
        return measure(yardstick, TransformersEngine(base, lambda name: adapter, weights=weights), _ADAPTER)
    except torch.OutOfMemoryError as error:
        raise InhouseError(
            "The model and the rows that score it do not fit the GPU's memory.",
            "Lower evaluation.prompt_tokens in the recipe.",
        ) from error


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Be the child process."""
    directory, pipe, parent = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    die_with(parent)
    signal.signal(signal.SIGTERM, _stop)
    reporter = Reporter(pipe)
    try:
        _run(directory, reporter)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        tell_failure(reporter, error)
        sys.exit(1)


if __name__ == "__main__":
    main()
