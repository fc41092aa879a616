"""Where a name is defined, and who last changed that: what an editor shows beside the cursor, in milliseconds.

The index says which files define the name. Each is read as it is now, so that lines are right in files that changed
since. Who changed them is git's to say, which gets a limit of time.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePosixPath
from typing import TypeVar

from inhouse_retrieval.catalog_rows import symbol_names
from inhouse_retrieval.index import Index
from inhouse_retrieval.outline import outline
from inhouse_retrieval.pull_requests.messages import read_message
from inhouse_retrieval.reading import MAX_FILE_BYTES
from inhouse_retrieval.repository import Repository
from inhouse_retrieval.search import day_of
from inhouse_retrieval.secrets import redact
from inhouse_retrieval.syntax import Definition, Tokens, language
from inhouse_retrieval.wiki import PAGE_SUFFIXES
from inhouse_retrieval.within import EVERYWHERE, Within

_WORD = re.compile(r"[^\W\d][\w$]*|\$[\w$]+")
_NO_NAMES = PAGE_SUFFIXES | {".json", ".jsonc", ".yaml", ".yml", ".toml", ".html", ".htm", ".txt"}
"""Prose and data: their words are no names that code could use."""
_FILES_READ = 5
"""A name that more files define says little, and each takes about 3 ms to read and parse."""
_KEPT = 128
_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Name:
    """A name in one line: its characters ``start`` to ``end``."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Place:
    """A definition: lines ``first`` to ``last`` of ``path`` (1-based, inclusive); line ``line`` has the name.

    Attributes:
        code: that line, without indentation and secrets.
        blob_id: git blob id of the text that these lines were read from.
    """

    path: str
    line: int
    first: int
    last: int
    code: str
    blob_id: str


@dataclass(frozen=True, slots=True)
class Use:
    """A line that uses a name, 1-based; ``code`` is that line without indentation and secrets.

    Attributes:
        within: the definition around it, ``""`` where there is none.
    """

    path: str
    line: int
    code: str
    within: str


@dataclass(frozen=True, slots=True)
class LastChange:
    """The newest change of some lines on the first-parent history.

    Attributes:
        author: who wrote it; of a pull request, the author of its last commit to the file.
        day: when it landed, ``"2024-05-01"``; empty when git stores no such time.
        number: of the pull request; ``None`` for a plain commit.
        edited: some of the lines are not committed yet.
    """

    commit: str
    author: str
    day: str
    number: int | None
    title: str
    edited: bool


def is_name(text: str) -> bool:
    """Whether code could define ``text``: one word, not qualified."""
    return _WORD.fullmatch(text) is not None


def name_at(path: str, text: str, row: int, column: int) -> Name | None:
    """The name at character ``column`` of row ``row`` (0-based), or one that ends there.

    ``None`` for keywords, comments and strings where there is a grammar to tell them, and in prose and data. Lines of
    ``text`` end with ``\\n``.
    """
    lines = text.split("\n")
    is_code = PurePosixPath(path).suffix.lower() not in _NO_NAMES and len(text) <= MAX_FILE_BYTES
    if not is_code or not 0 <= row < len(lines):
        return None
    for match in _WORD.finditer(lines[row]):
        if match.start() <= column <= match.end():
            is_name = Tokens(path, text).is_name(lines[row], row, match.start(), match.end())
            return Name(match[0], match.start(), match.end()) if is_name else None
    return None


class Definitions:
    """Finds definitions in one repository; files that it read are kept while they stay as they are."""

    def __init__(self, repository: Repository, index: Index) -> None:
        self._repository = repository
        self._index = index
        self._lock = threading.Lock()
        self._files: OrderedDict[tuple[str, str], _File] = OrderedDict()
        self._changes: OrderedDict[tuple[str | None, Place], LastChange | None] = OrderedDict()

    def find(
        self, name: str, near: str, row: int, unsaved: Mapping[str, str], within: Within = EVERYWHERE
    ) -> Iterator[Place]:
        """Where ``name`` is defined: in the language of ``near`` first, then by how near to that path.

        Args:
            row: in ``near`` (0-based), where the name is used; what is defined in a function elsewhere is left out.
            unsaved: texts by path that stand for the files on disk.
            within: the part of the repository that is looked through.
        """
        paths = {path for path in (*self._index.paths_defining(name), *({near} & {*unsaved})) if within.holds(path)}
        code = [path for path in paths if _may_hold_names(path)]
        for path in sorted(code, key=lambda path: _distance(path, near))[:_FILES_READ]:
            file = self._file(path, unsaved.get(path))
            yield from file.places(name, row if path == near else None) if file is not None else ()

    def all_of(self, name: str, within: Within = EVERYWHERE) -> Iterator[Place]:
        """Every place ``within`` where ``name`` is defined, by path; a file is read when its turn comes."""
        for path in sorted(self._index.paths_defining(name)):
            if within.holds(path) and _may_hold_names(path) and (file := self._file(path, None)) is not None:
                yield from file.places(name, None)

    def uses(self, name: str, within: Within = EVERYWHERE) -> Iterator[Use]:
        """Lines of code with ``name`` in them, where it is neither being defined nor in a comment or a string.

        By path, and as the files are now. What the name means at each place nobody checks: two definitions of one name
        have the uses of both.
        """
        for path in self._index.paths_containing(name):
            if within.holds(path) and _may_hold_names(path) and (file := self._file(path, None)) is not None:
                yield from file.uses(name)

    def last_change(self, place: Place, unsaved: Mapping[str, str], seconds: float) -> LastChange | None:
        """The newest change of the lines of ``place``; ``None`` when git knows none. Kept for the commit indexed.

        Args:
            seconds: git may take no longer.

        Raises:
            TimeoutError: it would.
            InhouseError: git cannot be started.
        """
        head = self._index.commit()
        with self._lock:
            if (head, place) in self._changes:
                return self._changes[head, place]
        found = self._blame(place, unsaved.get(place.path), seconds)
        with self._lock:
            _keep(self._changes, (head, place), found)
        return found

    def _file(self, path: str, text: str | None) -> _File | None:
        data = text.encode("utf-8", "replace") if text is not None else b""
        if len(data) > MAX_FILE_BYTES:
            return None
        blob = self._repository.blob_id(data) if text is not None else self._repository.current_blob(path)
        with self._lock:
            if blob is not None and (path, blob) in self._files:
                self._files.move_to_end((path, blob))
                return self._files[path, blob]
        if text is not None and blob is not None:
            file = _File(path, blob, redact(data.decode().replace("\r\n", "\n").replace("\r", "\n"))[0])
        else:
            read = self._repository.read_current(path)
            if not isinstance(read, tuple):
                return None
            file = _File(path, read[0].blob_id, read[1])
        with self._lock:
            _keep(self._files, (path, file.blob_id), file)
        return file

    def _blame(self, place: Place, text: str | None, seconds: float) -> LastChange | None:
        """Git tells the newest change first, so it is not left to look for the others.

        Along first parents a change is what landed: with merges, that is much less to look at than every commit.
        Changes of white space alone are passed over.
        """
        lines = ("-L", f"{place.first},{place.last}")
        asked = ["blame", "--no-textconv", "--first-parent", "--incremental", "-w", *lines]
        if text is not None:
            asked += ["--contents", "-"]
        deadline = time.monotonic() + seconds
        told: dict[str, str] = {}
        commit, edited = "", False
        given = (text or "").encode("utf-8", "replace")
        telling = self._repository.git_lines(*asked, "--", place.path, given=given, seconds=seconds)
        with closing(telling):
            for raw in telling:
                key, _, value = raw.decode("utf-8", "replace").rstrip("\n").partition(" ")
                commit = commit or key
                told[key] = value
                if key == "filename":
                    if commit.strip("0"):
                        break
                    commit, edited, told = "", True, {}
        return self._landed(commit, place.path, told, edited, deadline) if "filename" in told else None

    def _landed(self, commit: str, path: str, told: Mapping[str, str], edited: bool, deadline: float) -> LastChange:
        number, title = self._index.change_named(commit) or read_message(redact(told["summary"])[0], 1)[:2]
        author = ""
        if told["summary"].startswith("Merge"):
            inside = (commit, f"^{commit}^1", "--", f":(top,literal){path}")
            asked = ("log", "-1", "--no-merges", "--format=%an", *inside)
            authors = self._repository.git_lines(*asked, seconds=max(0.0, deadline - time.monotonic()))
            author = b"".join(authors).decode("utf-8", "replace").strip()
        day = day_of(int(told["committer-time"]))
        return LastChange(commit, author or told["author"], day, number, title, edited)


class _File:
    """One text, parsed."""

    def __init__(self, path: str, blob_id: str, text: str) -> None:
        self.blob_id = blob_id
        self._path = path
        self._lines = text.split("\n")
        self._tokens = Tokens(path, text)
        self._outline: dict[int, str] | None = None

    def places(self, name: str, used: int | None) -> Iterator[Place]:
        """Where ``name``, used in row ``used`` or in another file, is defined in this one, from the top."""
        seen: set[tuple[int, int]] = set()
        for row, line in enumerate(self._lines):
            if name not in line:
                continue
            for match in _WORD.finditer(line):
                if match[0] != name or not self._tokens.is_name(line, row, *match.span()):
                    continue
                found = self._definition(row, *match.span())
                if found is None or name not in symbol_names([found.name]) or (found.first, found.last) in seen:
                    continue
                seen.add((found.first, found.last))
                scope = self._tokens.scope(line, row, *match.span())
                if scope is None or (used is not None and scope[0] <= used <= scope[1]):
                    yield Place(self._path, row + 1, found.first + 1, found.last + 1, line.strip(), self.blob_id)

    def uses(self, name: str, within: Within = EVERYWHERE) -> Iterator[Use]:
        """Lines that use ``name``, from the top."""
        defining = {place.line - 1 for place in self.places(name, None)}
        for row, line in enumerate(self._lines):
            if name not in line or row in defining:
                continue
            for match in _WORD.finditer(line):
                if match[0] == name and self._tokens.is_name(line, row, *match.span()):
                    around = self._definition(row, *match.span())
                    yield Use(self._path, row + 1, line.strip(), around.name if around is not None else "")
                    break

    def _definition(self, row: int, start: int, end: int) -> Definition | None:
        if self._tokens.has_grammar:
            return self._tokens.definition(self._lines[row], row, start, end)
        if self._outline is None:
            self._outline = outline(self._path, self._lines).definitions
        return Definition(self._outline[row], row, row) if row in self._outline else None


def _may_hold_names(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() not in _NO_NAMES


def _distance(path: str, near: str) -> tuple[bool, bool, int, str]:
    folders = zip(path.split("/")[:-1], near.split("/")[:-1], strict=False)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], folders))
    return language(path) != language(near), path != near, -shared, path


def _keep(kept: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    kept[key] = value
    while len(kept) > _KEPT:
        kept.popitem(last=False)
