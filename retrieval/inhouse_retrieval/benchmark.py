"""How well the search finds the files that a change needs, measured on a repository's own history.

A query is the title of a pull request that landed after a snapshot; what it should find is the files that the pull
request then changed. The index is the product's own, built in a clone that ends at the snapshot: neither code nor
history of later days can leak into it.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inhouse_retrieval.embedding import Encoder
from inhouse_retrieval.errors import InhouseError
from inhouse_retrieval.history import HistoryChange, read_changes
from inhouse_retrieval.index import Index
from inhouse_retrieval.progress import Progress, no_progress
from inhouse_retrieval.reading import VENDORED_FOLDERS
from inhouse_retrieval.repository import Repository
from inhouse_retrieval.reranking import Reranker
from inhouse_retrieval.search import Weights

MAX_RELEVANT = 10
"""A pull request that changes more existing files than this is a mass edit."""
LEAST_QUERIES = 10
_DEPTH = 20
_PASSAGES = 100
_RESAMPLES = 4000
_BUMP = re.compile(
    r"^\W*(bump|update dependenc|\[?snyk|(chore|build|fix)\(deps|deps[:(]|revert\b|renovate|release\b|dependabot)"
    r"|^\W*v?\d+\.\d+"
    r"|\bdependabot\b|\bfrom v?\d[\w.]* to v?\d",
    re.I,
)

LADDER: dict[str, Weights] = {
    "dense": Weights(lexical=0, path=0, history=0, definition=0, literal=0),
    "lexical": Weights(dense=0, path=0, history=0, definition=0, literal=0),
    "dense + lexical": Weights(path=0, history=0, definition=0, literal=0),
    "+ path": Weights(history=0, definition=0, literal=0),
    "+ history": Weights(definition=0, literal=0),
    "+ definition": Weights(literal=0),
    "+ literal": Weights(),
}
"""What is measured: each leg on top of those before it. The last is what the product does."""
DEFAULT_RUNG = "+ literal"
RERANKED = "+ reranker"
"""A rung beyond the ladder, measured where a reranker is configured."""


@dataclass(frozen=True, slots=True)
class BenchmarkQuery:
    """A later change: its title, and the files existing at the snapshot that it changed."""

    commit: str
    title: str
    description: str
    relevant: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QuerySet:
    """The queries of one snapshot, newest first, and how many changes were left out for which reason."""

    snapshot: str
    queries: tuple[BenchmarkQuery, ...]
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Score:
    """A mean over queries with its 95 % interval from a bootstrap over queries."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RerankerGain:
    """The search with the reranker beside the same without it.

    Attributes:
        gains: measure -> how much better it is with it, paired by query.
        scored: share of the passages that it was to look at and scored before its deadline.
    """

    gains: Mapping[str, Score]
    scored: float

    @property
    def verdict(self) -> str:
        """In words: ``wins`` or ``loses`` where the interval of MRR or R@10 says so and the other does not object."""
        both = [self.gains[name] for name in ("MRR", "R@10")]
        if any(gain.high < 0 for gain in both):
            return "loses: leave it off"
        if any(gain.low > 0 for gain in both):
            return "wins"
        return "makes no difference that these queries show: leave it off"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What was measured on one snapshot.

    Attributes:
        scores: rung -> measure -> score.
        gains: measure -> how much better the product is than its dense leg alone, paired by query.
        reranker: what the configured one changes; ``None`` where there is none.
        milliseconds: rung -> median and 95th percentile of one search.
    """

    snapshot: str
    files: int
    chunks: int
    queries: int
    left_out: Mapping[str, int]
    with_description: bool
    scores: Mapping[str, Mapping[str, Score]]
    gains: Mapping[str, Score]
    milliseconds: Mapping[str, tuple[float, float]]
    index_seconds: float
    reranker: RerankerGain | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything, for ``--json``."""
        return asdict(self)


def select_queries(repository: Repository, at: str | None, limit: int = 200) -> QuerySet:
    """The newest ``limit`` usable changes after a snapshot.

    Args:
        at: a revision, or a date such as ``2025-07-01`` (the last first-parent commit before it); ``None`` takes the
            snapshot that ``limit`` usable changes follow.

    Raises:
        InhouseError: there is no such snapshot, or too few usable changes follow it.
    """
    changes = list(read_changes(repository))
    numbered = any(change.number is not None for change in changes)
    snapshot = _snapshot(repository, at) if at is not None else _snapshot_before(changes, numbered, limit)
    files = {file.path for file in repository.snapshot(snapshot).files}
    queries: list[BenchmarkQuery] = []
    left_out: Counter[str] = Counter()
    for change in changes:
        if change.commit == snapshot or len(queries) == limit:
            break
        relevant = tuple(dict.fromkeys(path for path in (*change.files, *change.renamed) if path in files))
        reason = _unusable(change, numbered) or _unusable_files(relevant)
        if reason:
            left_out[reason] += 1
        else:
            queries.append(BenchmarkQuery(change.commit, change.title, change.description, relevant))
    if len(queries) < LEAST_QUERIES:
        raise InhouseError(
            f"Only {len(queries)} usable changes follow {snapshot[:12]}, and at least {LEAST_QUERIES} are needed.",
            "Name an older snapshot with --at, or measure on a repository with more history.",
        )
    return QuerySet(snapshot, tuple(queries), dict(left_out))


def _snapshot(repository: Repository, at: str) -> str:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", at):
        return repository.commit_id(at)
    found = (
        repository.git("rev-list", "--first-parent", "--max-count=1", f"--before={at} 00:00", "HEAD").decode().strip()
    )
    if not found:
        raise InhouseError(f"There is no commit before {at}.", "Name a later date.")
    return found


def _snapshot_before(changes: Sequence[HistoryChange], numbered: bool, limit: int) -> str:
    """The commit that is followed by about ``limit`` usable changes, and by at most half of all."""
    usable = place = 0
    while place < len(changes) // 2 and usable < limit * 1.25:  # some change files that did not exist yet
        change = changes[place]
        usable += not _unusable(change, numbered) and 1 <= len(change.files) <= MAX_RELEVANT
        place += 1
    if not changes:
        raise InhouseError("There is no history to measure on.", "Fetch it with `git fetch --unshallow`.")
    return changes[place].commit


def _unusable(change: HistoryChange, numbered: bool) -> str:
    if numbered and change.number is None:
        return "no pull request"
    return "dependency bump, release or revert" if is_routine(change.title) else ""


def is_routine(title: str) -> bool:
    """Whether a change of this title is a dependency bump, a release or a revert."""
    return _BUMP.search(title) is not None


def _unusable_files(relevant: Sequence[str]) -> str:
    if not relevant:
        return "changes no file that existed and is indexed"
    return f"changes more than {MAX_RELEVANT} files" if len(relevant) > MAX_RELEVANT else ""


def run_benchmark(
    repository: Repository,
    folder: Path,
    encoder: Encoder,
    queries: QuerySet,
    progress: Progress = no_progress,
    ladder: Mapping[str, Weights] = LADDER,
    with_description: bool = False,
    reranker: Reranker | None = None,
) -> Benchmark:
    """Index the snapshot in ``folder`` (again only as far as it changed) and search it with every rung.

    Args:
        with_description: ask with title and description instead of the title alone.
        reranker: is measured, too, on top of the last rung and under its deadline.

    Raises:
        InhouseError: the reranker cannot be loaded, git failed, the disk is full, or ``progress`` cancelled it.
    """
    if reranker is not None:
        progress("loading the reranker", 0, None)
        reranker.load()
    clone = clone_at(repository, queries.snapshot, folder)
    rungs = {**ladder, **({RERANKED: list(ladder.values())[-1]} if reranker is not None else {})}
    to_rerank = reranked = 0
    with Index.open(clone, folder / "state", encoder, reranker=reranker) as index:
        report = index.refresh(progress)
        found: dict[str, list[list[str]]] = {}
        milliseconds: dict[str, tuple[float, float]] = {}
        for rung, weights in rungs.items():
            rankings, taken = [], []
            for done, query in enumerate(queries.queries):
                progress(f"searching: {rung}", done, len(queries.queries))
                text = f"{query.title}\n{query.description}" if with_description else query.title
                started = time.perf_counter()
                result = index.search(text, _PASSAGES, weights=weights, rerank=rung == RERANKED)
                taken.append((time.perf_counter() - started) * 1000)
                to_rerank, reranked = to_rerank + result.to_rerank, reranked + result.reranked
                rankings.append(list(dict.fromkeys(passage.path for passage in result.passages))[:_DEPTH])
            found[rung] = rankings
            milliseconds[rung] = round(statistics.median(taken), 1), round(float(np.percentile(taken, 95)), 1)
    measured = {rung: measures(rankings, queries.queries) for rung, rankings in found.items()}
    first, last = next(iter(ladder)), list(ladder)[-1]
    return Benchmark(
        queries.snapshot,
        report.files,
        report.chunks,
        len(queries.queries),
        queries.left_out,
        with_description,
        {rung: {name: bootstrap(values) for name, values in each.items()} for rung, each in measured.items()},
        {name: bootstrap(measured[last][name] - measured[first][name]) for name in measured[last]},
        milliseconds,
        round(report.seconds, 1),
        _reranker_gain(measured[RERANKED], measured[last], reranked / max(1, to_rerank)) if reranker else None,
    )


def _reranker_gain(with_it: Mapping[str, Any], without: Mapping[str, Any], scored: float) -> RerankerGain:
    return RerankerGain({name: bootstrap(with_it[name] - without[name]) for name in without}, round(scored, 4))


def clone_at(repository: Repository, commit: str, folder: Path) -> Repository:
    """A clone of its own that shares the objects; its history ends at ``commit``."""
    path = folder / "clone"
    if not (path / ".git" / "HEAD").is_file():
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        _git("clone", "--quiet", "--shared", "--no-checkout", str(repository.root), str(path))
        # What is never read need not be written either.
        unread = (f"!{folder}/" for folder in sorted(VENDORED_FOLDERS))
        _git("-C", str(path), "sparse-checkout", "set", "--no-cone", "/*", *unread)
    clone = Repository.open(path).excluding(repository.exclude)
    marker = folder / "snapshot"  # written once the checkout is complete
    if not marker.exists() or marker.read_text(encoding="ascii") != commit:
        marker.unlink(missing_ok=True)
        # Objects that arrived since are shared as well: the clone borrows the whole object store.
        _git("-C", str(path), "checkout", "--quiet", "--force", "--detach", commit)
        _git("-C", str(path), "clean", "--quiet", "-ffdx")
        marker.write_text(commit, encoding="ascii")
    return clone


def _git(*arguments: str) -> None:
    done = subprocess.run(
        [
            "git",
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "filter.lfs.smudge=",
            "-c",
            "filter.lfs.required=false",
            *arguments,
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["git gave no reason"]
        raise InhouseError(
            f"The snapshot cannot be checked out: {said[-1]}",
            "Check the free disk space and the repository with `git fsck`.",
        )


def measures(rankings: Sequence[Sequence[str]], queries: Sequence[BenchmarkQuery]) -> dict[str, Any]:
    """Measure -> one value per query, float64 [queries]; by ir-measures, ``all@10`` aside.

    ``all@10`` is 1 where every relevant file is among the first ten (what SweRank calls accuracy).
    """
    import ir_measures
    from ir_measures import RR, R, Success, nDCG

    named = {"R@1": R @ 1, "R@5": R @ 5, "R@10": R @ 10, "R@20": R @ 20, "MRR": RR, "nDCG@10": nDCG @ 10,
             "hit@10": Success @ 10}  # fmt: skip
    relevant = [
        ir_measures.Qrel(str(number), path, 1) for number, query in enumerate(queries) for path in query.relevant
    ]
    run = [
        ir_measures.ScoredDoc(str(number), path, float(-rank))
        for number, ranking in enumerate(rankings)
        for rank, path in enumerate(ranking)
    ]
    values = {name: np.zeros(len(queries)) for name in named}
    name_of = {str(measure): name for name, measure in named.items()}
    for metric in ir_measures.iter_calc(list(named.values()), relevant, run):
        values[name_of[str(metric.measure)]][int(metric.query_id)] = metric.value
    values["all@10"] = (values["R@10"] >= 1 - 1e-9).astype(float)
    return values


def bootstrap(values: Any) -> Score:
    """Mean of ``values``, float [n], with the 95 % interval of a bootstrap (Efron, 1979); the seed is fixed."""
    draws = np.random.default_rng(3407).integers(0, len(values), size=(_RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return Score(round(float(values.mean()), 4), round(float(low), 4), round(float(high), 4))
