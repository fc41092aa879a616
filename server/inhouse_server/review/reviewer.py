"""The review of one change: both reviewers, then what is shown of what they found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

from inhouse_retrieval import Progress, Repository, SkippedFile, no_progress, read_changes, redact
from inhouse_server.review.change import Change
from inhouse_server.review.check import Check
from inhouse_server.review.companions import History
from inhouse_server.review.conventions import Conventions
from inhouse_server.review.finding import Coverage, Finding, Review, Severity
from inhouse_server.review.house import companion_findings, spelling_findings, test_findings
from inhouse_server.review.house_score import HOUSE_SCORE, house_score_notes
from inhouse_server.review.past_remarks import PastRemarks, with_past_remarks
from inhouse_server.review.reading import READING, Search, read_hunks
from inhouse_training import BASE, Engine
from inhouse_training.plain_text import plain_text, spoils

_SECRET = "it holds a secret"
_MOST_NOTES = 20
_SEVERITIES: tuple[Severity, ...] = ("warning", "info")
_RANK = {READING: 0, "import-spelling": 1, "companion": 2, "tests": 3, "name-style": 4, "error-type": 5}
"""Of findings that are equally sure, a defect goes before a habit."""
_ABOUT_CODE = frozenset({READING, "import-spelling", "name-style", "error-type"})
"""Rules whose findings are about the lines that they stand at."""


@dataclass(frozen=True, slots=True)
class Reader:
    """The model that reads, for whom, what it is shown beside the change, and how many tokens it may read and say."""

    engine: Engine
    adapter: str
    search: Search
    remarks: PastRemarks
    prompt_tokens: int
    reply_tokens: int
    samples: int = 1
    second_look: bool = False
    caller: str = ""


@dataclass(frozen=True, slots=True)
class House:
    """What the base of a change says: its past, how it spells things, and what reviewers said.

    Attributes:
        notes: what is to be said about how much of the past is here.
    """

    history: History
    conventions: Conventions
    remarks: PastRemarks = field(default_factory=lambda: PastRemarks(()))
    notes: tuple[str, ...] = ()


def know_house(
    repository: Repository, commit: str, progress: Progress = no_progress, state_dir: Path | None = None
) -> House:
    """Read the history up to ``commit`` and every file of it. Takes a second for a thousand files.

    Args:
        state_dir: where `inhouse sync` put what reviewers said; ``None`` leaves that out.

    Raises:
        InhouseError: there is no such commit.
    """
    snapshot = repository.snapshot(commit)
    there = {file.path for file in snapshot.files} | {file.path for file in snapshot.skipped}
    progress("reading the history", 0, None)
    history = History(read_changes(repository, commit), there.__contains__)

    def texts() -> Iterator[tuple[str, str]]:
        for done, item in enumerate(repository.iter_texts(snapshot), start=1):
            progress("reading the code", done, len(snapshot.files))
            if not isinstance(item, SkippedFile):
                yield item[0].path, item[1]

    remarks = PastRemarks(()) if state_dir is None else PastRemarks.of(state_dir)
    return House(history, Conventions(texts()), remarks, _cut_off(repository, commit))


def _cut_off(repository: Repository, commit: str) -> tuple[str, ...]:
    """That a shallow clone knows little of the past, if this is one."""
    if not repository.is_shallow():
        return ()
    here = repository.git("rev-list", commit).decode().split()
    return (
        f"The history ends at {here[-1][:12]}, since this clone is shallow, so habits are drawn from "
        f"{len(here):,} {'commit' if len(here) == 1 else 'commits'}; `git fetch --unshallow` brings the rest.",
    )


def review(
    change: Change,
    house: House,
    limit: int,
    reader: Reader | None = None,
    shown: Container[str] = (),
    cancel: Event | None = None,
    progress: Progress = no_progress,
    check: Check | None = None,
) -> Review:
    """Review ``change``.

    Args:
        limit: findings at most, best first.
        reader: ``None`` leaves the model out.
        shown: fingerprints that are not shown again.
        check: the project's own, which no replacement may make worse; only those that are shown are tried.
    """
    spelled, refused = spelling_findings(change, house.conventions)
    read = _read(change, reader, cancel or Event(), progress) if reader is not None else _Read()
    dropped = Counter(refused) + read.dropped
    found = (
        *companion_findings(change, house.history), *test_findings(change, house.history), *spelled, *read.findings
    )  # fmt: skip
    findings = [_without_secrets(finding, dropped) for finding in _distinct(found)]
    fresh = sorted((finding for finding in findings if finding.fingerprint not in shown), key=gravest_first)
    best = _with_past(fresh[:limit], change, house.remarks)
    if check is not None:
        best = _checked(best, change, check, dropped, progress)
    return Review(
        change.base,
        change.head,
        change.head_commit,
        tuple(best),
        _coverage(change, read),
        more=max(0, len(fresh) - limit),
        repeated=len(findings) - len(fresh),
        dropped=dict(sorted(dropped.items())),
        worst=next((level for level in _SEVERITIES if any(each.severity == level for each in findings)), None),
        notes=_at_most(
            dict.fromkeys((*change.notes, *house.notes, *house_score_notes(HOUSE_SCORE), *_notes(change), *read.notes))
        ),
        base_model=reader.engine.base_model if reader is not None else None,
        adapter=reader.adapter if reader is not None and reader.adapter != BASE else None,
    )


@dataclass(slots=True)
class _Read:
    """What came of the reading reviewer's hunks, all together."""

    findings: list[Finding] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    seen: int = 0
    unseen: list[str] = field(default_factory=list)
    partly: list[str] = field(default_factory=list)


def _read(change: Change, reader: Reader, cancel: Event, progress: Progress) -> _Read:
    read = _Read()
    hunks = sum(len(file.hunks) for file in change.files)
    readings = read_hunks(
        change, reader.engine, reader.adapter, reader.search, reader.remarks, reader.prompt_tokens,
        reader.reply_tokens, cancel, reader.samples, reader.second_look, reader.caller,
    )  # fmt: skip
    for done, (file, hunk, reading) in enumerate(readings, start=1):
        progress("reading the change", done, hunks)
        read.seen += not reading.unseen
        if reading.unseen:
            read.unseen.append(f"{file.path}:{hunk.start} {reading.unseen}")
        if reading.part:
            read.partly.append(f"{file.path}:{hunk.start} {reading.part}")
        read.findings += reading.findings
        read.dropped.update(reading.dropped)
        read.notes += reading.notes
    return read


def _coverage(change: Change, read: _Read) -> Coverage:
    return Coverage(
        files=sum(not file.unread for file in change.files),
        hunks=sum(len(file.hunks) for file in change.files),
        lines=sum(len(hunk.added) for file in change.files for hunk in file.hunks),
        unread={file.path: file.unread for file in change.files if file.unread},
        seen=read.seen,
        unseen=tuple(read.unseen),
        partly=tuple(read.partly),
    )


def _with_past(findings: Sequence[Finding], change: Change, remarks: PastRemarks) -> list[Finding]:
    """The findings; those about code with what reviewers said about such code before."""
    files = {file.path: file for file in change.files}
    return [
        with_past_remarks(finding, files[finding.path], remarks, plain_text(change.title))
        if finding.rule in _ABOUT_CODE
        else finding
        for finding in findings
    ]


def _distinct(findings: Sequence[Finding]) -> list[Finding]:
    """One of each fingerprint, which names the other places: a break that stands on several lines is told once."""
    by_fingerprint: dict[str, list[Finding]] = {}
    for finding in findings:
        by_fingerprint.setdefault(finding.fingerprint, []).append(finding)
    distinct: list[Finding] = []
    for first, *others in by_fingerprint.values():
        places = {(other.start_line, other.end_line) for other in others} - {(first.start_line, first.end_line)}
        distinct.append(replace(first, also=tuple(sorted(places))))
    return distinct


def _checked(
    findings: Sequence[Finding], change: Change, check: Check, dropped: Counter[str], progress: Progress
) -> list[Finding]:
    """The findings, without the replacements that the project's check speaks against."""
    files = {file.path: file for file in change.files}
    checked: list[Finding] = []
    for done, finding in enumerate(findings, start=1):
        progress("running the check", done, len(findings))
        refused = check.refusal(files[finding.path], finding) if finding.replacement is not None else ""
        if refused:
            dropped[refused] += 1
        checked.append(replace(finding, replacement=None) if refused else finding)
    return checked


def _without_secrets(finding: Finding, dropped: Counter[str]) -> Finding:
    """A finding is shown in places that more people read than the code: no secret of the line goes along."""
    replacement = finding.replacement
    if replacement is not None and (redact(replacement)[0] != replacement or "[REDACTED " in finding.anchor):
        dropped[_SECRET] += 1
        replacement = None
    return replace(finding, replacement=replacement, message=redact(finding.message)[0])


def _notes(change: Change) -> tuple[str, ...]:
    notes: list[str] = []
    told = f"{change.title}\n{change.description}"
    if what := spoils(told):
        notes.append(f"The change's own description holds {what}; they were taken out.")
    if "<!--" in told:
        notes.append("The change's own description holds HTML comments; they were taken out.")
    for file in change.files:
        if what := spoils(file.path):
            notes.append(f"The name of {plain_text(file.path)} holds {what}.")
    for file in change.files:
        # At the start of a file it is a byte order mark, which hides nothing.
        lines = [(n, text.removeprefix("\ufeff") if n == 1 else text) for n, text in file.added_lines()]
        spoilt = [number for number, text in lines if spoils(text)]
        if spoilt:
            what = spoils("\n".join(text for _, text in lines))
            more = f", and {len(spoilt) - 1:,} more of its lines" if len(spoilt) > 1 else ""
            notes.append(f"{plain_text(file.path)}:{spoilt[0]}{more} add{'' if more else 's'} {what}.")
    return tuple(notes)


def _at_most(notes: Iterable[str]) -> tuple[str, ...]:
    kept = tuple(notes)
    if len(kept) <= _MOST_NOTES:
        return kept
    return (*kept[: _MOST_NOTES - 1], f"{len(kept) - _MOST_NOTES + 1:,} more notes of this kind are not shown.")


def gravest_first(finding: Finding) -> tuple[int, float, int, str, int]:
    """Warnings before remarks, whatever their scores: those of different rules do not compare."""
    severity = _SEVERITIES.index(finding.severity)
    return severity, -finding.score, _RANK.get(finding.rule, 9), finding.path, finding.start_line
