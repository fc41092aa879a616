"""Wiki pages: a docs folder of the repository, a clone of its ``.wiki`` repository, or a folder of exported text.

A page inside the repository is one of its files, and only known here as a page. A page outside is read under the same
rules as a file of the repository (size, secrets, no symbolic links) and is named by its path relative to the root, such
as ``../shop.wiki/Home.md``, so that its location opens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path, PurePosixPath

from inhouse_retrieval.errors import InhouseError, NoCommits, NotARepository
from inhouse_retrieval.repository import Repository, SkippedFile, TrackedFile

PAGE_SUFFIXES = frozenset(
    {".md", ".markdown", ".mdx", ".rst", ".txt", ".adoc", ".asciidoc", ".org", ".textile", ".mediawiki", ".wiki"}
)
_DATES_READ = 5_000
"""Newest commits of a wiki whose dates are read; a page untouched since is as old as the oldest of them."""
_NO_PAGE = "not a wiki page"
_LATER = "changed after the training snapshot, and its folder has no history"

PageText = tuple[TrackedFile, str]


class Wiki:
    """The wiki of one repository, as its settings name it. Methods may be called from any thread.

    Raises:
        InhouseError: a folder outside the repository is not there, or holds the repository.
    """

    def __init__(self, repository: Repository) -> None:
        self._inside: list[str] = []
        self._outside: list[_Outside] = []
        root = repository.root.resolve()
        for name in repository.wiki:
            folder = Path(os.path.normpath(root / Path(name).expanduser()))
            if folder.is_relative_to(root) and folder != root:
                self._inside.append(f"{folder.relative_to(root).as_posix()}/")
            elif root.is_relative_to(folder):
                raise InhouseError(
                    f"The wiki folder {name!r} holds the repository itself.", "Name a folder of its own, such as docs."
                )
            elif not folder.is_dir():
                raise InhouseError(
                    f"There is no wiki folder {folder}.", "Clone the wiki there, or take it out of `wiki`."
                )
            else:
                self._outside.append(_Outside.open(folder, root))

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders outside the repository."""
        return tuple(source.folder for source in self._outside)

    def is_page(self, path: str) -> bool:
        """Whether the file at ``path`` is a wiki page, inside the repository or outside."""
        if PurePosixPath(path).suffix.lower() not in PAGE_SUFFIXES:
            return False
        return path.startswith(tuple(self._inside)) or self.holds(path)

    def holds(self, path: str) -> bool:
        """Whether ``path`` lies in a wiki folder outside the repository."""
        return self._source(path) is not None

    def work_tree(self) -> tuple[tuple[TrackedFile, ...], tuple[SkippedFile, ...]]:
        """The pages outside the repository as they are now, and what else lies there, with its reason."""
        files: list[TrackedFile] = []
        skipped: list[SkippedFile] = []
        for source in self._outside:
            for found in source.listed():
                (skipped if isinstance(found, SkippedFile) else files).append(found)  # type: ignore[arg-type]
        return tuple(files), tuple(skipped)

    def read_current(self, path: str) -> PageText | SkippedFile | None:
        """A page outside as it is now, redacted; ``None`` when it is gone."""
        source = self._source(path)
        return source.read_current(path) if source is not None else None

    def current_blob(self, path: str) -> str | None:
        """Blob id of a page outside as it is now."""
        source = self._source(path)
        return source.repository.current_blob(source.inner(path)) if source is not None else None

    def last_changed(self, path: str) -> int | None:
        """When a page outside was last changed, in seconds since 1970: its last commit, or the file's own time."""
        source = self._source(path)
        return source.last_changed(path) if source is not None else None

    def pages_until(self, moment: datetime) -> Iterator[PageText | SkippedFile]:
        """The pages outside as they were at ``moment``; one that cannot be told is left out with its reason."""
        for source in self._outside:
            yield from source.pages_until(moment)

    def states_until(self, moment: datetime) -> list[str]:
        """What :meth:`pages_until` would read, named by commits and blob ids: the same names, the same pages."""
        return [name for source in self._outside for name in source.states_until(moment)]

    def _source(self, path: str) -> _Outside | None:
        return next((source for source in self._outside if path.startswith(source.prefix)), None)


@dataclass(frozen=True)
class _Outside:
    """One folder outside the repository.

    Attributes:
        prefix: opens the names of its pages, such as ``../shop.wiki/``.
        repository: reads its files; the git work tree that the folder belongs to, or the folder itself.
        below: the folder within ``repository``, empty or ending in a slash.
    """

    folder: Path
    prefix: str
    repository: Repository
    below: str
    has_history: bool

    @classmethod
    def open(cls, folder: Path, root: Path) -> _Outside:
        prefix = PurePosixPath(os.path.relpath(folder, root)).as_posix() + "/"
        try:
            repository = Repository.open(folder)
            repository.head()
        except (NotARepository, NoCommits):
            return cls(folder, prefix, Repository(folder, "sha1"), "", has_history=False)
        below = folder.resolve().relative_to(repository.root.resolve()).as_posix()
        return cls(folder, prefix, repository, "" if below == "." else f"{below}/", has_history=True)

    def inner(self, path: str) -> str:
        return self.below + path.removeprefix(self.prefix)

    def _outer(self, inner: str) -> str:
        return self.prefix + inner.removeprefix(self.below)

    def listed(self) -> Iterator[TrackedFile | SkippedFile]:
        if self.has_history:
            snapshot = self.repository.work_tree()
            listed: tuple[TrackedFile | SkippedFile, ...] = (*snapshot.files, *snapshot.skipped)
            for file in listed:
                if file.path.startswith(self.below):
                    yield self._as_page(file)
            return
        for path in self._on_disk():
            read = self.repository.read_current(path)
            if read is not None:
                yield self._as_page(read if isinstance(read, SkippedFile) else read[0])

    def _on_disk(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self.folder):
            folders.sort()
            for name in sorted(names):
                yield (Path(folder) / name).relative_to(self.folder).as_posix()

    def _as_page(self, file: TrackedFile | SkippedFile) -> TrackedFile | SkippedFile:
        path = self._outer(file.path)
        if isinstance(file, SkippedFile):
            return SkippedFile(path, file.reason)
        if PurePosixPath(path).suffix.lower() not in PAGE_SUFFIXES:
            return SkippedFile(path, _NO_PAGE)
        return TrackedFile(path, file.blob_id, file.size)

    def read_current(self, path: str) -> PageText | SkippedFile | None:
        read = self.repository.read_current(self.inner(path))
        if read is None or isinstance(read, SkippedFile):
            return read and SkippedFile(path, read.reason)
        return TrackedFile(path, read[0].blob_id, read[0].size), read[1]

    @cached_property
    def _dates(self) -> dict[str, int]:
        """Path -> time of the newest commit that touched it."""
        out = self.repository.git(
            "log", f"--max-count={_DATES_READ}", "-m", "--first-parent", "--name-only", "-z", "--format=%x1e%ct"
        )
        dates: dict[str, int] = {}
        moment = 0
        for field in out.decode("utf-8", "replace").split("\0"):
            for part in field.strip("\n").split("\n"):
                if part.startswith("\x1e"):
                    moment = int(part[1:])
                elif part:
                    dates.setdefault(part, moment)
        return dates

    def last_changed(self, path: str) -> int | None:
        if self.has_history:
            return self._dates.get(self.inner(path))
        try:
            return int(os.lstat(self.folder / self.inner(path)).st_mtime)
        except OSError:
            return None

    def _commit_until(self, moment: datetime) -> str:
        out = self.repository.git("rev-list", "-1", f"--before={moment.isoformat()}", "HEAD")
        return out.decode("ascii").strip()

    def pages_until(self, moment: datetime) -> Iterator[PageText | SkippedFile]:
        if self.has_history:
            if commit := self._commit_until(moment):
                for read in self.repository.iter_texts(self.repository.snapshot(commit)):
                    file = read if isinstance(read, SkippedFile) else read[0]
                    if not file.path.startswith(self.below):
                        continue
                    page = self._as_page(file)
                    if isinstance(page, SkippedFile) or isinstance(read, SkippedFile):
                        yield page if isinstance(page, SkippedFile) else SkippedFile(page.path, "unreadable")
                    else:
                        yield page, read[1]
            return
        for listed in self.listed():
            if isinstance(listed, SkippedFile):
                yield listed
            elif (self.last_changed(listed.path) or 0) > moment.timestamp():
                yield SkippedFile(listed.path, _LATER)
            elif (current := self.read_current(listed.path)) is not None:
                yield current

    def states_until(self, moment: datetime) -> list[str]:
        if self.has_history:
            return [f"{self.prefix}@{self._commit_until(moment)}"]
        pages = (page for page in self.pages_until(moment) if not isinstance(page, SkippedFile))
        return [f"{file.path}@{file.blob_id}" for file, _ in pages]
