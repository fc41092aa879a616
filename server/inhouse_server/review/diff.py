"""A change as two trees and the hunks between them, whatever it was given as: a range, what is staged, a patch.

Trees that the repository does not hold yet (staged or unsaved work, a patch) are written to an object folder of their
own, which is deleted afterwards: the user's repository, index and work tree are never written to.
"""

from __future__ import annotations

import io
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

from unidiff.patch import PatchSet

from inhouse_retrieval import InhouseError, Repository, redact
from inhouse_retrieval.reading import MAX_FILE_BYTES, NotText, decode

Status = Literal["added", "modified", "removed", "renamed"]
MAX_FILES = 3_000
MAX_PATCH_BYTES = 1_000_000
"""Of one file. A longer patch is generated code or a move, and is listed as not read."""
CONTEXT = 3
_STATUS: dict[str, Status] = {"A": "added", "D": "removed", "R": "renamed", "C": "added"}
_NO_CHANGE = "no line of it changed"


@dataclass(frozen=True, slots=True)
class Hunk:
    """One hunk of a file, as the change leaves it.

    Attributes:
        start, length: lines of the new file that the hunk covers, context included; 1-based.
        added: numbers of the added lines.
        lines: ``(sign, text)`` of every line; the sign is ``" "``, ``"+"`` or ``"-"``, the text has no line end.
    """

    start: int
    length: int
    added: tuple[int, ...]
    lines: tuple[tuple[str, str], ...]

    @property
    def patch(self) -> str:
        """The hunk's lines with their signs."""
        return "\n".join(sign + text for sign, text in self.lines)


@dataclass(frozen=True, slots=True)
class ReviewedFile:
    """One changed file.

    Attributes:
        path: after the change; of a removed file, before.
        former: before the change.
        old_text, new_text: whole content, secrets still in it: never show it without redacting; ``""`` where there is
            no such side.
        unread: why its lines are not looked at; ``""`` when they are.
    """

    path: str
    former: str
    status: Status
    hunks: tuple[Hunk, ...] = ()
    old_text: str = ""
    new_text: str = ""
    unread: str = ""

    def added_lines(self) -> list[tuple[int, str]]:
        """``(number, text)`` of the lines that the change adds."""
        lines = self.new_text.split("\n")
        return [(number, lines[number - 1].removesuffix("\r")) for hunk in self.hunks for number in hunk.added]


@dataclass(frozen=True, slots=True)
class Change:
    """What is reviewed.

    Attributes:
        base, head: as a person would name them.
        base_commit: the commit whose history and conventions count.
        head_commit: the commit reviewed; empty when it is not committed.
    """

    base: str
    head: str
    base_commit: str
    head_commit: str
    title: str
    description: str
    files: tuple[ReviewedFile, ...]

    @property
    def paths(self) -> frozenset[str]:
        """Every path touched, under its old name and its new one."""
        return frozenset(name for file in self.files for name in (file.path, file.former))


def read_change(
    repository: Repository,
    revisions: str | None = None,
    *,
    staged: bool = False,
    pull_request: int | None = None,
    patch: bytes | None = None,
) -> Change:
    """Read what is to be reviewed; with nothing named, all that is here and not on the main branch yet.

    Args:
        revisions: ``BASE..HEAD``, ``BASE...HEAD``, or ``HEAD`` alone, which is compared with its parent.
        staged: what the next commit would hold.
        pull_request: a merged pull request of the history, or one whose head was fetched to ``refs/pull/N/head``.
        patch: a unified diff against HEAD.

    Raises:
        InhouseError: more than one of them, no such revision, or a patch that does not apply.
    """
    if sum((revisions is not None, staged, pull_request is not None, patch is not None)) > 1:
        raise InhouseError(
            "Only one thing can be reviewed at a time.", "Give a range, --staged, --pr or --diff, and no two of them."
        )
    with _Trees(repository) as trees:
        if patch is not None:
            return trees.change("HEAD", "the patch", repository.head(), "", trees.of_patch(patch))
        if staged:
            return trees.change("HEAD", "what is staged", repository.head(), "", trees.of_index())
        if pull_request is not None:
            base, head, name = _pull_request(repository, pull_request)
            return trees.change(base[:12], name, base, head, head)
        if revisions is not None:
            base, head = _range(repository, revisions)
            return trees.change(base[:12], head[:12], base, head, head)
        main = main_branch(repository)
        base = _merge_base(repository, main, "HEAD") if main else repository.head()
        return trees.change(main or "HEAD", "the work tree", base, "", trees.of_work_tree())


def main_branch(repository: Repository) -> str | None:
    """The branch that changes go to: the remote's, else a local ``main`` or ``master``."""
    asked = repository.git("symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD", allow_failure=True)
    for name in (asked.decode().strip(), "origin/main", "origin/master", "main", "master"):
        if name and repository.git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", allow_failure=True):
            return name
    return None


def _range(repository: Repository, revisions: str) -> tuple[str, str]:
    base, dots, head = revisions.partition("..")
    if not dots:
        commit = repository.commit_id(revisions)
        parents = repository.git("rev-list", "--parents", "-1", commit).decode().split()[1:]
        if not parents:
            raise InhouseError(f"{revisions} has no parent to compare with.", "Name a range, BASE..HEAD.")
        return parents[0], commit
    if head.startswith("."):
        base, head = base or "HEAD", head[1:] or "HEAD"
        return _merge_base(repository, base, head), repository.commit_id(head)
    return repository.commit_id(base or "HEAD"), repository.commit_id(head or "HEAD")


def _merge_base(repository: Repository, base: str, head: str) -> str:
    repository.commit_id(base), repository.commit_id(head)
    found = repository.git("merge-base", base, head, allow_failure=True).decode().split()
    if not found:
        raise InhouseError(f"{base} and {head} have no common commit.", "Name the range to review, BASE..HEAD.")
    return found[0]


def _pull_request(repository: Repository, number: int) -> tuple[str, str, str]:
    for ref in (f"refs/pull/{number}/head", f"refs/merge-requests/{number}/head"):
        if repository.git("rev-parse", "--verify", "--quiet", ref, allow_failure=True):
            main = main_branch(repository) or "HEAD"
            return _merge_base(repository, main, ref), repository.commit_id(ref), f"#{number}"
    from inhouse_retrieval.history import read_changes

    for change in read_changes(repository):
        if change.number == number:
            return repository.commit_id(f"{change.commit}^1"), change.commit, f"#{number}"
    raise InhouseError(
        f"Pull request #{number} is not in this clone.",
        f"Fetch it: git fetch origin pull/{number}/head:refs/pull/{number}/head",
    )


class _Trees:
    """Tree ids of what is not committed, in an object folder of their own."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._folder = Path(tempfile.mkdtemp(prefix="inhouse-review-"))
        objects = repository.git("rev-parse", "--path-format=absolute", "--git-path", "objects").decode().strip("\n")
        (self._folder / "objects").mkdir()
        self._environment = {
            "GIT_INDEX_FILE": str(self._folder / "index"),
            "GIT_OBJECT_DIRECTORY": str(self._folder / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects,
        }

    def __enter__(self) -> _Trees:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def git(self, *args: str, given: bytes = b"") -> bytes:
        return self._repository.git(*args, given=given, environment=self._environment)

    def of_index(self) -> str:
        self._copy_index()
        return self.git("write-tree").decode().strip()

    def of_work_tree(self) -> str:
        self._copy_index()
        self.git("add", "--all", "--", ".")
        return self.git("write-tree").decode().strip()

    def of_patch(self, patch: bytes) -> str:
        self.git("read-tree", "HEAD")
        try:
            self.git("apply", "--cached", "--whitespace=nowarn", "-", given=patch)
        except InhouseError as error:
            raise InhouseError(f"The patch does not apply to HEAD: {error.problem}", "Check out its base.") from error
        return self.git("write-tree").decode().strip()

    def _copy_index(self) -> None:
        named = self._repository.git("rev-parse", "--path-format=absolute", "--git-path", "index").decode().strip("\n")
        if Path(named).exists():
            shutil.copyfile(named, self._folder / "index")

    def change(self, base_name: str, head_name: str, base: str, head_commit: str, head: str) -> Change:
        title = description = ""
        if head_commit:
            message = self.git("show", "-s", "--format=%B", head_commit).decode("utf-8", "replace").strip()
            title, _, description = message.partition("\n")
        files = self._files(base, head)
        return Change(
            base_name, head_name, base, head_commit, redact(title)[0], redact(description.strip())[0], tuple(files)
        )

    def _files(self, base: str, head: str) -> list[ReviewedFile]:
        options = ("--find-renames", "--no-ext-diff", "--no-textconv", "--no-color")
        raw = self.git("diff-tree", "-r", *options, "--raw", "--no-abbrev", "-z", base, head).split(b"\0")
        files: list[ReviewedFile] = []
        at = 0
        while at < len(raw) and raw[at].startswith(b":"):
            old_mode, new_mode, old, new, status = raw[at][1:].decode().split(" ")
            pair = status[0] in "RC"
            names = raw[at + 1 : at + 3] if pair else [raw[at + 1], raw[at + 1]]
            at += 3 if pair else 2
            before, after = (name.decode("utf-8", "replace") for name in names)
            file = ReviewedFile(after, before, _STATUS.get(status[0], "modified"))
            unread = self._reason(file, len(files), {old_mode, new_mode})
            if "\ufffd" in before + after:
                unread = "its name is not UTF-8"
            files.append(_with(file, unread) if unread else self._read(file, old, new, (base, head), options))
        return files

    def _reason(self, file: ReviewedFile, number: int, modes: set[str]) -> str:
        if number >= MAX_FILES:
            return f"more than {MAX_FILES:,} files changed"
        if "160000" in modes:
            return "submodule"
        if "120000" in modes:
            return "symbolic link"
        if file.status == "removed":
            return "removed"
        return self._repository.reason_by_name(file.path) or ""

    def _read(
        self, file: ReviewedFile, old: str, new: str, trees: tuple[str, str], options: Sequence[str]
    ) -> ReviewedFile:
        sides: list[str] = []
        for blob in (old, new):
            data = b"" if set(blob) == {"0"} else self.git("cat-file", "blob", blob)
            if len(data) > MAX_FILE_BYTES:
                return _with(file, "larger than 1 MB")
            try:
                sides.append(decode(file.path, data) if data else "")
            except NotText as reason:
                return _with(file, str(reason))
        literal = [f":(top,literal){name}" for name in dict.fromkeys((file.former, file.path))]
        patch = self.git("diff-tree", "-r", *options, f"--unified={CONTEXT}", "--patch", *trees, "--", *literal)
        if len(patch) > MAX_PATCH_BYTES:
            return _with(file, "a patch larger than 1 MB")
        hunks = parse_hunks(patch.decode("utf-8", "replace"))
        unread = "" if hunks else _NO_CHANGE
        return replace(file, hunks=hunks, old_text=sides[0], new_text=sides[1], unread=unread)


def _with(file: ReviewedFile, unread: str) -> ReviewedFile:
    return replace(file, unread=unread)


def parse_hunks(patch: str) -> tuple[Hunk, ...]:
    """The hunks of one file's patch. Lines end at ``\\n`` alone: code may hold every other line separator."""
    start = re.search(r"^@@ ", patch, flags=re.M)
    if start is None:
        return ()
    text = "--- a/file\n+++ b/file\n" + patch[start.start() :]
    [file] = PatchSet(io.StringIO(text, newline="\n"))
    hunks: list[Hunk] = []
    for hunk in file:
        lines = [line for line in hunk if line.line_type in " +-" or line.line_type == ""]
        hunks.append(
            Hunk(
                hunk.target_start,
                hunk.target_length,
                tuple(line.target_line_no for line in lines if line.is_added and line.target_line_no is not None),
                tuple((line.line_type or " ", line.value.removesuffix("\n").removesuffix("\r")) for line in lines),
            )
        )
    return tuple(hunks)
