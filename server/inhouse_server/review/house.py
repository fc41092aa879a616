"""The house reviewer: what past changes and the spellings of the base say about a change. No model, no prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from inhouse_server.review.change import NO_LINE_CHANGED, REMOVED, Change, ReviewedFile
from inhouse_server.review.companions import Companion, History, is_code
from inhouse_server.review.conventions import (
    Conventions,
    DictatedNames,
    Usual,
    defined_names,
    name_style,
)
from inhouse_server.review.finding import Finding, Precedent
from inhouse_server.review.import_findings import import_findings, usual_places
from inhouse_server.review.raised import raised_errors

_NAMED = 3
_TESTS_FOR = 20
"""Added lines of code from which missing tests are worth a remark."""


def companion_findings(change: Change, history: History) -> list[Finding]:
    """Files that usually change together with these and were not touched: one remark for each file touched."""
    by_path = {name: file for file in change.files for name in (file.former, file.path)}
    moved = {file.former for file in change.files if _is_moved(file)}
    grouped: dict[str, list[Companion]] = defaultdict(list)
    for found in history.companions(change.paths, moved=moved):
        grouped[found.because].append(found)
    findings: list[Finding] = []
    for because, companions in grouped.items():
        file = by_path.get(because)
        if file is None or not (file.hunks or _is_moved(file)):
            continue
        first = companions[0]
        others = f" {_and_more(companions[1:])}" if len(companions) > 1 else ""
        message = (
            f"{first.path} usually changes with {because}: in {first.together} of its last {first.of} changes. "
            f"This change {_what_happens(file)}leaves it alone.{others}"
        )
        places = tuple(Precedent(each.path, 1, 1, "usually changes too") for each in companions[:_NAMED])
        if file.status == "removed":  # nothing can be said at it any more
            findings.append(
                Finding(first.path, 1, 1, "info", "companion", message, "", None, places, first.changes,
                        first.confidence, because)
            )  # fmt: skip
        else:
            findings.append(
                _at_first_change(file, "companion", message, first.confidence, places, first.changes, first.path)
            )
    return findings


def _is_moved(file: ReviewedFile) -> bool:
    """Whether the file is removed, or renamed with its lines as they were."""
    return file.unread == REMOVED or (file.status == "renamed" and file.unread == NO_LINE_CHANGED)


def _what_happens(file: ReviewedFile) -> str:
    if file.status == "removed":
        return "removes that and "
    return f"renames that to {file.path} and " if file.status == "renamed" else ""


def _and_more(companions: Sequence[Companion]) -> str:
    named = ", ".join(f"{each.path} ({each.together} of {each.of})" for each in companions[: _NAMED - 1])
    more = len(companions) - _NAMED + 1
    return f"So does {named}{f' and {more} more' if more > 0 else ''}."


def test_findings(change: Change, history: History) -> list[Finding]:
    """Tests that usually accompany a change of this kind, when it brings none and adds more than a few lines."""
    code = [file for file in change.files if file.hunks and is_code(file.path)]
    if sum(len(hunk.added) for file in code for hunk in file.hunks) < _TESTS_FOR:
        return []
    missing = history.missing_tests(change.paths)
    if missing is None:
        return []
    folder = missing.because.endswith("/")
    file = next(
        (
            file
            for file in code
            for path in (file.path, file.former)
            if path == missing.because or (folder and path.rpartition("/")[0] + "/" == missing.because)
        ),
        None,
    )
    if file is None:
        return []
    message = (
        f"Changes to {missing.because} usually bring a test: {missing.tested} of the last {missing.of} did. "
        "This one touches none."
    )
    places = tuple(Precedent(path, 1, 1, "changed with it before") for path in missing.likely)
    return [_at_first_change(file, "tests", message, missing.confidence, places, missing.changes, missing.because)]


def spelling_findings(change: Change, conventions: Conventions) -> tuple[list[Finding], dict[str, int]]:
    """Imports, names and errors that the house spells another way, and why replacements were dropped, by reason."""
    findings, dropped = import_findings(change, conventions)
    findings += _error_findings(change, conventions)
    named = {file.path: list(defined_names(file.path, file.new_text)) for file in change.files if file.hunks}
    dictated = DictatedNames(defined for names in named.values() for defined in names)
    for file in change.files:
        added = {number for hunk in file.hunks for number in hunk.added}
        for defined in named.get(file.path, ()):
            if defined.line not in added or defined in dictated or conventions.is_method(file.path, defined.name):
                continue
            usual = conventions.usual_style(file.path, defined.name)
            if usual is not None:
                findings.append(_name_finding(file, defined.line, defined.name, usual))
    return findings, dropped


def _error_findings(change: Change, conventions: Conventions) -> list[Finding]:
    findings = []
    for file in change.files:
        added = {number for hunk in file.hunks for number in hunk.added}
        usual = conventions.usual_error(file.path) if added else None
        if usual is None:
            continue
        for raised in raised_errors(file.path, file.new_text):
            if not raised.is_general or raised.line not in added:
                continue
            message = (
                f"`{raised.name}` does not say what went wrong: {usual.count} of {usual.of} errors raised in this "
                f"language here do, such as `{usual.spelling}`."
            )
            findings.append(
                Finding(
                    file.path, raised.line, raised.line, "info", "error-type", message,
                    file.shown(raised.line, raised.line), precedents=usual_places(usual, "raises one that does"),
                    score=usual.count / (usual.of + 1), key=raised.name,
                )
            )  # fmt: skip
    return findings


def _name_finding(file: ReviewedFile, number: int, name: str, usual: Usual) -> Finding:
    message = (
        f"`{name}` is written in {name_style(name)}; {usual.count} of {usual.of} names in files of this kind are in "
        f"{usual.spelling}."
    )
    return Finding(
        file.path, number, number, "info", "name-style", message, file.shown(number, number),
        precedents=usual_places(usual, f"a name in {usual.spelling}"), score=usual.count / (usual.of + 1), key=name,
    )  # fmt: skip


def _at_first_change(
    file: ReviewedFile, rule: str, message: str, score: float, places: tuple[Precedent, ...],
    changes: tuple[str, ...], key: str,
) -> Finding:  # fmt: skip
    hunk = file.hunks[0] if file.hunks else None
    line = min(hunk.added, default=max(1, hunk.start)) if hunk is not None else 1
    return Finding(
        file.path, line, line, "info", rule, message, file.shown(line, line), None, places, changes, score, key
    )
