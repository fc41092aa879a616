"""`inhouse eval model`: a registered version, the current one and the base model on changes that are held out now."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from inhouse_retrieval import InhouseError, Progress, Repository, no_progress

from ..base_model import BaseModel, load_tokenizer
from ..cut import Cut, HeldOutChange
from ..dataset import Dataset, build_dataset
from ..decay import Decay, days_since, measure_decay
from ..engine import BASE, Engine, RowScore, ScoredRow
from ..evaluation import CANDIDATE, CLOSED_BOOK, CURRENT, WITH_RETRIEVAL, Evaluation, change_row, evaluate, score_rows
from ..recipe import EvaluationSettings, Recipe
from ..registry import Registry
from ..replay import replay_source
from ..runs import dataset_of, hold_runs, open_run, start_run
from ..snapshot_search import Retriever, SnapshotSearch
from ..synthesis.cache import stored_replies
from ..weights import AskedWeights, trains_in_4bit, weights_here
from . import LATER_CHANGES, LATER_EDITS, LATER_FILES, VALIDATION, Likelihood
from .answered import Answered, ask_all, grade_all
from .general import general_likelihoods
from .later_texts import LaterText, later_changes, later_files, later_row, scored_bytes
from .oracle import measure_oracle
from .recall import Recall, known_files, measure_recall

MOST_CONVERSATIONS = 200
"""Scored at most of those that are kept for validation."""


@dataclass(frozen=True, slots=True)
class ModelEvaluation:
    """What was measured.

    Attributes:
        directory: the folder of the run whose held-out changes judge.
        base_model, recipe, snapshot, as_of: what the figures belong to; the snapshot is that of the cut.
        adapters: label -> version, or the base.
        evaluation: what the gate decides by.
        likelihoods: of later files, pull requests and edits, of edits with the file as it was in the prompt, of general
            text, and of the conversations that were kept for validation.
        answered: what was asked and said; empty unless it was asked for.
        recall: files known by heart: memory, not quality.
        decay: against days since the candidate's snapshot.
        seconds: how long scoring and asking took.
        remarks: what was left out, as sentences.
    """

    directory: Path
    base_model: str
    recipe: str
    snapshot: str
    as_of: datetime
    adapters: Mapping[str, str]
    evaluation: Evaluation
    likelihoods: tuple[Likelihood, ...]
    answered: tuple[Answered, ...]
    recall: Recall
    decay: Decay
    seconds: Mapping[str, float]
    remarks: tuple[str, ...] = ()

    def metrics(self) -> dict[str, Any]:
        """The stable JSON contract of ``inhouse eval model --json``."""
        return {
            "snapshot": self.snapshot,
            "adapters": dict(self.adapters),
            **self.evaluation.metrics(),
            "likelihood": {each.kind: each.metrics() for each in self.likelihoods},
            "answers": {each.name: each.metrics() for each in grade_all(self.answered)},
            "memory": self.recall.metrics(),
            "decay": self.decay.to_json(),
            "seconds": dict(self.seconds),
            "remarks": list(self.remarks),
        }


def evaluate_version(
    repository: Repository,
    state_dir: Path,
    recipe: Recipe,
    base: BaseModel,
    version: str = "current",
    progress: Progress = no_progress,
    retrieval: bool = True,
    generate: int = 0,
    weights: AskedWeights = "auto",
) -> ModelEvaluation:
    """Score the base model, one registered version, and the current one where that is another and did not see them
    either, on the changes that this repository holds out now.

    Args:
        version: a version, or ``"current"``.
        generate: questions of each kind that every adapter answers; 0 asks none.
        weights: those that answers are made with; ``"auto"``: as the version was trained.

    Raises:
        InhouseError: there is no such version, or it was trained on one of the changes that would judge it.
    """
    from ..transformers_engine import TransformersEngine

    registry = Registry(state_dir / "adapters")
    current = registry.current()
    name = current if version == "current" else version
    if name is None:
        raise InhouseError("No adapter is promoted yet.", "Run 'inhouse retrain', or name a version with --adapter.")
    manifest = registry.get(name).manifest
    run = open_run(repository, state_dir, recipe, base, retrieval)
    if _knows_later(repository, run.cut, manifest.snapshot):
        raise InhouseError(
            f"{name} was trained on changes that would judge it.", "Evaluate a version of an older snapshot."
        )
    names = {BASE: BASE, CANDIDATE: name}
    remarks = []
    if current is not None and current != name:
        other = registry.get(current).manifest
        if other.base_sha256 != base.sha256:
            remarks.append(f"The current adapter {current} belongs to another base model and was left out.")
        elif _knows_later(repository, run.cut, other.snapshot):
            remarks.append(f"The current adapter {current} was trained on changes that would judge it: left out.")
        else:
            names = {BASE: BASE, CURRENT: current, CANDIDATE: name}
    learned = dataset_of(state_dir, manifest)
    if learned is None:
        remarks.append(f"The data that {name} was trained on are gone: which files it knows by heart was not measured.")
    tokenizer = load_tokenizer(base)
    with hold_runs(state_dir):
        start_run(run)
        replay = replay_source(base, recipe, progress)
        generated = partial(stored_replies, state_dir)
        dataset = build_dataset(repository, tokenizer, recipe, run.cut, run.dataset, progress, replay, generated)
    search = SnapshotSearch(repository, run.cut.snapshot) if retrieval else None
    engine = TransformersEngine(base, registry.verify, weights=weights_here(weights, trains_in_4bit(manifest.recipe)))
    settings = recipe.evaluation
    try:
        started = time.monotonic()
        evaluation = evaluate(engine, tokenizer, dataset.held_out, search, names, settings, progress)
        edits = Likelihood(LATER_EDITS, edit_sizes(engine, tokenizer, dataset.held_out, settings), evaluation.scores)
        texts = {LATER_FILES: later_files(run.cut.held_out), LATER_CHANGES: later_changes(run.cut.held_out)}
        likelihoods = [
            score_texts(engine, tokenizer, kind, items, search, names, settings, progress)
            for kind, items in texts.items()
        ]
        progress("scoring later edits of shown files", 0, None)
        shown = measure_oracle(engine, tokenizer, repository, run.cut, dataset.held_out, names, settings)
        likelihoods += [edits, *([shown] if shown.sizes else []), *general_likelihoods(engine, tokenizer, names)]
        if learned is not None and (kept := learned.validation) is not None:
            likelihoods.append(score_validation(engine, tokenizer, kept, names))
            remarks.append(
                f"The validation conversations of {name} tell of files that it learned: as in the article, their loss "
                "is low for that reason."
            )
        known = known_files(repository, manifest.snapshot, trained_files(learned) if learned is not None else ())
        recall = measure_recall(engine, tokenizer, known, texts[LATER_FILES], names)
        scored = time.monotonic()
        answered: list[Answered] = []
        if generate:
            answered = ask_all(engine, repository, run.cut, search, names, recipe, generate, progress)
        seconds = {"scoring": round(scored - started, 1), "asking": round(time.monotonic() - scored, 1)}
    finally:
        if search is not None:
            search.close()
    decay = measure_decay(evaluation, days_since(run.cut, _moment(repository, manifest.snapshot)))
    return ModelEvaluation(
        run.directory, base.name, recipe.name, run.cut.snapshot, run.cut.as_of, names,
        evaluation, tuple(likelihoods), tuple(answered), recall, decay, seconds, tuple(remarks),
    )  # fmt: skip


def trained_files(dataset: Dataset) -> list[str]:
    """Paths of the files whose beginning is a row of ``dataset``."""
    rows = dataset.rows.select_columns(["kind", "name", "part"])
    return [row["name"] for row in rows if row["kind"] == "file" and row["part"] == 0]


def _knows_later(repository: Repository, cut: Cut, snapshot: str) -> bool:
    """Whether a version of ``snapshot`` learned something that the cut holds out."""
    return bool(repository.git("rev-list", "--max-count=1", f"{cut.snapshot}..{snapshot}").strip())


def _moment(repository: Repository, commit: str) -> datetime:
    return datetime.fromisoformat(repository.git("show", "-s", "--format=%cI", commit).decode("ascii").strip())


def edit_sizes(
    engine: Engine, tokenizer: Any, held_out: Sequence[HeldOutChange], settings: EvaluationSettings
) -> tuple[int, ...]:
    """Bytes of the added lines that are scored, by change; the same with retrieval and without."""
    return tuple(scored_bytes(tokenizer, change_row(engine, tokenizer, each, None, settings)) for each in held_out)


def score_validation(engine: Engine, tokenizer: Any, kept: Any, adapters: Mapping[str, str]) -> Likelihood:
    """The answers of the conversations that a dataset keeps for validation, :data:`MOST_CONVERSATIONS` at most."""
    chosen = kept.select_columns(["input_ids", "labels"]).select(range(min(len(kept), MOST_CONVERSATIONS)))
    rows = [ScoredRow(tuple(row["input_ids"]), tuple(row["labels"])) for row in chosen]
    scores = {label: score_rows(engine, rows, adapter) for label, adapter in adapters.items()}
    return Likelihood(VALIDATION, tuple(scored_bytes(tokenizer, row) for row in rows), {CLOSED_BOOK: scores})


def score_texts(
    engine: Engine,
    tokenizer: Any,
    kind: str,
    items: Sequence[LaterText],
    retriever: Retriever | None,
    adapters: Mapping[str, str],
    settings: EvaluationSettings,
    progress: Progress = no_progress,
) -> Likelihood:
    """Score every adapter on the same texts, without retrieval and with it."""
    modes: dict[str, Retriever | None] = {CLOSED_BOOK: None}
    if retriever is not None:
        modes[WITH_RETRIEVAL] = retriever
    scores: dict[str, dict[str, tuple[RowScore, ...]]] = {mode: {} for mode in modes}
    sizes: tuple[int, ...] = ()
    total, done = len(modes) * len(adapters) * len(items), 0
    stage = f"scoring {kind.replace('_', ' ')}"

    def scored(count: int) -> None:
        nonlocal done
        done += count
        progress(stage, done, total)

    for mode, search in modes.items():
        made = [later_row(tokenizer, item, search, settings) for item in items]
        sizes = tuple(size for _, size in made)
        for label, adapter in adapters.items():
            scores[mode][label] = score_rows(engine, [row for row, _ in made], adapter, scored)
    return Likelihood(kind, sizes, scores)
