"""A change as two trees and the hunks between them.

Trees that the repository does not hold yet (staged or unsaved work, a patch) are written to an object folder of their
own, which is deleted afterwards: the user's repository, index and work tree are never written to, and no filter that
git is configured with is run.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from inhouse_retrieval import InhouseError, Progress, Repository, redact
from inhouse_retrieval.reading import MAX_FILE_BYTES, NotText, decode
from inhouse_server.review.change import (
    CONTEXT,
    NO_LINE_CHANGED,
    REMOVED,
    Change,
    Hunk,
    ReviewedFile,
    Status,
    parse_hunks,
    split_lines,
)
from inhouse_server.review.patch import Patch, patch_refused
from inhouse_server.settings_file import FILE_NAME

MAX_FILES = 3_000
MAX_PATCH_BYTES = 1_000_000
"""Of one file. A longer patch is generated code or a move, and is listed as not read."""
_STATUS: dict[str, Status] = {"A": "added", "D": "removed", "R": "renamed", "C": "added"}
_DIFF = ("--find-renames", "--no-ext-diff", "--no-textconv", "--no-color", "--text", f"--unified={CONTEXT}")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of ``diff-tree --raw``: a file with its blobs (``""``: there is no such side)."""

    file: ReviewedFile
    old: str
    new: str
    patches: int


class Trees:
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

    def __enter__(self) -> Trees:
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
        given = os.environ.get("GIT_CONFIG_COUNT", "")
        first = int(given) if given.isdecimal() else 0  # what the caller told git holds as well
        told = {"GIT_CONFIG_COUNT": str(first + len(settings))}
        for number, (name, value) in enumerate(settings.items(), start=first):
            told |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        return told

    def of_patch(self, patch: Patch) -> str:
        """The tree that ``patch`` makes of HEAD; its binary files whose content it does not hold stay as they are."""
        self.git("read-tree", "HEAD")
        if patch.text.strip():
            try:
                self.git("apply", "--cached", "--whitespace=nowarn", "-", given=patch.text)
            except InhouseError as error:
                raise patch_refused(error) from error
        return self.git("write-tree").decode().strip()

    def _copy_index(self) -> None:
        index = Path(self._git_path("index"))
        if index.exists():
            # With its time: git looks into files that are no older than the index, since a change may have come within
            # the same tick of the clock and leave size and time as they were.
            shutil.copy2(index, self._folder / "index")

    def change(
        self,
        base_name: str,
        head_name: str,
        base: str,
        head_commit: str,
        head: str,
        beside: Sequence[ReviewedFile] = (),
        notes: tuple[str, ...] = (),
    ) -> Change:
        """What lies between two trees.

        Args:
            beside: changed files that the trees do not tell of.
        """
        title = description = ""
        if head_commit:
            message = self.git("show", "-s", "--format=%B", head_commit).decode("utf-8", "replace").strip()
            title, _, description = message.partition("\n")
        files = [*self._files(base, head), *beside]
        if self._copy_to is not None:
            self.git("read-tree", head)
            self.git("checkout-index", "--all", "--quiet", f"--prefix={self._copy_to}/")
        return Change(
            base_name, head_name, base, head_commit, redact(title)[0], redact(description.strip())[0], tuple(files),
            notes,
        )  # fmt: skip

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
            return REMOVED
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
        return replace(file, hunks=hunks, unread="" if hunks else NO_LINE_CHANGED)


def _quoted(path: str) -> str:
    """A path in git's list of alternates, whose separator it may hold."""
    if ":" not in path and not path.startswith('"'):
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _whole(file: ReviewedFile) -> tuple[Hunk, ...]:
    count = len(file.lines)
    lines = tuple(("+", line) for line in file.shown_lines)
    return (Hunk(1, count, tuple(range(1, count + 1)), lines),) if count else ()
