"""Wiki pages: a docs folder of the repository, a clone of its ``.wiki`` repository, or a folder of exported text.

A page among the repository's own files is only known here as a page. A page elsewhere is read under the same rules as
a file of the repository (size, secrets, exclusions, no symbolic links) and is named by its path relative to the root,
such as ``../shop.wiki/Home.md``, so that its location opens.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from inhouse_retrieval.errors import InhouseError, NoCommits, NotARepository
from inhouse_retrieval.html_pages import HTML_SUFFIXES, is_html, own_date
from inhouse_retrieval.reading import VENDORED_FOLDERS
from inhouse_retrieval.repository import Repository
from inhouse_retrieval.snapshot import SkippedFile, TrackedFile

_log = logging.getLogger(__name__)

PAGE_SUFFIXES = frozenset(
    {".md", ".markdown", ".mdx", ".rst", ".txt", ".adoc", ".asciidoc", ".org", ".textile", ".mediawiki", ".wiki"}
)
_NO_PAGE_NAME = re.compile(r"(requirements.*|constraints.*|cmakelists)\.txt", re.I)
_DATES_READ = 5_000
"""Newest commits of a wiki whose dates are read; what they do not touch has no date."""
_DATED = re.compile(r"\x1e(\d+)\x1f\n?")
_NO_PAGE = "not a wiki page"
_NO_FOLDER = "there is no such folder"
_LATER = "changed after the training snapshot, and its folder has no history"

PageText = tuple[TrackedFile, str]


class Wiki:
    """The wiki of one repository, as its settings name it. Methods may be called from any thread.

    Raises:
        InhouseError: a folder holds the repository itself.
    """

    def __init__(self, repository: Repository) -> None:
        self._inside: list[str] = []
        self._sources: list[_Source] = []
        self._missing: list[SkippedFile] = []
        root = Path(os.path.realpath(repository.root))
        for name in repository.wiki:
            # With links resolved: a link to a folder of the repository is that folder.
            try:
                folder = Path(os.path.realpath(root / Path(name).expanduser()))
            except RuntimeError:  # ~somebody, who is not there
                self._missing.append(SkippedFile(name, _NO_FOLDER))
                continue
            if root.is_relative_to(folder):
                raise InhouseError(
                    f"The wiki folder {name!r} holds the repository itself.", "Name a folder of its own, such as docs."
                )
            if folder.is_relative_to(root) and not (folder / ".git").exists():
                self._inside.append(f"{folder.relative_to(root).as_posix()}/")
            elif any(folder.is_relative_to(source.folder) for source in self._sources):
                continue
            else:
                self._open(folder, root, repository)

    def _open(self, folder: Path, root: Path, repository: Repository) -> None:
        try:
            self._sources.append(_Source.open(folder, root, repository.exclude))
        except InhouseError as error:
            _log.warning("the wiki in %s is not read: %s", folder, error)
            self._missing.append(SkippedFile(_prefix(folder, root), error.problem))

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders whose pages are not among the repository's own files."""
        return tuple(source.folder for source in self._sources)

    def is_page(self, path: str) -> bool:
        """Whether the file at ``path`` is a wiki page, of the repository or elsewhere."""
        return _is_page_name(path) and (path.startswith(tuple(self._inside)) or self.holds(path))

    def holds(self, path: str) -> bool:
        """Whether ``path`` lies in a wiki folder that is not the repository's own."""
        return self._source(path) is not None

    def work_tree(self) -> tuple[tuple[TrackedFile, ...], tuple[SkippedFile, ...]]:
        """The pages elsewhere as they are now, and what else lies there, with its reason."""
        files: list[TrackedFile] = []
        skipped = list(self._missing)
        for source in self._sources:
            for found in source.listed():
                if isinstance(found, SkippedFile):
                    skipped.append(found)
                else:
                    files.append(found)
        return tuple(files), tuple(skipped)

    def read_current(self, path: str) -> PageText | SkippedFile | None:
        """A page elsewhere as it is now, redacted; ``None`` when it is gone."""
        source = self._source(path)
        return source.read_current(path) if source is not None else None

    def current_blob(self, path: str) -> str | None:
        """Blob id of a page elsewhere as it is now; ``None`` when it is gone."""
        source = self._source(path)
        return source.current_blob(path) if source is not None else None

    def last_changed(self, path: str) -> int | None:
        """When a page elsewhere was last changed, in seconds since 1970: as an exported page says itself, else by its
        newest commit, or, where it reads differently from that, by the file's own time."""
        source = self._source(path)
        return source.last_changed(path) if source is not None else None

    def pages_until(self, moment: datetime) -> Iterator[PageText | SkippedFile]:
        """The pages elsewhere as they were at ``moment``; one that cannot be told is left out with its reason."""
        yield from self._missing
        for source in self._sources:
            yield from source.pages_until(moment)

    def states_until(self, moment: datetime) -> list[str]:
        """What :meth:`pages_until` would read, named by commits and blob ids: the same names, the same pages."""
        return [name for source in self._sources for name in source.states_until(moment)]

    def _source(self, path: str) -> _Source | None:
        return next((source for source in self._sources if path.startswith(source.prefix)), None)


@dataclass(frozen=True, slots=True)
class _Dates:
    """The history of a wiki at one commit.

    Attributes:
        changed: path -> time of the newest commit that touched it.
        blobs: path -> blob id at that commit.
    """

    head: str
    changed: Mapping[str, int]
    blobs: Mapping[str, str]


class _Source:
    """One folder of pages that are not among the repository's own files.

    Attributes:
        prefix: opens the names of its pages, such as ``../shop.wiki/``.
    """

    def __init__(self, folder: Path, prefix: str, repository: Repository, below: str, has_history: bool) -> None:
        self.folder = folder
        self.prefix = prefix
        self._repository = repository
        self._below = below
        self._has_history = has_history
        self._dates: _Dates | None = None
        self._own_dates: dict[str, tuple[tuple[int, int], int | None]] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: Path, root: Path, exclude: tuple[str, ...]) -> _Source:
        """
        Raises:
            InhouseError: no folder, or one that git will not read, such as a bare clone.
        """
        prefix = _prefix(folder, root)
        if not folder.is_dir():
            raise InhouseError(_NO_FOLDER, "Clone the wiki there, or take it out of `wiki`.")
        plain = cls(folder, prefix, Repository(folder, "sha1").excluding(exclude), "", has_history=False)
        try:
            repository = Repository.open(folder)
            repository.head()
        except NoCommits:
            return plain
        except NotARepository:
            if (folder / "HEAD").is_file() or (folder / ".git").exists():  # bare, or one that git does not trust
                raise
            return plain
        below = folder.relative_to(Path(os.path.realpath(repository.root))).as_posix()
        below = "" if below == "." else f"{below}/"
        if below and not repository.git("ls-files", "-z", "--", f":(top,literal){below}"):
            return plain  # an export that a repository around it ignores
        return cls(folder, prefix, repository.excluding(exclude), below, has_history=True)

    def _inner(self, path: str) -> str:
        return self._below + path.removeprefix(self.prefix)

    def _outer(self, inner: str) -> str:
        return self.prefix + inner.removeprefix(self._below)

    def listed(self) -> Iterator[TrackedFile | SkippedFile]:
        if not self.folder.is_dir():
            yield SkippedFile(self.prefix, _NO_FOLDER)
            return
        if not self._has_history:
            yield from self._listed_on_disk()
            return
        snapshot = self._repository.work_tree()
        found: tuple[TrackedFile | SkippedFile, ...] = (*snapshot.files, *snapshot.skipped)
        for file in found:
            if file.path.startswith(self._below):
                yield self._as_page(file)

    def _listed_on_disk(self) -> Iterator[TrackedFile | SkippedFile]:
        for folder, folders, names in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if name != ".git" and name not in VENDORED_FOLDERS)
            for name in sorted(names):
                path = (Path(folder) / name).relative_to(self.folder).as_posix()
                if not path.isprintable() or not _is_encodable(path):
                    shown = path.encode("utf-8", "replace").decode()
                    yield SkippedFile(self.prefix + shown, "its name cannot be written")
                elif not _is_page_name(path):
                    yield SkippedFile(self.prefix + path, _NO_PAGE)
                elif (file := self._repository.current_file(path)) is not None:
                    yield self._as_page(file)

    def _as_page(self, file: TrackedFile | SkippedFile) -> TrackedFile | SkippedFile:
        path = self._outer(file.path)
        if isinstance(file, SkippedFile):
            return SkippedFile(path, file.reason)
        return TrackedFile(path, file.blob_id, file.size) if _is_page_name(path) else SkippedFile(path, _NO_PAGE)

    def read_current(self, path: str) -> PageText | SkippedFile | None:
        if not self.folder.is_dir():
            return None
        read = self._repository.read_current(self._inner(path))
        if isinstance(read, SkippedFile):
            return SkippedFile(path, read.reason)
        return (TrackedFile(path, read[0].blob_id, read[0].size), read[1]) if read is not None else None

    def current_blob(self, path: str) -> str | None:
        return self._repository.current_blob(self._inner(path)) if self.folder.is_dir() else None

    def last_changed(self, path: str) -> int | None:
        inner = self._inner(path)
        if is_html(path) and (said := self._own_date(path)) is not None:
            return said
        if self._has_history and self.folder.is_dir():
            dates = self._history()
            if dates.blobs.get(inner) == self._repository.current_blob(inner):
                return dates.changed.get(inner)
        try:
            return int(os.lstat(self.folder / path.removeprefix(self.prefix)).st_mtime)
        except OSError:
            return None

    def _own_date(self, path: str) -> int | None:
        try:
            file = self.folder / path.removeprefix(self.prefix)
            state = os.lstat(file)
        except OSError:
            return None
        key = (state.st_mtime_ns, state.st_size)
        with self._lock:
            known = self._own_dates.get(path)
        if known is None or known[0] != key:
            read = self.read_current(path)
            said = own_date(read[1], datetime.now(UTC)) if isinstance(read, tuple) else None
            known = (key, int(said.timestamp()) if said is not None else None)
            with self._lock:
                self._own_dates[path] = known
        return known[1]

    def _history(self) -> _Dates:
        head = self._repository.head()
        with self._lock:
            if self._dates is None or self._dates.head != head:
                self._dates = _Dates(head, self._read_dates(head), self._read_blobs(head))
            return self._dates

    def _read_dates(self, head: str) -> dict[str, int]:
        out = self._repository.git(
            "log", f"--max-count={_DATES_READ}", "-m", "--first-parent", "--name-only", "-z",
            "--format=%x1e%ct%x1f", head,
        )  # fmt: skip
        dates: dict[str, int] = {}
        moment = 0
        for field in out.decode("utf-8", "replace").split("\0"):
            path = field
            if dated := _DATED.match(field.lstrip("\n")):
                moment, path = int(dated[1]), field.lstrip("\n")[dated.end() :]
            if path := path.lstrip("\n"):
                dates.setdefault(path, moment)
        return dates

    def _read_blobs(self, head: str) -> dict[str, str]:
        out = self._repository.git("ls-tree", "-r", "-z", "--full-tree", head)
        entries = (entry.partition(b"\t") for entry in out.split(b"\0") if entry)
        return {path.decode("utf-8", "replace"): about.split()[2].decode() for about, _, path in entries}

    def _commit_until(self, moment: datetime) -> str:
        # First parents only: what a branch held before it landed was not on the wiki yet.
        out = self._repository.git("rev-list", "-1", "--first-parent", f"--before={moment.isoformat()}", "HEAD")
        return out.decode("ascii").strip()

    def pages_until(self, moment: datetime) -> Iterator[PageText | SkippedFile]:
        if self._has_history:
            yield from self._pages_at(self._commit_until(moment))
            return
        for listed in self.listed():
            if isinstance(listed, SkippedFile):
                if listed.reason != _NO_PAGE:
                    yield listed
            elif (self.last_changed(listed.path) or 0) > moment.timestamp():
                yield SkippedFile(listed.path, _LATER)
            elif (current := self.read_current(listed.path)) is not None:
                yield current

    def _pages_at(self, commit: str) -> Iterator[PageText | SkippedFile]:
        if not commit:
            yield SkippedFile(self.prefix, "it has no commit before the training snapshot")
            return
        snapshot = self._repository.snapshot(commit)
        for skipped in snapshot.skipped:
            if skipped.path.startswith(self._below) and _is_page_name(skipped.path):
                yield SkippedFile(self._outer(skipped.path), skipped.reason)
        for read in self._repository.iter_texts(snapshot):
            path = read.path if isinstance(read, SkippedFile) else read[0].path
            if not path.startswith(self._below) or not _is_page_name(path):
                continue
            if isinstance(read, SkippedFile):
                yield SkippedFile(self._outer(path), read.reason)
            else:
                yield TrackedFile(self._outer(path), read[0].blob_id, read[0].size), read[1]

    def states_until(self, moment: datetime) -> list[str]:
        if self._has_history:
            return [f"{self.prefix}@{self._commit_until(moment)}"]
        return [
            f"{file.path}@{file.blob_id}"
            for file in self.listed()
            if isinstance(file, TrackedFile) and (self.last_changed(file.path) or 0) <= moment.timestamp()
        ]


def _is_page_name(path: str) -> bool:
    pure = PurePosixPath(path)
    return pure.suffix.lower() in PAGE_SUFFIXES | HTML_SUFFIXES and not _NO_PAGE_NAME.fullmatch(pure.name)


def _is_encodable(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _prefix(folder: Path, root: Path) -> str:
    return PurePosixPath(os.path.relpath(folder, root)).as_posix() + "/"
