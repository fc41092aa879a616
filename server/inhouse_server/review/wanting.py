"""Lines found wanting: added lines of past pull requests that were changed soon after, by git alone.

The state reviewed is the first commit of a pull request with several commits, else the merge. A line is found wanting
when it is no longer there as it was written 30 days after the landing: `git blame` of that later state, back to the
state reviewed, does not name it. For a repository that squashes, and for one plain commit after another, that is what
the 30 days changed; where the commits of a pull request are kept, also what its later commits changed.

A line whose text, white space aside, stands in the file at the end as often as in the state reviewed was moved,
reformatted, or changed and changed back: it is not found wanting, and such lines are counted. (`git blame -M` is not
asked: it misses a moved block as soon as blank lines go with it.) A line that moved to another file, while its own file
stayed, counts as changed. A file that was renamed is followed by git's own detection; the lines of one that was removed
are found wanting.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from inhouse_retrieval import HistoryChange, InhouseError, Progress, Repository, no_progress, read_changes
from inhouse_retrieval.benchmark import is_routine
from inhouse_server.review.change import Change, ReviewedFile, split_lines
from inhouse_server.review.companions import is_source
from inhouse_server.review.diff import read_change

DAYS = 30
MOST_FILES = 30
"""A change of more files is a mass edit."""
MOST_LINES = 1_500
"""A change that adds more lines of code was not written line by line."""
BLAME_SECONDS = 20.0
"""One file's blame; a file that takes longer is left out, and counted."""
_GROUP = re.compile(rb"([0-9a-f]{40,64}) (\d+) \d+ (\d+)$")


@dataclass(frozen=True, slots=True)
class JudgedChange:
    """A past pull request as it was first seen, with what became of its lines.

    Attributes:
        commit: the one that landed it, on the first-parent history.
        number: of the pull request; ``None`` for a plain commit.
        change: the state reviewed.
        several: whether that is the first of several commits.
        lines: path -> the added lines that are judged: of code, and not blank.
        wanting: path -> those that were changed.
        moved: how many were only moved within their file, reformatted, or put back.
        left_out: path -> why its lines could not be judged.
    """

    commit: str
    number: int | None
    change: Change
    several: bool
    lines: dict[str, tuple[int, ...]]
    wanting: dict[str, frozenset[int]]
    moved: int = 0
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def has_both(self) -> bool:
        """Whether some lines were found wanting, and others were not."""
        return 0 < sum(map(len, self.wanting.values())) < sum(map(len, self.lines.values()))


@dataclass(slots=True)
class Judged:
    """Pull requests judged, newest first, and how many were left out for which reason."""

    changes: list[JudgedChange]
    left_out: Counter[str]


def judged_changes(
    repository: Repository, after: str, limit: int, until: str = "HEAD", progress: Progress = no_progress
) -> Judged:
    """The newest ``limit`` pull requests after a commit that are at least 30 days old, each with its lines judged.

    Where the history names no pull request, plain commits count. Takes a tenth of a second to a second for each.

    Args:
        after: what is in this commit's history is left out: an adapter was trained on it.

    Raises:
        InhouseError: there is no such commit.
    """
    past = list(read_changes(repository, until, repository.commit_id(after)))
    numbered = any(change.number is not None for change in past)
    judged = Judged([], Counter())
    for row in range(len(past)):
        if len(judged.changes) == limit:
            break
        progress("reading what became of past lines", len(judged.changes), limit)
        try:
            found = _judged(repository, past, row, numbered)
        except InhouseError:  # a partial clone whose server is out of reach
            found = "git cannot read all of it"
        if isinstance(found, str):
            judged.left_out[found] += 1
        else:
            judged.changes.append(found)
    return judged


def _judged(repository: Repository, past: Sequence[HistoryChange], row: int, numbered: bool) -> JudgedChange | str:
    """The change at ``row``, or why it is left out."""
    landed = past[row]
    if past[0].landed - landed.landed < DAYS * 86_400:
        return f"younger than {DAYS} days"
    if numbered and landed.number is None:
        return "no pull request"
    if landed.parents not in (1, 2) or not landed.files:
        return "no change of its own"
    if is_routine(landed.title):
        return "a bump, a release or a revert"
    if len(landed.files) > MOST_FILES:
        return f"more than {MOST_FILES} files"
    base, state, several = _state_reviewed(repository, landed)
    change = read_change(repository, f"{base}..{state}")
    lines = {file.path: _judged_lines(file) for file in change.files if is_source(file.path)}
    lines = {path: numbers for path, numbers in lines.items() if numbers}
    if not lines:
        return "no line of code added"
    if sum(map(len, lines.values())) > MOST_LINES:
        return f"more than {MOST_LINES:,} lines"
    end = _thirty_days_later(past, row)
    blames = _Blames(repository, base, state, end, first_parent=not several)
    moved, wanting, left_out = 0, {}, {}
    for path, numbers in list(lines.items()):
        try:
            gone = blames.gone(path, numbers)
        except TimeoutError:
            left_out[path] = f"git blame took more than {BLAME_SECONDS:g} seconds"
            del lines[path]
            continue
        file = next(file for file in change.files if file.path == path)
        wanting[path] = gone - _still_there(gone, file.shown_lines, blames.lines_at_the_end(path) if gone else [])
        moved += len(gone) - len(wanting[path])
    return JudgedChange(landed.commit, landed.number, change, several, lines, wanting, moved, left_out)


def _judged_lines(file: ReviewedFile) -> tuple[int, ...]:
    """Added lines that are not blank."""
    return tuple(number for number, text in file.added_lines() if text.strip())


def _still_there(gone: frozenset[int], before: Sequence[str], after: Sequence[str]) -> frozenset[int]:
    """Lines whose text, white space aside, stands in the later file as often as in the earlier one."""
    counts, later = (Counter("".join(line.split()) for line in lines) for lines in (before, after))
    texts = {number: "".join(before[number - 1].split()) for number in gone}
    return frozenset(number for number, text in texts.items() if later[text] >= counts[text])


def _state_reviewed(repository: Repository, landed: HistoryChange) -> tuple[str, str, bool]:
    """``(base, state, whether it is the first of several commits)``."""
    base = repository.commit_id(f"{landed.commit}^1")
    if landed.parents == 2:
        listed = ("rev-list", "--reverse", "--topo-order", "--parents", f"{base}..{landed.commit}^2")
        commits = [line.split() for line in repository.git(*listed).decode().splitlines()]
        own = [commit for commit in commits if len(commit) == 2]  # main merged into the branch is nobody's work
        if len(own) > 1:
            return own[0][1], own[0][0], True
    return base, landed.commit, False


def _thirty_days_later(past: Sequence[HistoryChange], row: int) -> str:
    """The last commit of the main branch within 30 days of the landing."""
    landed, end = past[row].landed, row
    while end > 0 and past[end - 1].landed - landed <= DAYS * 86_400:
        end -= 1
    return past[end].commit


class _Blames:
    """What is left at ``end`` of the lines that ``state`` added to ``base``."""

    def __init__(self, repository: Repository, base: str, state: str, end: str, first_parent: bool) -> None:
        self._repository = repository
        self._base, self._state, self._end = base, state, end
        # A merge has its own line numbers only against its first parent.
        self._asked: tuple[str, ...] = ("blame", "--incremental", "--no-textconv", "--ignore-revs-file=")
        self._asked += ("--first-parent",) if first_parent else ()
        touched = repository.git(
            "log", "-z", "--format=", "--name-only", "--no-renames", "--diff-merges=dense-combined", f"{state}..{end}"
        )
        self._touched = set(touched.split(b"\0"))
        raw = repository.git("diff-tree", "-r", "-z", "--find-renames", "--name-status", state, end).split(b"\0")
        self._names: dict[bytes, bytes | None] = {}
        at = 0
        while at + 1 < len(raw):
            pair = raw[at][:1] in b"RC"
            if raw[at][:1] in b"RD":
                self._names[raw[at + 1]] = raw[at + 2] if pair else None
            at += 3 if pair else 2

    def gone(self, path: str, numbers: Sequence[int]) -> frozenset[int]:
        """Of the lines that ``state`` added to ``path``: those that blame does not find at the end.

        Raises:
            TimeoutError: git took too long.
        """
        name = path.encode()
        if name not in self._touched:
            return frozenset()
        now = self._names.get(name, name)
        if now is None:
            return frozenset(numbers)
        gone = frozenset(numbers) - self._left(self._end, now, name)
        # Where blame and diff align a change in different ways, blame never named the line to begin with.
        return gone & self._left(self._state, name, name) if gone else gone

    def lines_at_the_end(self, path: str) -> list[str]:
        """The later file as it may be shown; no lines when it was removed or is no text any more."""
        now = self._names.get(path.encode(), path.encode())
        if now is None:
            return []
        [text] = self._repository.iter_texts_at([(self._end, now.decode("utf-8", "surrogateescape"))])
        return split_lines(text or "")

    def _left(self, end: str, now: bytes, path: bytes) -> frozenset[int]:
        """Lines of ``path`` at ``state`` that stand in the file ``now`` at ``end``."""
        left: set[int] = set()
        name = now.decode("utf-8", "surrogateescape")
        asked = (*self._asked, f"{self._base}..{end}", "--", name)
        group: tuple[int, int] | None = None
        for line in self._repository.git_lines(*asked, seconds=BLAME_SECONDS):
            found = _GROUP.match(line.rstrip(b"\n"))
            if found is not None:
                group = (int(found[2]), int(found[3])) if found[1].decode() == self._state else None
            elif line.startswith(b"filename ") and group is not None and _unquoted(line[9:].rstrip(b"\n")) == path:
                left.update(range(group[0], group[0] + group[1]))
        return frozenset(left)


def _unquoted(name: bytes) -> bytes:
    """A path as git prints it, without the quotation of unusual characters."""
    if not name.startswith(b'"'):
        return name
    return bytes(codecs.escape_decode(name[1:-1])[0])


def after_for(repository: Repository, wanted: int, until: str = "HEAD") -> str:
    """A commit of the main branch that about ``wanted`` usable pull requests of at least 30 days follow: a snapshot to
    train on, so that they may be judged.

    Raises:
        InhouseError: the history is too short.
    """
    past = list(read_changes(repository, until))
    numbered = any(change.number is not None for change in past)
    usable = 0
    for change in past:
        if usable == wanted and change.parents:
            return change.commit
        old = past[0].landed - change.landed >= DAYS * 86_400
        usable += (
            old
            and (change.number is not None or not numbered)
            and not is_routine(change.title)
            and len(change.files) <= MOST_FILES
            and any(is_source(path) for path in change.files)
        )
    raise InhouseError(
        f"Only {usable} pull requests of at least {DAYS} days are there, not {wanted}.", "Ask for fewer."
    )
