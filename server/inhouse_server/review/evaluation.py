"""How good the house reviewer is on a repository's own history: what it says about later changes, and what came true.

Three questions. Of the files that it names as missing, how many were changed within 30 days, beside a guess that names
the busiest file? When one file of a real change is left out, does it name that file (the test of Zimmermann et al.,
ICSE 2004)? When a house spelling is replaced by another one in lines that really were added, does it see that, and how
many remarks does it make about the lines as they were?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from inhouse_retrieval import HistoryChange, InhouseError, Progress, Repository, no_progress, read_changes
from inhouse_retrieval.benchmark import bootstrap
from inhouse_server.review.companions import WINDOW, History
from inhouse_server.review.diff import read_change
from inhouse_server.review.imports import Import, imports, with_module
from inhouse_server.review.reviewer import House, know_house, review

_THIRTY_DAYS = 30 * 86_400
_MOST_FILES = 30
_LEFT_OUT = 3
"""Files of one change that are left out in turn."""
_PLANTED = "elsewhere"
"""A module that every language can spell."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of ``of`` cases with its 95 % interval (bootstrap over cases); ``None`` where there were none."""

    of: int
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ReviewEvaluation:
    """Figures of one repository.

    Attributes:
        changes: later changes that were looked at, each reviewed with the history before it.
        named: changes with a remark about a missing companion.
        came_true: remarks whose file changed within 30 days.
        busiest: the same for the busiest untouched file, in the same changes.
        left_out: cases in which a file was left out of a change; share in which some file was named.
        left_out_found: of those with a name, share in which it was the one left out.
        replayed: changes whose lines were read against one snapshot before them all.
        lines: added lines of those.
        remarks: rule -> remarks about them as they were; what is right about them nobody judged.
        planted: house imports that were replaced; share found.
        suggestions: replacements that the house made; share that was proven, and so shown.
        anchored: remarks whose anchor is the text of the lines that it names; all of them, or there is a fault.
    """

    changes: int
    named: int
    came_true: Share
    busiest: Share
    left_out: Share
    left_out_found: Share
    replayed: int
    lines: int
    remarks: dict[str, int]
    planted: Share
    anchored: Share
    suggestions: Share

    def to_json(self) -> dict[str, Any]:
        """As `inhouse eval review --json` prints it."""
        return asdict(self)


def evaluate_review(
    repository: Repository, changes: int = 300, replayed: int = 60, progress: Progress = no_progress
) -> ReviewEvaluation:
    """Evaluate on the newest ``changes`` that are at least 30 days old, and replay the newest ``replayed``.

    Raises:
        InhouseError: the history is too short.
    """
    past = list(read_changes(repository))
    if len(past) < 50:
        raise InhouseError(
            f"{len(past)} changes are too few to judge a review by.", "Try again when the history is longer."
        )
    came_true, busiest, left_out, found = _companions(past, changes, progress)
    remarks, lines, planted, anchored, suggested, count = _replay(
        repository, past, min(replayed, len(past) // 2), progress
    )
    return ReviewEvaluation(
        len(came_true) + sum(value is None for value in busiest),
        len(came_true),
        _share(came_true),
        _share([value for value in busiest if value is not None]),
        _share(left_out),
        _share(found),
        count,
        lines,
        dict(remarks),
        _share(planted),
        _share(anchored),
        _share(suggested),
    )


def _companions(
    past: Sequence[HistoryChange], limit: int, progress: Progress
) -> tuple[list[bool], list[bool | None], list[bool], list[bool]]:
    """Per change: whether what was named came true, the same for the busiest file (``None``: nothing was named), and
    per file left out: whether anything was named, and whether it was that file."""
    came_true: list[bool] = []
    busiest: list[bool | None] = []
    left_out: list[bool] = []
    found: list[bool] = []
    old_enough = [row for row, change in enumerate(past[:-50]) if past[0].landed - change.landed >= _THIRTY_DAYS]
    for done, row in enumerate(old_enough[:limit], start=1):
        progress("asking the history", done, min(limit, len(old_enough)))
        change = past[row]
        files = set(change.files)
        if not files or len(files) > _MOST_FILES:
            continue
        before = past[row + 1 : row + 1 + WINDOW]
        known = {path for each in before for path in each.files}
        history = History(before, known.__contains__)
        soon = {path for each in _within(past[:row][::-1], change.landed) for path in each.files}
        named = history.companions(files)[:1]
        busy = history.most_changed(files)
        busiest.append(busy in soon if named else None)
        came_true += [named[0].path in soon] if named else []
        for missing in sorted(files & known)[:_LEFT_OUT] if len(files) > 1 else ():
            guess = history.companions(files - {missing})[:1]
            left_out.append(bool(guess))
            found += [guess[0].path == missing] if guess else []
    return came_true, busiest, left_out, found


def _within(later: Sequence[HistoryChange], since: int) -> list[HistoryChange]:
    return [change for change in later if 0 <= change.landed - since <= _THIRTY_DAYS]


def _replay(
    repository: Repository, past: Sequence[HistoryChange], count: int, progress: Progress
) -> tuple[Counter[str], int, list[bool], list[bool], list[bool], int]:
    house = know_house(repository, past[count].commit, progress)
    remarks: Counter[str] = Counter()
    lines = replayed = 0
    planted: list[bool] = []
    anchored: list[bool] = []
    suggested: list[bool] = []
    for done, each in enumerate(past[:count], start=1):
        progress("reviewing later changes", done, count)
        if each.parents < 1 or not each.files or len(each.files) > _MOST_FILES:
            continue
        change = read_change(repository, each.commit)
        reviewed = review(change, house, limit=1_000)
        replayed += 1
        lines += reviewed.coverage.lines
        # Without a model, only replacements are ever dropped.
        suggested += [True] * sum(finding.replacement is not None for finding in reviewed.findings)
        suggested += [False] * sum(reviewed.dropped.values())
        files = {file.path: file for file in change.files}
        for finding in reviewed.findings:
            remarks[finding.rule] += 1
            file = files.get(finding.path)  # a remark about a removed file stands at one that the change leaves alone
            there = file.shown(finding.start_line, finding.end_line) if file is not None else ""
            anchored.append(there == finding.anchor)
        for file in change.files:
            added = {number for hunk in file.hunks for number in hunk.added}
            for found in imports(file.path, file.new_text):
                if found.line in added and _is_usual(house, file.path, found):
                    planted.append(_is_seen(house, file.path, file.new_text, found))
    return remarks, lines, planted, anchored, suggested, replayed


def _is_usual(house: House, path: str, found: Import) -> bool:
    """Whether the house imports this name from there in so many places that another module would be remarked on."""
    other = Import(found.line, found.name, _PLANTED, _PLANTED)
    usual = house.conventions.usual_import(path, other)
    return usual is not None and usual[0].spelling == found.target


def _is_seen(house: House, path: str, text: str, found: Import) -> bool:
    """Whether the import is remarked on after its module was replaced in the text of the file."""
    return any(
        other.name == found.name and house.conventions.usual_import(path, other) is not None
        for other in imports(path, with_module(path, text, found, _PLANTED))
    )


def _share(values: Sequence[bool]) -> Share:
    if not values:
        return Share(0, None, None, None)
    score = bootstrap(np.array(values, float))
    return Share(len(values), score.mean, score.low, score.high)
