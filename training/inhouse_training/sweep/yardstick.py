"""What every trial of a sweep is scored on: prompts for the selection changes, general text, and the base's scores.

Made once in a child process, since the prompts need a tokenizer and the base's scores a model; read by every trial.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inhouse_retrieval import Repository

from ..base_model import BaseModel, load_tokenizer
from ..cut import HeldOutChange
from ..engine import BASE, Engine, RowScore, ScoredRow
from ..evaluation import CLOSED_BOOK, WITH_RETRIEVAL, Interval, change_row, forgetting_row, paired_gain
from ..forgetting_texts import FORGETTING_TEXTS
from ..gate import MAX_FORGETTING
from ..recipe import EvaluationSettings
from ..runs import read_json, write_json
from ..snapshot_search import SnapshotSearch
from ..trainers import Reporter, die_with, tell_failure
from ..weights import Weights

FILE = "yardstick.json"
_ASKED = "yardstick-job.json"
_BATCH_ROWS = 8


@dataclass(frozen=True, slots=True)
class Yardstick:
    """One row for each selection change, and the general texts by kind.

    Attributes:
        mode: how the changes are asked for, as the gate names it: the way that the product answers.
        base: what the base model scores on ``rows``.
        base_general: its nats per token on each kind of general text.
    """

    mode: str
    rows: tuple[ScoredRow, ...]
    general: dict[str, tuple[ScoredRow, ...]]
    base: tuple[RowScore, ...]
    base_general: dict[str, float]

    @staticmethod
    def load(directory: Path) -> Yardstick | None:
        """The one that lies in a sweep's folder, if it was finished."""
        stored = read_json(directory / FILE)
        if stored is None:
            return None
        return Yardstick(
            stored["mode"],
            _rows(stored["rows"]),
            {kind: _rows(rows) for kind, rows in stored["general"].items()},
            tuple(RowScore(**score) for score in stored["base"]),
            stored["base_general"],
        )


@dataclass(frozen=True, slots=True)
class Score:
    """What an adapter scores.

    Attributes:
        gain: over the base model on the selection changes, in nats per token: what the gate asks first.
        forgot: kind of general text -> by how much it became harder, in nats per token.
        changes: one score for each selection change.
    """

    gain: Interval
    forgot: dict[str, float]
    changes: tuple[RowScore, ...]

    @property
    def excess(self) -> float:
        """By how much it forgot more than the gate allows; 0 or less is within bounds."""
        return max(self.forgot.values()) - MAX_FORGETTING

    def to_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return asdict(self)

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> Score:
        """What :meth:`to_json` gave."""
        return Score(
            Interval(**stored["gain"]), stored["forgot"], tuple(RowScore(**score) for score in stored["changes"])
        )


def measure(yardstick: Yardstick, engine: Engine, adapter: str) -> Score:
    """Score one adapter of the engine."""
    found = _score(engine, yardstick.rows, adapter)
    forgot = {
        kind: _mean(_score(engine, rows, adapter)) - yardstick.base_general[kind]
        for kind, rows in yardstick.general.items()
    }
    return Score(paired_gain(yardstick.base, found), forgot, found)


def ask_for_yardstick(
    directory: Path,
    repository: Repository,
    base: BaseModel,
    snapshot: str,
    changes: Sequence[HeldOutChange],
    settings: EvaluationSettings,
    retrieval: bool,
    weights: Weights,
) -> None:
    """Write down what the child process needs to make one."""
    job = {
        "root": str(repository.root),
        "exclude": list(repository.exclude),
        "base": {**asdict(base), "path": str(base.path)},
        "snapshot": snapshot,
        "changes": [asdict(change) for change in changes],
        "settings": settings.model_dump(mode="json"),
        "retrieval": retrieval,
        "weights": weights,
    }
    write_json(directory / _ASKED, job)


def _make(directory: Path) -> None:
    from ..transformers_engine import TransformersEngine

    job = read_json(directory / _ASKED)
    assert job is not None
    base = BaseModel(**{**job["base"], "path": Path(job["base"]["path"])})
    settings = EvaluationSettings.model_validate(job["settings"])
    engine, tokenizer = TransformersEngine(base, Path, weights=job["weights"]), load_tokenizer(base)
    search = None
    if job["retrieval"]:
        search = SnapshotSearch(Repository.open(Path(job["root"])).excluding(job["exclude"]), job["snapshot"])
    changes = [HeldOutChange(**change) for change in job["changes"]]
    rows = tuple(change_row(engine, tokenizer, change, search, settings) for change in changes)
    general = {
        kind: tuple(forgetting_row(tokenizer, text) for text in texts) for kind, texts in FORGETTING_TEXTS.items()
    }
    made = Yardstick(
        WITH_RETRIEVAL if search else CLOSED_BOOK,
        rows,
        general,
        _score(engine, rows, BASE),
        {kind: _mean(_score(engine, each, BASE)) for kind, each in general.items()},
    )
    write_json(directory / FILE, asdict(made))


def _score(engine: Engine, rows: Sequence[ScoredRow], adapter: str) -> tuple[RowScore, ...]:
    found: list[RowScore] = []
    for start in range(0, len(rows), _BATCH_ROWS):
        found += engine.score(rows[start : start + _BATCH_ROWS], adapter)
    return tuple(found)


def _mean(scores: Sequence[RowScore]) -> float:
    return sum(score.nats for score in scores) / max(sum(score.tokens for score in scores), 1)


def _rows(stored: Sequence[Mapping[str, Sequence[int]]]) -> tuple[ScoredRow, ...]:
    return tuple(ScoredRow(tuple(row["input_ids"]), tuple(row["labels"])) for row in stored)


def main() -> None:
    """Be the child process."""
    directory, pipe, parent = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    die_with(parent)
    reporter = Reporter(pipe)
    try:
        _make(directory)
    except Exception as error:
        tell_failure(reporter, error)
        sys.exit(1)


if __name__ == "__main__":
    main()
