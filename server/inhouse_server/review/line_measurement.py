"""From judged pull requests to figures: the rows to score, and what both models and every score make of their lines.

Each changed file is read as the change leaves it, up to the line that is scored; what lies further below, and the lines
that the change took away, are not seen. It is read a second time below precedents of its added lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inhouse_retrieval import InhouseError, Progress, Repository, SkippedFile, no_progress
from inhouse_server.review.calibration import Calibration, calibrate
from inhouse_server.review.house_score import HOUSE_SCORE
from inhouse_server.review.line_evaluation import (
    Decision,
    LineEvaluation,
    ScoredLines,
    decide,
    evaluate_scores,
    plain_json,
    scored_lines,
)
from inhouse_server.review.line_scores import (
    BASE_SURPRISAL,
    SCORES,
    Floats,
    LineTokens,
    read_lines,
    score_lines,
)
from inhouse_server.review.planted import FoundShare, HouseNames, found_shares, planted_breaks
from inhouse_server.review.precedents import precedents
from inhouse_server.review.wanting import JudgedChange, judged_changes
from inhouse_training import LineRow, ScoredRow, TransformersEngine, below_passages, line_rows
from inhouse_training.snapshot_search import Retriever, SnapshotSearch

_ROWS_AT_ONCE = 256
PRECEDENT_TOKENS = 768
"""Of precedents above one row: four or five passages of 16 lines."""


@dataclass(frozen=True, slots=True)
class Material:
    """Rows to score. The lists have one entry a row.

    Attributes:
        requests: number of the pull request, from 0.
        wanting: lines of the row that were found wanting.
        planted: the kind of break that the row's one line holds; empty when the row is as it was.
        below: the row below its precedents.
        too_long: lines that were left out, since they fill half a row.
    """

    rows: tuple[LineRow, ...]
    requests: tuple[int, ...]
    wanting: tuple[frozenset[int], ...]
    planted: tuple[str, ...]
    below: tuple[ScoredRow, ...]
    too_long: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Measured:
    """What every score makes of the lines of one repository.

    Attributes:
        lines: those that were added, as they were.
        planted: score -> value of each broken line, with the pull requests and kinds of break of those.
        truncated: lines that were read without the start of their file.
        too_long: lines that were left out.
    """

    lines: ScoredLines
    planted: dict[str, Floats]
    planted_requests: NDArray[np.int64]
    planted_kinds: tuple[str, ...]
    truncated: int
    too_long: int

    def found(self, kind: str = "") -> list[FoundShare]:
        """Planted breaks that each score finds at one false alarm in 200 lines; of one kind, or of all."""
        of_kind = np.array([not kind or each == kind for each in self.planted_kinds], dtype=bool)
        planted = {name: values[of_kind] for name, values in self.planted.items()}
        untouched = {name: self.lines.values[name] for name in planted}
        return found_shares(untouched, self.lines.requests, planted, self.planted_requests[of_kind], BASE_SURPRISAL)


@dataclass(frozen=True, slots=True)
class LineReport:
    """What `inhouse eval review --lines` tells.

    Attributes:
        left_out: why pull requests were not judged -> how many.
        moved: lines that were moved, reformatted or put back, and count as not wanting.
        breaks: planted breaks by kind; ``found``: how many of them each score finds.
    """

    adapter: str
    snapshot: str
    evaluation: LineEvaluation
    left_out: dict[str, int]
    moved: int
    truncated: int
    too_long: int
    breaks: dict[str, int]
    found: tuple[FoundShare, ...]
    decision: Decision
    calibration: Calibration | None

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return plain_json(self)


def house_names(repository: Repository, commit: str, progress: Progress = no_progress) -> HouseNames:
    """The names of a commit's code.

    Raises:
        InhouseError: there is no such commit.
    """
    snapshot = repository.snapshot(commit)

    def texts() -> Iterator[tuple[str, str]]:
        for done, item in enumerate(repository.iter_texts(snapshot), start=1):
            progress("reading the code", done, len(snapshot.files))
            if not isinstance(item, SkippedFile):
                yield item[0].path, item[1]

    return HouseNames(texts())


def gather(
    tokenizer: Any, judged: Sequence[JudgedChange], house: HouseNames, search: Retriever, max_tokens: int
) -> Material:
    """The rows of judged pull requests, and those of the breaks planted into them.

    A break is read below the precedents of the row that its line is in, with the line as it is when broken.

    Args:
        search: over the snapshot.
        max_tokens: of one row without precedents: as many as the adapter learned from.
    """
    found: list[tuple[LineRow, int, frozenset[int], str, ScoredRow]] = []
    wanted = 0

    def informed(row: LineRow, path: str, lines: Sequence[str], about: Sequence[int]) -> ScoredRow:
        return below_passages(tokenizer, row, precedents(search, path, lines, about), PRECEDENT_TOKENS)

    for number, each in enumerate(judged):
        beside: dict[tuple[str, int], list[int]] = {}
        for file in each.change.files:
            lines = each.lines.get(file.path, ())
            rows = line_rows(tokenizer, file.path, file.shown_lines, lines, max_tokens) if lines else []
            wanted += len(lines)
            for row in rows:
                here = list(dict.fromkeys(row.lines))
                beside.update(((file.path, line), here) for line in here)
                below = informed(row, file.path, file.shown_lines, here)
                found.append((row, number, each.wanting[file.path] & frozenset(here), "", below))
        for planted in planted_breaks(each, house):
            above = planted.lines[: planted.number]
            here = beside.get((planted.path, planted.number), [planted.number])
            for row in line_rows(tokenizer, planted.path, above, [planted.number], max_tokens):
                below = informed(row, planted.path, planted.lines, here)
                found.append((row, number, frozenset(), planted.kind, below))
    there = sum(len(set(row.lines)) for row, _, _, kind, _ in found if not kind)
    columns = zip(*found, strict=True) if found else iter(((), (), (), (), ()))
    rows_, requests, wanting, kinds, belows = columns
    return Material(rows_, requests, wanting, kinds, belows, wanted - there)


def measure(engine: TransformersEngine, adapter: str, material: Material, progress: Progress = no_progress) -> Measured:
    """Read every row with the base model and the adapter, and score its lines.

    Raises:
        InhouseError: the adapter is unknown or corrupt, a row is too long, or there are no lines.
    """
    read: list[dict[int, LineTokens]] = []
    for start in range(0, len(material.rows), _ROWS_AT_ONCE):
        progress("reading past lines", start, len(material.rows))
        block = slice(start, start + _ROWS_AT_ONCE)
        read += read_lines(engine, adapter, material.rows[block], material.below[block])
    lines: list[tuple[LineTokens, int, bool]] = []
    broken: list[tuple[LineTokens, int, str]] = []
    truncated = 0
    columns = zip(material.rows, material.requests, material.wanting, material.planted, read, strict=True)
    for row, request, wanting, kind, tokens in columns:
        truncated += len(tokens) if row.from_line > 1 and not kind else 0
        for number, line in tokens.items():
            if kind:
                broken.append((line, request, kind))
            else:
                lines.append((line, request, number in wanting))
    if not lines:
        raise InhouseError(
            "No lines of past pull requests can be judged.", "Try again when some are older than 30 days."
        )
    untouched, requests, wanting_lines = (list(column) for column in zip(*lines, strict=True))
    scored = scored_lines(untouched, requests, wanting_lines)
    of_breaks = np.array([request for _, request, _ in broken], dtype=np.int64)
    fit_on = (untouched, scored.requests)
    planted = {score.name: score_lines(score, [line for line, _, _ in broken], of_breaks, fit_on) for score in SCORES}
    kinds = tuple(kind for _, _, kind in broken)
    return Measured(scored, planted, of_breaks, kinds, truncated, material.too_long)


def report_lines(
    repository: Repository,
    engine: TransformersEngine,
    tokenizer: Any,
    adapter: str,
    snapshot: str,
    limit: int,
    max_tokens: int,
    progress: Progress = no_progress,
) -> LineReport:
    """Judge the newest ``limit`` pull requests after an adapter's snapshot, and every score by them.

    Args:
        snapshot: the commit that the adapter was trained on.

    Raises:
        InhouseError: that commit is not here, the adapter is corrupt, or there is nothing to judge.
    """
    judged = judged_changes(repository, snapshot, limit, progress=progress)
    house = house_names(repository, snapshot, progress)
    with closing(SnapshotSearch(repository, snapshot)) as search:
        material = gather(tokenizer, judged.changes, house, search, max_tokens)
    measured = measure(engine, adapter, material, progress)
    evaluation = evaluate_scores(measured.lines)
    if HOUSE_SCORE is None:
        decision = Decision(False, "", "no score was above base surprisal on repositories that it was not chosen on.")
    else:
        decision = decide(HOUSE_SCORE, evaluation)
    return LineReport(
        adapter,
        snapshot,
        evaluation,
        dict(judged.left_out),
        sum(change.moved for change in judged.changes),
        measured.truncated,
        measured.too_long,
        dict(Counter(measured.planted_kinds)),
        tuple(measured.found()),
        decision,
        calibrate(measured.lines.values[decision.score]) if decision.on else None,
    )
