"""The SQLite file of the catalog: opened, brought to the newest schema, read and written one transaction at a time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from inhouse_retrieval.catalog_schema import MIGRATIONS
from inhouse_retrieval.errors import InhouseError, StateUnwritable

_FULL = ("disk is full", "disk i/o error", "readonly", "read-only", "unable to open")


class CatalogCorrupt(Exception):
    """The file is not a catalog any more. Its owner sets it aside and builds a new one."""


class NotMadeYet(InhouseError):
    """Whoever makes the file has not come to its tables. Only a reader beside that process meets it."""


class CatalogFile:
    """An open file.

    Args:
        read_only: another process may hold it and go on writing; nothing is changed here.

    Raises:
        CatalogCorrupt: on opening or later, from any method.
        StateUnwritable: on opening or later, when the disk is full or the file read-only.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        with _translated(path):
            how = ""
            if read_only:
                # Where nothing can be written, SQLite cannot make the file by which readers and writers agree. Is it
                # there, somebody else may be writing.
                alone = not any(path.with_name(f"{path.name}{end}").exists() for end in ("-wal", "-shm"))
                how = "?mode=ro&immutable=1" if alone and not os.access(path.parent, os.W_OK) else "?mode=ro"
            place = f"{path.absolute().as_uri()}{how}"
            self._db = sqlite3.connect(place, isolation_level=None, check_same_thread=False, timeout=10, uri=True)
            try:
                self._check_schema() if read_only else self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _version(self) -> int:
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            raise InhouseError(
                "This repository's index was made by a newer inhouse.",
                f"Update inhouse, or remove {self.path.parent} to index again.",
            )
        return version

    def _check_schema(self) -> None:
        version = self._version()
        if version == 0:
            raise NotMadeYet("This repository's index is just being made.", "Try again in a moment.")
        if version < len(MIGRATIONS):
            raise InhouseError(
                "This repository's index was made by an older inhouse, or its making was cut short.",
                "Run 'inhouse index'.",
            )

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        version = self._version()
        for number in range(version, len(MIGRATIONS)):
            self._db.executescript(f"BEGIN;{MIGRATIONS[number]};PRAGMA user_version = {number + 1};COMMIT;")
        # A catalog that was closed properly is believed; after a crash its pages are read through once.
        if version and self.meta("closed") != "1":
            verdict = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise CatalogCorrupt(verdict)
        self.set_meta("closed", "0")

    def close(self) -> None:
        """Close the file. Calling it again does nothing."""
        with suppress(sqlite3.Error, StateUnwritable, CatalogCorrupt):
            if not self._read_only:
                self.set_meta("closed", "1")
        self._db.close()

    def copy_to(self, path: Path) -> None:
        """Copy everything to a new file at ``path``, as it is at one moment, holding up nobody who writes."""
        with _translated(path):
            copy = sqlite3.connect(path)
            try:
                self._db.backup(copy)
                # Whole, since it was copied within one transaction: it need not be read through.
                copy.execute("INSERT OR REPLACE INTO meta VALUES ('closed', '1')")
                copy.commit()
            finally:
                copy.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: kept whole, or, where the block raises, not at all."""
        with _translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def pretending(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is rolled back at the end of the block."""
        with _translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            finally:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """What a query gives."""
        with _translated(self.path):
            return self._db.execute(sql, values).fetchall()

    def meta(self, key: str) -> str | None:
        """A fact by name, or ``None``."""
        rows = self.rows("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def set_meta(self, key: str, value: str) -> None:
        """Remember a fact."""
        with self.writing() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def set_aside(path: Path) -> None:
    """Move a corrupt catalog out of the way (one is kept, for a look) with its side files."""
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").replace(f"{path}.corrupt{suffix}")


_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NO_CATALOG = ("no such table", "vtable constructor failed")
"""SQLite has no number of its own for a file that lacks what a catalog has."""


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """SQLite's errors as the two that matter: cannot write, or corrupt.

    A catalog that is corrupt is given up, so only what SQLite says of a damaged file counts; any other error is one of
    this program's or of the moment, and goes on as it is.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        said = str(error).lower()
        if isinstance(error, sqlite3.OperationalError) and any(word in said for word in _FULL):
            raise StateUnwritable(
                f"The index in {path.parent} cannot be written: {error}.",
                "Free some disk space or make the folder writable, then try again; what was indexed is kept.",
            ) from error
        number = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF  # above it, what kind of it
        if number in _DAMAGED or any(word in said for word in _NO_CATALOG):
            raise CatalogCorrupt(str(error)) from error
        raise
