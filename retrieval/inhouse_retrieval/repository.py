"""A git repository as this product sees it: which files there are, their text, and which were skipped and
why.

Git itself is asked for everything that is git's business, always with ``-z``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pathspec import GitIgnoreSpec

from inhouse_retrieval.errors import InhouseError, NoCommits
from inhouse_retrieval.export_paths import ExportPaths
from inhouse_retrieval.git_process import ObjectReader, git_lines, run_git
from inhouse_retrieval.plain_files import PlainFiles
from inhouse_retrieval.reading import MAX_FILE_BYTES, NotText, decode, reason_by_name, reason_by_size
from inhouse_retrieval.secrets import redact
from inhouse_retrieval.snapshot import SkippedFile, Snapshot, TrackedFile
from inhouse_retrieval.work_tree import top_of_work_tree

_File = TypeVar("_File", TrackedFile, SkippedFile)


class Repository:
    """One git work tree. Methods may be called from any thread.

    Attributes:
        root: absolute path of the top of the work tree.
        exclude: patterns of files that are never read, see :meth:`excluding`.
        wiki: folders of wiki pages, see :meth:`with_wiki`.
        conversations: files of conversations, see :meth:`with_conversations`.
        exports: exported chat, tickets and mail, see :meth:`with_exports`.
    """

    def __init__(self, root: Path, object_format: str) -> None:
        self.root = root
        self._hash = "sha256" if object_format == "sha256" else "sha1"
        self.exclude: tuple[str, ...] = ()
        self.wiki: tuple[str, ...] = ()
        self.conversations: tuple[str, ...] = ()
        self.exports = ExportPaths()
        self._excluded = GitIgnoreSpec.from_lines(())
        self._apart = ".inhouse/"
        self._disk = PlainFiles(root, self._hash)

    @classmethod
    def open(cls, path: Path) -> Repository:
        """The repository that ``path`` (any folder in its work tree) belongs to.

        Raises:
            NotARepository: no git work tree there, or a bare repository, or git refuses to read it.
        """
        root = top_of_work_tree(Path(path))
        return cls(root, run_git(root, "rev-parse", "--show-object-format").stdout.decode().strip())

    def excluding(self, patterns: Iterable[str]) -> Repository:
        """This repository without the files that match ``patterns``, written as in a ``.gitignore`` at its root.

        Raises:
            InhouseError: a pattern is not one.
        """
        repository = self._copy()
        repository.exclude = tuple(patterns)
        try:
            repository._excluded = GitIgnoreSpec.from_lines(repository.exclude)
        except (ValueError, re.error) as error:
            raise InhouseError(
                f"`exclude` holds a pattern that git would not understand: {error}.",
                "Write patterns as in a .gitignore file.",
            ) from error
        return repository

    def apart_from(self, folder: Path) -> Repository:
        """This repository without ``folder``, which need not lie in it: what inhouse keeps is never read as code,
        whatever git thinks of it."""
        repository = self._copy()
        if folder.is_relative_to(self.root):
            repository._apart = f"{folder.relative_to(self.root).as_posix()}/"
        return repository

    def with_wiki(self, folders: Iterable[str]) -> Repository:
        """This repository with its wiki: folders relative to the root, or absolute, that hold pages.

        They are opened by :class:`inhouse_retrieval.wiki.Wiki`, which says what is wrong with them.
        """
        repository = self._copy()
        repository.wiki = tuple(folders)
        return repository

    def with_conversations(self, patterns: Iterable[str]) -> Repository:
        """This repository with conversations that people wrote: files relative to the root, or absolute, with ``*``.

        Only training reads them, and says what is wrong with them.
        """
        repository = self._copy()
        repository.conversations = tuple(patterns)
        return repository

    def with_exports(self, paths: ExportPaths) -> Repository:
        """This repository with exports of chat, tickets and mail. Only training reads them, and says what is wrong."""
        repository = self._copy()
        repository.exports = paths
        return repository

    def _copy(self) -> Repository:
        repository = Repository(self.root, self._hash)
        repository.exclude, repository._excluded, repository._apart = self.exclude, self._excluded, self._apart
        repository.wiki, repository.conversations, repository.exports = self.wiki, self.conversations, self.exports
        return repository

    def reason_by_name(self, path: str) -> str | None:
        """Why a file of this name is not read here, or ``None`` when it is."""
        if path.startswith(self._apart):
            return "kept by inhouse"
        return "excluded by the settings" if self._excluded.match_file(path) else reason_by_name(path)

    def is_ignored(self, path: str) -> bool:
        """Whether git ignores the untracked file at ``path``, which may not exist."""
        return run_git(self.root, "check-ignore", "--quiet", "--", f"./{path}").returncode == 0

    def is_listed(self, path: str) -> bool:
        """Whether :meth:`work_tree` looks at the file at ``path``: it is tracked, or untracked and not ignored."""
        try:
            name = path.encode()
        except UnicodeEncodeError:
            return False
        if b"\0" in name:
            return False
        asked = ("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", f":(top,literal){path}")
        return name in _fields(self.git(*asked, allow_failure=True))

    def git(
        self,
        *args: str,
        allow_failure: bool = False,
        given: bytes = b"",
        environment: Mapping[str, str] | None = None,
    ) -> bytes:
        """Standard output of ``git args`` run at the root.

        Args:
            given: standard input.
            environment: variables beside those that git is always run with.

        Raises:
            InhouseError: git failed, with the first line that it said.
        """
        done = run_git(self.root, *args, given=given, environment=environment)
        if done.returncode != 0 and not allow_failure:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
            raise InhouseError(
                f"`git {args[0]}` failed: {lines[0]}", "Check the repository with `git fsck`, then try again."
            )
        return done.stdout

    def git_lines(self, *args: str, seconds: float, given: bytes = b"") -> Generator[bytes]:
        """Lines of what ``git args`` writes, as it writes them. Git is ended with the iteration, or after ``seconds``.

        Raises:
            TimeoutError: it had not finished by then.
            InhouseError: git cannot be started.
        """
        return git_lines(self.root, *args, seconds=seconds, given=given)

    def head(self) -> str:
        """Commit id of HEAD, on a branch or detached.

        Raises:
            NoCommits: the current branch has no commit yet.
        """
        return self.commit_id("HEAD")

    def commit_id(self, revision: str) -> str:
        """Full commit id of a branch, tag or abbreviation.

        Raises:
            NoCommits: ``revision`` is HEAD and there is no commit yet.
            InhouseError: there is no such revision.
        """
        asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        out = self.git(*asked, allow_failure=True)
        commit = out.decode().strip().removeprefix("--end-of-options").strip()
        if not commit and revision == "HEAD":
            raise NoCommits("This repository has no commit yet.", "Make a first commit, then try again.")
        if not commit:
            raise InhouseError(f"There is no commit `{revision}`.", "Name a branch, tag or commit that exists.")
        return commit

    def is_shallow(self) -> bool:
        """Whether the history was cut off when cloning, so that older pull requests are missing."""
        return self.git("rev-parse", "--is-shallow-repository").strip() == b"true"

    def keeps_changed_paths(self) -> bool:
        """Whether git keeps, for its commits, a filter of the paths that each changed.

        With it ``git blame`` and ``git log -- PATH`` pass over most commits without looking into them. It is a part of
        git's commit-graph that git writes only when asked to (``git commit-graph write --reachable --changed-paths``).
        """
        objects = self.root / os.fsdecode(self.git("rev-parse", "--git-path", "objects/info")[:-1])
        return any(_holds_filters(file) for file in (objects / "commit-graph", *objects.glob("commit-graphs/*.graph")))

    def git_folder(self) -> Path:
        """Absolute path of this work tree's git directory (``HEAD`` lives there)."""
        out = self.git("rev-parse", "--absolute-git-dir")
        return Path(os.fsdecode(out[:-1]))

    # -- snapshots -------------------------------------------------------------------------------------------

    def work_tree(self) -> Snapshot:
        """Tracked and untracked-not-ignored files as they are on disk now.

        Raises:
            NoCommits: there is no commit yet.
            InhouseError: git failed. A failed scan never looks like a repository without files.
        """
        commit = self.head()
        files, skipped = self._look(self._listed())
        self._disk.keep(files)
        return Snapshot(commit, tuple(_by_path(files)), tuple(_by_path(skipped)), from_work_tree=True)

    def files_below(self, paths: Sequence[str]) -> tuple[tuple[TrackedFile, ...], tuple[SkippedFile, ...]]:
        """What :meth:`work_tree` gives at and below ``paths``, without a look at anything else.

        Raises:
            InhouseError: git failed.
        """
        files, skipped = self._look(self._listed(paths))
        return tuple(files), tuple(skipped)

    def _look(self, listed: Iterable[tuple[bytes, str, bool]]) -> tuple[list[TrackedFile], list[SkippedFile]]:
        """The listed files as they are on disk, and those that are not read."""
        files: list[TrackedFile] = []
        skipped: list[SkippedFile] = []
        folders: dict[str, bool] = {"": True}
        for raw, mode, sparse in listed:
            path, unusable = _usable_path(raw)
            if unusable is not None:
                skipped.append(unusable)
                continue
            reason = _reason_by_mode(mode) or self.reason_by_name(path)
            if reason is None and sparse:
                reason = "not checked out (sparse checkout)"
            if reason is not None:
                skipped.append(SkippedFile(path, reason))
                continue
            found = self._disk.unchanged(path, folders) or self._disk.look(path)
            if found is None:
                continue
            if isinstance(found, SkippedFile):
                skipped.append(found)
                continue
            files.append(found)
        return files, skipped

    def snapshot(self, commit: str) -> Snapshot:
        """The tree of ``commit`` (any revision), wherever the work tree is.

        Raises:
            InhouseError: there is no such commit.
        """
        commit = self.commit_id(commit)
        files: list[TrackedFile] = []
        skipped: list[SkippedFile] = []
        wanted: list[tuple[str, str]] = []
        for entry in _fields(self.git("ls-tree", "-r", "-z", "--full-tree", commit)):
            about, _, raw = entry.partition(b"\t")
            mode, _, blob = about.split()
            path, unusable = _usable_path(raw)
            reason = _reason_by_mode(mode.decode()) or self.reason_by_name(path)
            if unusable is not None:
                skipped.append(unusable)
            elif reason is not None:
                skipped.append(SkippedFile(path, reason))
            else:
                wanted.append((path, blob.decode()))
        absent = self._absent(commit)
        sizes = self._sizes([blob for _, blob in wanted if blob not in absent])
        for path, blob_id in wanted:
            size = sizes.get(blob_id)
            reason = reason_by_size(size) if size is not None else "missing from this clone"
            if size is not None and reason is None:
                files.append(TrackedFile(path, blob_id, size))
            elif reason is not None:
                skipped.append(SkippedFile(path, reason))
        return Snapshot(commit, tuple(_by_path(files)), tuple(_by_path(skipped)))

    def _absent(self, commit: str) -> set[str]:
        """Objects of ``commit`` that a partial clone left on the server. Git stops dead when asked for one."""
        if not self.git("config", "--get-regexp", r"^remote\..*\.promisor$", allow_failure=True):
            return set()
        out = self.git("rev-list", "--objects", "--no-walk", "--missing=print", commit)
        return {line[1:].decode() for line in out.split(b"\n") if line.startswith(b"?")}

    def _sizes(self, blobs: list[str]) -> dict[str, int]:
        """Bytes of each blob; those that a damaged clone lacks are left out."""
        asked = "".join(f"{blob}\n" for blob in blobs).encode()
        out = run_git(self.root, "cat-file", "--batch-check=%(objectname) %(objectsize)", given=asked).stdout
        pairs = (line.split() for line in out.decode().splitlines())
        return {blob: int(size) for blob, size in pairs if size.isdigit()}

    def _listed(self, below: Sequence[str] = ()) -> Iterator[tuple[bytes, str, bool]]:
        """``(raw path, git mode, left out by a sparse checkout)`` of what is tracked or untracked-not-ignored.

        Args:
            below: paths that are looked at with what lies below them; all when there are none.
        """
        only = ["--", *(f":(top,literal){path}" for path in below)] if below else []
        before = None
        for entry in _fields(self.git("ls-files", "-z", "--stage", "-t", *only)):
            about, _, raw = entry.partition(b"\t")
            tag, mode = about.split()[:2]
            if raw != before:  # an unmerged path is listed once for each side
                yield raw, mode.decode(), tag == b"S"
            before = raw
        for raw in _fields(self.git("ls-files", "-z", "--others", "--exclude-standard", *only)):
            yield raw, "160000" if raw.endswith(b"/") else "100644", False

    # -- text ------------------------------------------------------------------------------------------------

    def iter_texts(self, snapshot: Snapshot) -> Iterator[tuple[TrackedFile, str] | SkippedFile]:
        """Text of each file of ``snapshot``, one file in memory at a time, secrets redacted.

        Files that turn out not to be text come as :class:`SkippedFile`. In a work tree a file may have
        changed since the snapshot; the :class:`TrackedFile` that comes with a text always describes that very
        text.
        """
        if snapshot.from_work_tree:
            for file in snapshot.files:
                read = self.read_current(file.path)
                yield read if read is not None else SkippedFile(file.path, "vanished while reading")
            return
        with ObjectReader(self.root) as objects:
            for file in snapshot.files:
                data = objects.read(file.blob_id)
                if data is None:
                    yield SkippedFile(file.path, "missing from this clone")
                    continue
                yield _as_text(file, data)

    def iter_texts_at(self, places: Iterable[tuple[str, str]]) -> Iterator[str | None]:
        """Redacted text of each ``(commit, path)``; ``None`` for what is not there, and for what is never read (no
        text, too large, left out by its name)."""
        with ObjectReader(self.root) as objects:
            for commit, path in places:
                data = None
                if "\n" not in path and self.reason_by_name(path) is None:
                    data = objects.read(f"{commit}:{path}", MAX_FILE_BYTES)
                read = None if data is None else _as_text(TrackedFile(path, "", len(data)), data)
                yield read[1] if isinstance(read, tuple) else None

    def read_text(self, file: TrackedFile) -> str | SkippedFile:
        """Redacted text of exactly ``file.blob_id``: from disk if that matches, else from git's objects."""
        current = self.read_current(file.path)
        if isinstance(current, tuple) and current[0].blob_id == file.blob_id:
            return current[1]
        with ObjectReader(self.root) as objects:
            data = objects.read(file.blob_id)
        if data is None:
            return SkippedFile(file.path, "changed on disk while reading")
        read = _as_text(file, data)
        return read if isinstance(read, SkippedFile) else read[1]

    def read_current(self, path: str) -> tuple[TrackedFile, str] | SkippedFile | None:
        """What is at ``path`` on disk now, redacted; ``None`` when nothing is."""
        reason = self.reason_by_name(path)
        if reason is not None:
            return SkippedFile(path, reason)
        data = self._disk.read(path)
        if not isinstance(data, bytes):
            return data
        return _as_text(TrackedFile(path, self.blob_id(data), len(data)), data)

    def current_file(self, path: str) -> TrackedFile | SkippedFile | None:
        """What is at ``path`` on disk now, without its text; ``None`` when nothing is. Unchanged files are not read."""
        reason = self.reason_by_name(path)
        return SkippedFile(path, reason) if reason is not None else self._disk.look(path)

    def current_blob(self, path: str) -> str | None:
        """Blob id of what is at ``path`` on disk now; ``None`` when it is gone or not readable any more."""
        found = self._disk.look(path)
        return found.blob_id if isinstance(found, TrackedFile) else None

    def blob_id(self, data: bytes) -> str:
        """The id git gives to these bytes (without any text filter)."""
        return self._disk.blob_id(data)


def _holds_filters(commit_graph: Path) -> bool:
    """Whether the table of contents at the beginning of this file names the chunk ``BIDX`` (gitformat-commit-graph)."""
    try:
        with commit_graph.open("rb") as file:
            head = file.read(8)
            return len(head) == 8 and head[:4] == b"CGPH" and b"BIDX" in file.read(12 * (head[6] + 1))
    except OSError:
        return False


def _as_text(file: TrackedFile, data: bytes) -> tuple[TrackedFile, str] | SkippedFile:
    try:
        text = decode(file.path, data)
    except NotText as reason:
        return SkippedFile(file.path, str(reason))
    return file, redact(text)[0]


def _fields(out: bytes) -> list[bytes]:
    return [field for field in out.split(b"\0") if field]


def _usable_path(raw: bytes) -> tuple[str, SkippedFile | None]:
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError:
        shown = raw.decode("utf-8", "backslashreplace")
        return shown, SkippedFile(shown, "file name is not UTF-8")


def _reason_by_mode(mode: str) -> str | None:
    return {"120000": "symbolic link", "160000": "submodule or nested repository"}.get(mode)


def _by_path(files: list[_File]) -> list[_File]:
    return sorted(files, key=lambda file: file.path)
