"""A change as two trees and the hunks between them, whatever it was given as: a range, what is staged, a patch.

Trees that the repository does not hold yet (staged or unsaved work, a patch) are written to an object folder of their
own, which is deleted afterwards: the user's repository, index and work tree are never written to, and no filter that
git is configured with is run.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Literal

from unidiff.patch import PatchSet

from inhouse_retrieval import InhouseError, Progress, Repository, no_progress, read_changes, redact
from inhouse_retrieval.reading import MAX_FILE_BYTES, NotText, decode
from inhouse_server.settings_file import FILE_NAME

Status = Literal["added", "modified", "removed", "renamed"]
MAX_FILES = 3_000
MAX_PATCH_BYTES = 1_000_000
"""Of one file. A longer patch is generated code or a move, and is listed as not read."""
CONTEXT = 3
_STATUS: dict[str, Status] = {"A": "added", "D": "removed", "R": "renamed", "C": "added"}
_NO_CHANGE = "no line of it changed"
_DIFF = ("--find-renames", "--no-ext-diff", "--no-textconv", "--no-color", "--text", f"--unified={CONTEXT}")


@dataclass(frozen=True, slots=True)
class Hunk:
    """One hunk of a file, as the change leaves it.

    Attributes:
        start, length: lines of the new file that the hunk covers, context included; 1-based.
        added: numbers of the added lines.
        lines: ``(sign, text)`` of every line, secrets redacted; the sign is ``" "``, ``"+"`` or ``"-"``, the text has
            no line end.
    """

    start: int
    length: int
    added: tuple[int, ...]
    lines: tuple[tuple[str, str], ...]

    @property
    def patch(self) -> str:
        """The hunk's lines with their signs."""
        return "\n".join(sign + text for sign, text in self.lines)


@dataclass(frozen=True)
class ReviewedFile:
    """One changed file.

    Attributes:
        path: after the change; of a removed file, before.
        former: before the change.
        new_text: whole content with its own line ends, secrets still in it: show :attr:`shown_lines` instead.
        unread: why its lines are not looked at; ``""`` when they are.
    """

    path: str
    former: str
    status: Status
    hunks: tuple[Hunk, ...] = ()
    new_text: str = ""
    unread: str = ""

    @cached_property
    def lines(self) -> list[str]:
        """Lines of the new text without their ends; a text that ends in a line end has no empty last line."""
        return split_lines(self.new_text)

    @cached_property
    def shown_lines(self) -> list[str]:
        """The same with secrets redacted: over the whole text, since a key may go over many lines."""
        return split_lines(redact(self.new_text)[0])

    def shown(self, first: int, last: int) -> str:
        """Lines ``first`` to ``last``, 1-based and inclusive, as they may be shown."""
        return "\n".join(self.shown_lines[first - 1 : last])

    def added_lines(self) -> list[tuple[int, str]]:
        """``(number, text)`` of the lines that the change adds."""
        return [(number, self.lines[number - 1]) for hunk in self.hunks for number in hunk.added]


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


def split_lines(text: str) -> list[str]:
    """Lines as git counts them: they end at ``\\n`` alone; one ``\\r`` before it is part of the end."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_change(
    repository: Repository,
    revisions: str | None = None,
    *,
    staged: bool = False,
    pull_request: int | None = None,
    patch: bytes | None = None,
    copy_to: Path | None = None,
    progress: Progress = no_progress,
) -> Change:
    """Read what is to be reviewed; with nothing named, all that is here and not on the main branch yet.

    Args:
        revisions: ``BASE..HEAD``, ``BASE...HEAD``, or ``HEAD`` alone, which is compared with its parent.
        staged: what the next commit would hold.
        pull_request: a merged pull request of the history, or one whose head was fetched to ``refs/pull/N/head``.
        patch: a unified diff against HEAD.
        copy_to: an empty folder that the whole repository is written to, as the change leaves it.

    Raises:
        InhouseError: more than one of them, no such revision, or a patch that does not apply.
    """
    if sum((revisions is not None, staged, pull_request is not None, patch is not None)) > 1:
        raise InhouseError(
            "Only one thing can be reviewed at a time.", "Give a range, --staged, --pr or --diff, and no two of them."
        )
    with _Trees(repository, progress, copy_to) as trees:
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
        base, name = review_base(repository)
        return trees.change(name, "the work tree", base, "", trees.of_work_tree())


def review_base(repository: Repository) -> tuple[str, str]:
    """The commit that the work tree is compared with, where HEAD left the main branch; and that branch's name.

    Raises:
        InhouseError: there is no commit, or the two have none in common.
    """
    main = main_branch(repository)
    return (_merge_base(repository, main, "HEAD"), main) if main else (repository.head(), "HEAD")


def main_branch(repository: Repository) -> str | None:
    """The branch that changes go to: the remote's, else a local ``main`` or ``master``."""
    asked = repository.git("symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD", allow_failure=True)
    for name in (asked.decode("utf-8", "replace").strip(), "origin/main", "origin/master", "main", "master"):
        if name and _exists(repository, f"{name}^{{commit}}"):
            return name
    return None


def _exists(repository: Repository, revision: str) -> bool:
    return bool(repository.git("rev-parse", "--verify", "--quiet", revision, allow_failure=True))


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
    sides = repository.commit_id(base), repository.commit_id(head)
    found = repository.git("merge-base", *sides, allow_failure=True).decode().split()
    if not found:
        raise InhouseError(f"{base} and {head} have no common commit.", "Name the range to review, BASE..HEAD.")
    return found[0]


def fetched(number: int, kind: Literal["github", "gitlab"] = "github") -> str:
    """What ``git fetch origin`` is asked for, so that pull request ``number`` can be reviewed."""
    name = f"{'merge-requests' if kind == 'gitlab' else 'pull'}/{number}/head"
    return f"+{name}:refs/{name}"


def _pull_request(repository: Repository, number: int) -> tuple[str, str, str]:
    # The history first: the head of a pull request that was merged is its own merge base.
    for change in read_changes(repository):
        if change.number == number and change.parents:
            return repository.commit_id(f"{change.commit}^1"), change.commit, f"#{number}"
    for ref in (f"refs/pull/{number}/head", f"refs/merge-requests/{number}/head"):
        if _exists(repository, ref):
            main = main_branch(repository) or "HEAD"
            return _merge_base(repository, main, ref), repository.commit_id(ref), f"#{number}"
    raise InhouseError(
        f"Pull request #{number} is not in this clone.",
        f"Fetch it: git fetch origin {fetched(number)}; on GitLab: git fetch origin {fetched(number, 'gitlab')}",
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of ``diff-tree --raw``: a file with its blobs (``""``: there is no such side)."""

    file: ReviewedFile
    old: str
    new: str
    patches: int


class _Trees:
    """Tree ids of what is not committed, in an object folder of their own."""

    def __init__(self, repository: Repository, progress: Progress, copy_to: Path | None) -> None:
        self._repository = repository
        self._progress = progress
        self._copy_to = copy_to
        objects = self._git_path("objects")
        self._folder = Path(tempfile.mkdtemp(prefix="inhouse-review-"))
        (self._folder / "objects").mkdir()
        self._environment = {
            "GIT_INDEX_FILE": str(self._folder / "index"),
            "GIT_OBJECT_DIRECTORY": str(self._folder / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": _quoted(objects),
            **self._without_filters(),
        }

    def __enter__(self) -> _Trees:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def git(self, *args: str, given: bytes = b"") -> bytes:
        return self._repository.git(*args, given=given, environment=self._environment)

    def _git_path(self, name: str) -> str:
        out = self._repository.git("rev-parse", "--path-format=absolute", "--git-path", name)
        return os.fsdecode(out.removesuffix(b"\n"))

    def of_index(self) -> str:
        self._copy_index()
        unmerged = self.git("ls-files", "--unmerged", "-z")
        if unmerged:
            raise InhouseError("There are unmerged files in the index.", "Resolve the conflicts, then review again.")
        return self.git("write-tree").decode().strip()

    def of_work_tree(self) -> str:
        self._copy_index()
        listed = self.git("ls-files", "-z", "--modified", "--deleted", "--others", "--exclude-standard").split(b"\0")
        # A nested repository ends in a slash and is no file; what cannot be read cannot be reviewed.
        paths = [path for path in dict.fromkeys(listed) if path and not path.endswith(b"/") and self._can_add(path)]
        # What `inhouse init` wrote is no part of the change until somebody adds it.
        if (own := FILE_NAME.encode()) in paths and not self.git("ls-files", "--", FILE_NAME):
            paths.remove(own)
        given = b"".join(path + b"\0" for path in paths)
        self.git("update-index", "-z", "--add", "--remove", "--replace", "--stdin", given=given)
        return self.git("write-tree").decode().strip()

    def _can_add(self, path: bytes) -> bool:
        file = self._repository.root / os.fsdecode(path)
        if file.is_symlink() or not file.exists():
            return True
        # A file that became a folder goes away by itself when what lies in the folder is added.
        return file.is_file() and os.access(file, os.R_OK)

    def _without_filters(self) -> dict[str, str]:
        """Settings that keep git from running a configured filter, and from refusing a file for its line ends.

        In the environment, since nearly every command that reads the index may look at a file again.
        """
        settings = {"core.safecrlf": "false"}
        asked = self._repository.git(
            "config",
            "--name-only",
            "--get-regexp",
            r"^filter\..*\.(clean|smudge|process|required)$",
            allow_failure=True,
        )
        for name in sorted(set(asked.decode("utf-8", "replace").split("\n")) - {""}):
            settings[name] = "false" if name.endswith(".required") else ""
        told = {"GIT_CONFIG_COUNT": str(len(settings))}
        for number, (name, value) in enumerate(settings.items()):
            told |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        return told

    def of_patch(self, patch: bytes) -> str:
        self.git("read-tree", "HEAD")
        try:
            self.git("apply", "--cached", "--whitespace=nowarn", "-", given=patch)
        except InhouseError as error:
            raise InhouseError(f"The patch does not apply to HEAD: {error.problem}", "Check out its base.") from error
        return self.git("write-tree").decode().strip()

    def _copy_index(self) -> None:
        index = Path(self._git_path("index"))
        if index.exists():
            # With its time: git looks into files that are no older than the index, since a change may have come within
            # the same tick of the clock and leave size and time as they were.
            shutil.copy2(index, self._folder / "index")

    def change(self, base_name: str, head_name: str, base: str, head_commit: str, head: str) -> Change:
        title = description = ""
        if head_commit:
            message = self.git("show", "-s", "--format=%B", head_commit).decode("utf-8", "replace").strip()
            title, _, description = message.partition("\n")
        files = self._files(base, head)
        if self._copy_to is not None:
            self.git("read-tree", head)
            self.git("checkout-index", "--all", "--quiet", f"--prefix={self._copy_to}/")
        return Change(
            base_name, head_name, base, head_commit, redact(title)[0], redact(description.strip())[0], tuple(files)
        )

    def _files(self, base: str, head: str) -> list[ReviewedFile]:
        raw = self.git("diff-tree", "-r", "--find-renames", "--raw", "--no-abbrev", "-z", base, head)
        entries = list(self._entries(raw.split(b"\0")))
        wanted = {blob for entry in entries if not entry.file.unread for blob in (entry.old, entry.new) if blob}
        blobs = self._blobs(sorted(wanted))
        patches = self._patches(base, head, entries) if wanted <= blobs.keys() else None
        files: list[ReviewedFile] = []
        for number, entry in enumerate(entries):
            self._progress("reading the change", number, len(entries))
            patch = patches[number] if patches is not None else None
            files.append(entry.file if entry.file.unread else self._read(entry, blobs, patch))
        return files

    def _entries(self, raw: Sequence[bytes]) -> Iterator[_Entry]:
        at = number = 0
        while at < len(raw) and raw[at].startswith(b":"):
            old_mode, new_mode, old, new, status = raw[at][1:].decode().split(" ")
            pair = status[0] in "RC"
            names = raw[at + 1 : at + 3] if pair else [raw[at + 1], raw[at + 1]]
            at += 3 if pair else 2
            before, after = (name.decode("utf-8", "replace") for name in names)
            file = ReviewedFile(after, before, _STATUS.get(status[0], "modified"))
            file = replace(file, unread=self._reason(file, number, {old_mode, new_mode}))
            number += 1
            # A file that became another kind is deleted and created again in the patch.
            yield _Entry(file, old.strip("0") and old, new.strip("0") and new, 2 if status[0] == "T" else 1)

    def _reason(self, file: ReviewedFile, number: int, modes: set[str]) -> str:
        if number >= MAX_FILES:
            return f"more than {MAX_FILES:,} files changed"
        if "\ufffd" in file.path + file.former:
            return "its name is not UTF-8"
        if "160000" in modes:
            return "submodule"
        if "120000" in modes:
            return "symbolic link"
        if file.status == "removed":
            return "removed"
        return self._repository.reason_by_name(file.path) or ""

    def _blobs(self, ids: Sequence[str]) -> dict[str, bytes | None]:
        """Contents by id, ``None`` for one that is too large; what this clone lacks is left out."""
        asked = "".join(f"{blob}\n" for blob in ids).encode()
        told = self.git("cat-file", "--batch-check=%(objectname) %(objectsize)", given=asked).decode().splitlines()
        sizes = {blob: int(size) for blob, size in (line.split()[:2] for line in told) if size.isdigit()}
        blobs: dict[str, bytes | None] = dict.fromkeys(sizes)
        small = [blob for blob, size in sizes.items() if size <= MAX_FILE_BYTES]
        out = self.git("cat-file", "--batch", given="".join(f"{blob}\n" for blob in small).encode())
        at = 0
        for blob in small:
            start = out.index(b"\n", at) + 1
            blobs[blob] = out[start : start + sizes[blob]]
            at = start + sizes[blob] + 1
        return blobs

    def _patches(self, base: str, head: str, entries: Sequence[_Entry]) -> list[str] | None:
        """The patch of each entry, or ``None`` when git's count of them is another."""
        out = self.git("diff-tree", "-r", "--patch", *_DIFF, base, head).decode("utf-8", "replace")
        # Within a patch, lines begin with a sign or a space, so this can only be a header.
        found = re.split(r"^diff --git ", out, flags=re.M)[1:]
        if len(found) != sum(entry.patches for entry in entries):
            return None
        patches, at = [], 0
        for entry in entries:
            patches.append(found[at + entry.patches - 1])
            at += entry.patches
        return patches

    def _read(self, entry: _Entry, blobs: dict[str, bytes | None], patch: str | None) -> ReviewedFile:
        if entry.new not in blobs or (entry.old and entry.old not in blobs):
            return replace(entry.file, unread="missing from this clone")
        data = blobs[entry.new]
        if data is None:
            return replace(entry.file, unread="larger than 1 MB")
        try:
            decode(entry.file.path, data)  # for its reasons only: it evens out line ends
            text = data.decode("utf-8")
        except NotText as reason:
            return replace(entry.file, unread=str(reason))
        except UnicodeDecodeError:
            return replace(entry.file, unread="not UTF-8")
        if patch is None:
            patch = self.git("diff", *_DIFF, entry.old, entry.new).decode("utf-8", "replace") if entry.old else ""
        if len(patch) > MAX_PATCH_BYTES:
            return replace(entry.file, unread="a patch larger than 1 MB")
        file = replace(entry.file, new_text=text)
        old = redact((blobs.get(entry.old) or b"").decode("utf-8", "replace"))[0]
        hunks = parse_hunks(patch, file.shown_lines, split_lines(old)) if patch else _whole(file)
        return replace(file, hunks=hunks, unread="" if hunks else _NO_CHANGE)


def _quoted(path: str) -> str:
    """A path in git's list of alternates, whose separator it may hold."""
    if ":" not in path and not path.startswith('"'):
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _whole(file: ReviewedFile) -> tuple[Hunk, ...]:
    count = len(file.lines)
    lines = tuple(("+", line) for line in file.shown_lines)
    return (Hunk(1, count, tuple(range(1, count + 1)), lines),) if count else ()


def parse_hunks(patch: str, new: Sequence[str] | None = None, old: Sequence[str] | None = None) -> tuple[Hunk, ...]:
    """The hunks of one file's patch. Lines end at ``\\n`` alone: code may hold every other line separator.

    Args:
        new, old: lines of both sides with secrets redacted, which the hunks then show instead of the patch's own.
    """
    start = re.search(r"^@@ ", patch, flags=re.M)
    if start is None:
        return ()
    text = "--- a/file\n+++ b/file\n" + patch[start.start() :]
    [file] = PatchSet(io.StringIO(text, newline="\n"))
    hunks: list[Hunk] = []
    for hunk in file:
        lines: list[tuple[str, str]] = []
        for line in hunk:
            if line.line_type not in ("", " ", "+", "-"):
                continue  # that there is no newline at the end
            shown = line.value.removesuffix("\n").removesuffix("\r")
            number, side = (line.source_line_no, old) if line.is_removed else (line.target_line_no, new)
            if side is not None and number is not None and number <= len(side):
                shown = side[number - 1]
            lines.append((line.line_type or " ", shown))
        added = tuple(line.target_line_no for line in hunk if line.is_added and line.target_line_no is not None)
        hunks.append(Hunk(hunk.target_start, hunk.target_length, added, tuple(lines)))
    return tuple(hunks)
