"""The periodic job: cut, build, train, evaluate, and promote only what is better.

Every stage leaves its result in ``state_dir/runs/HASH``, where the hash names the inputs, so that a job
that was killed goes on where it was and a job whose inputs did not change is skipped. The adapter that was
evaluated is the very one that is registered and promoted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

from inhouse_retrieval import InhouseError, Progress, Repository, no_progress

from .base_model import BaseModel, load_tokenizer
from .canaries import read_canaries
from .chat_template import template_digest
from .cut import HeldOutChange
from .dataset import Dataset, build_dataset
from .decay import days_since, measure_decay
from .devices import MakeRoom, as_it_is
from .earlier_versions import earlier_decays
from .engine import BASE
from .evaluation import CANDIDATE, CURRENT, Evaluation, evaluate
from .finetune import TrainingStep, check_run, finetune, training_curve
from .gate import Decision, decide
from .judging import current_before, judging_changes
from .probes import Probes, run_probes
from .recipe import Recipe
from .registry import AdapterManifest, Judged, Overtaken, Registry
from .replay import replay_source
from .report import ReportInput, write_report
from .runs import Run, forget_runs, forget_superseded, hold_runs, open_run, read_json, start_run, write_json
from .schedule import LastRun
from .snapshot_search import SnapshotSearch
from .synthesis.cache import stored_replies
from .trainers import out_of
from .version_history import version_history
from .weights import AskedWeights, Weights, weights_here

_LIBRARIES = ("inhouse", "torch", "transformers", "trl", "peft", "datasets", "unsloth")

_ATTEMPTS = 3
"""How often a candidate is judged, while others make versions current by hand."""
NOT_EVALUATED: Final = "not evaluated"
"""The decision about a version that was trained on everything, so that nothing is left to judge it by."""


@dataclass(frozen=True, slots=True)
class RetrainResult:
    """What one retraining came to.

    Attributes:
        decision: ``"skipped"`` when nothing changed since the run that the other fields tell of, or none is due yet;
            :data:`NOT_EVALUATED` when nothing was held out.
        reasons: sentences.
        candidate: the version that was made; registered also when it was rejected.
        current: the version that is current now.
        metrics: losses, intervals, forgetting, training figures.
        report: the HTML report.
    """

    decision: Literal["promoted", "rejected", "skipped", "not evaluated"]
    reasons: tuple[str, ...]
    candidate: str | None
    current: str | None
    metrics: dict[str, Any]
    report: Path | None

    def to_json(self) -> dict[str, Any]:
        """The stable JSON contract of ``inhouse retrain --json``."""
        return {
            **asdict(self),
            "reasons": list(self.reasons),
            "report": str(self.report) if self.report else None,
        }


def retrain(
    repository: Repository,
    state_dir: Path,
    recipe: Recipe,
    base: BaseModel,
    progress: Progress = no_progress,
    retrieval: bool = True,
    make_room: MakeRoom = as_it_is,
    weights: AskedWeights = "auto",
) -> RetrainResult:
    """Make one candidate from the repository's history and promote it if the gate lets it through.

    Args:
        state_dir: of the repository; must exist.
        retrieval: whether the product answers with retrieved passages here, which is then how the candidate
        is judged.
        make_room: called before a model is loaded or trained, perhaps more than once; what it makes is needed until
        this returns. What it raises ends the run.
        weights: those that answers are made with, and so the candidate is judged with; ``"auto"``: as it is trained.

    Raises:
        Busy: another retraining of this repository runs.
        StateUnwritable: the state directory cannot be written.
        Cancelled: ``progress`` raised it; the next call goes on from there.
        InhouseError: the history is too short, or training stopped.
    """
    with hold_runs(state_dir):
        registry = Registry(state_dir / "adapters")
        progress("reading the history", 0, None)
        run = open_run(repository, state_dir, recipe, base, retrieval)
        finished = finished_result(run, registry)
        if finished is not None:
            return _skipped(finished, registry, nothing_changed(finished))
        started, held = now(), weights_here(weights, recipe.trainer.load_in_4bit)
        start_run(run)
        forget_superseded(state_dir, run)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                result = _make_candidate(
                    repository, state_dir, registry, run, recipe, base, progress, retrieval, make_room, held
                )
                break
            except Overtaken:  # judged anew; everything before is there
                if attempt == _ATTEMPTS:
                    raise
        write_json(run.directory / "result.json", {**result.to_json(), "started": started, "finished": now()})
        forget_runs(state_dir)
        return result


def _make_candidate(
    repository: Repository,
    state_dir: Path,
    registry: Registry,
    run: Run,
    recipe: Recipe,
    base: BaseModel,
    progress: Progress,
    retrieval: bool,
    make_room: MakeRoom,
    weights: Weights,
) -> RetrainResult:
    # First of all: what cannot be trained, or could not be judged, is not worth a dataset.
    check_run(recipe, base)
    judging_changes(repository, registry, recipe, run.cut, current_before(registry, base, run)[0])
    tokenizer = load_tokenizer(base)
    replay = replay_source(base, recipe, progress, make_room)
    generated = partial(stored_replies, state_dir)
    dataset = build_dataset(repository, tokenizer, recipe, run.cut, run.dataset, progress, replay, generated)
    make_room()
    adapter = finetune(base, dataset.directory, recipe, run.training, progress)
    before = Judged(registry.current())
    current, remark = current_before(registry, base, run)
    held_out = judging_changes(repository, registry, recipe, run.cut, current)
    evaluation, probes = _judged(
        repository, registry, tokenizer, dataset, held_out, adapter, recipe, base, run, current, progress, retrieval,
        weights,
    )  # fmt: skip
    decision = decide(evaluation, probes)
    if remark:
        decision = Decision(decision.promote, (*decision.reasons, remark))
    curve = training_curve(run.training)
    decay = measure_decay(evaluation, days_since(run.cut))
    metrics = {
        **evaluation.metrics(),
        "decay": decay.to_json(),
        "probes": probes.metrics(),
        "gate": list(decision.reasons),
        "training": training_metrics(curve),
    }
    version = registry.add(adapter, version_manifest(dataset, recipe, base, metrics, current))
    write_json(run.directory / "candidate.json", {"version": version.version, "current": current})
    if decision.promote and registry.current() != version.version:
        registry.promote(version.version, " ".join(decision.reasons), judged_against=before)
    content = ReportInput(
        version.version, current, base.name, recipe.name, dataset.manifest, curve, evaluation, probes, decision,
        decay, earlier_decays(registry, version.version), version_history(registry),
    )  # fmt: skip
    report = write_report(content, run.directory)
    outcome: Literal["promoted", "rejected"] = "promoted" if decision.promote else "rejected"
    return RetrainResult(outcome, decision.reasons, version.version, registry.current(), metrics, report)


def _judged(
    repository: Repository,
    registry: Registry,
    tokenizer: Any,
    dataset: Dataset,
    held_out: Sequence[HeldOutChange],
    adapter: Path,
    recipe: Recipe,
    base: BaseModel,
    run: Run,
    current: str | None,
    progress: Progress,
    retrieval: bool,
    weights: Weights,
) -> tuple[Evaluation, Probes]:
    """What the gate decides by; what an earlier call measured is read again."""
    from .transformers_engine import TransformersEngine

    path = run.directory / "evaluation.json"
    stored = read_json(path)
    if (
        stored is not None
        and "probes" in stored
        and stored["current"] == current
        and stored.get("weights") == weights
        and len(stored["evaluation"]["changes"]) == len(held_out)
    ):
        return Evaluation.from_json(stored["evaluation"]), Probes.from_json(stored["probes"])
    progress("loading the model", 0, None)
    engine = TransformersEngine(
        base, lambda name: adapter if name == CANDIDATE else registry.verify(name), weights=weights
    )
    names = {BASE: BASE, **({CURRENT: current} if current else {}), CANDIDATE: CANDIDATE}
    snapshot, canaries = dataset.manifest["snapshot"], read_canaries(dataset.directory)
    search = SnapshotSearch(repository, snapshot) if retrieval else None
    try:
        evaluation = evaluate(engine, tokenizer, held_out, search, names, recipe.evaluation, progress)
        probes = run_probes(engine, tokenizer, repository, run.cut, held_out, canaries, search, names, recipe, progress)
    except (RuntimeError, MemoryError, OSError) as error:
        if not (room := out_of(error)):
            raise
        raise InhouseError(
            f"The candidate is trained, and the model with what judges it does not fit {room}.",
            "Lower evaluation.prompt_tokens and evaluation.probe_tokens in the recipe, or end what else takes that "
            "memory; a retraining by the same recipe judges it and does not train again.",
        ) from error
    finally:
        engine.close()
        if search is not None:
            search.close()
    judged = {"evaluation": evaluation.to_json(), "probes": probes.to_json()}
    write_json(path, {"current": current, "weights": weights, **judged})
    return evaluation, probes


def training_metrics(curve: Sequence[TrainingStep]) -> dict[str, Any]:
    """What a training curve comes to, for reports and manifests."""
    return {
        "steps": len(curve),
        "tokens": curve[-1].tokens if curve else 0,
        "seconds": round(sum(step.seconds for step in curve), 1),
        "first_loss": curve[0].loss if curve else None,
        "last_loss": curve[-1].loss if curve else None,
    }


def version_manifest(
    dataset: Dataset,
    recipe: Recipe,
    base: BaseModel,
    metrics: dict[str, Any],
    current: str | None,
    evaluated: bool = True,
) -> AdapterManifest:
    """Where a version comes from; ``current`` is the one that it would replace."""
    libraries = {}
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            libraries[name] = metadata.version(name)
    return AdapterManifest(
        created=now(),
        base_model=base.name,
        base_sha256=base.sha256,
        chat_template=template_digest(base.path),
        snapshot=dataset.manifest["snapshot"],
        recipe=recipe.model_dump(mode="json"),
        dataset=dataset.manifest,
        metrics=metrics,
        libraries=libraries,
        parent=current,
        evaluated=evaluated,
    )


def finished_result(run: Run, registry: Registry) -> dict[str, Any] | None:
    """What a run came to, if it has finished and what it made is still there, or was removed on purpose."""
    finished = read_json(run.directory / "result.json")
    if finished is None:
        return None
    candidate = finished["candidate"]
    collected = candidate in registry.removed() and not (registry.root / candidate).exists()
    return finished if collected or registry.is_sound(candidate) else None


def not_due(last: LastRun, registry: Registry, reason: str) -> RetrainResult:
    """The result of a retraining that was skipped before it looked at the repository, because of ``reason``."""
    return _skipped(last.result, registry, reason)


def nothing_changed(finished: dict[str, Any]) -> str:
    """Why a run that has finished is not done again, as a sentence."""
    since = finished["finished"][:16].replace("T", " ")
    return (
        f"Nothing to learn from changed since {since} UTC: the same changes, recipe and base model "
        f"gave {finished['candidate']}, which was {finished['decision']}."
    )


def _skipped(finished: dict[str, Any], registry: Registry, reason: str) -> RetrainResult:
    report = Path(finished["report"]) if finished["report"] else None
    return RetrainResult("skipped", (reason,), finished["candidate"], registry.current(), finished["metrics"], report)


def now() -> str:
    """This moment in UTC, as results and manifests hold it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
