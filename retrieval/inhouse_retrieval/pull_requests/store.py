"""Pull requests of a forge on disk: one SQLite file, ``pull_requests.sqlite``, in the state directory.

It keeps two things. ``pull_requests`` has one row per pull request, written when all of it was read. ``answers`` has
what the forge answered to each request, with its ETag: a sync that was killed asks nothing again that had been
answered, and the next sync asks only whether something changed. Every method that writes is one transaction. Nothing
comes in here before :mod:`~inhouse_retrieval.pull_requests.forge` has redacted it.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from inhouse_retrieval.errors import InhouseError, StateUnwritable
from inhouse_retrieval.pull_requests.pull_request import PullRequest

FILE_NAME = "pull_requests.sqlite"

MIGRATIONS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE answers (
        url TEXT PRIMARY KEY,
        version TEXT NOT NULL,
        etag TEXT,
        next_url TEXT,
        missing INTEGER NOT NULL,
        items TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE pull_requests (
        number INTEGER PRIMARY KEY,
        updated_at TEXT NOT NULL,
        merged_at TEXT NOT NULL,
        missing TEXT NOT NULL,
        content TEXT NOT NULL
    );
    """,
)
"""Entry n takes the schema from version n to n + 1. Entries are added, never changed."""

_CONTENT = TypeAdapter(PullRequest)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the forge answered to one request.

    Attributes:
        version: what it was answered for; an answer for another version is asked again, conditionally.
        next_url: of the following page.
        missing: whether the forge will not give this part, such as a diff that is too large for it.
        items: JSON values, reduced to what is used, and redacted.
    """

    version: str
    etag: str | None
    next_url: str | None
    missing: bool
    items: list[Any]


class PullRequestStore:
    """An open store.

    Raises:
        InhouseError: on opening or later, when the file is damaged or was made by a newer inhouse.
        StateUnwritable: on opening or later, when the disk is full or the file read-only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._plain_errors():
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    @classmethod
    def in_state(cls, state_dir: Path) -> PullRequestStore:
        """The store of a state directory, made when there is none."""
        return cls(state_dir / FILE_NAME)

    @classmethod
    def if_there(cls, state_dir: Path) -> PullRequestStore | None:
        """The store of a state directory, or ``None`` where nothing was ever synced."""
        path = state_dir / FILE_NAME
        return cls(path) if path.exists() else None

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise InhouseError(
                f"{self.path} was made by a newer inhouse.", "Update inhouse, or remove the file and sync again."
            )
        for number in range(version, len(MIGRATIONS)):
            self._db.executescript(f"BEGIN;{MIGRATIONS[number]};PRAGMA user_version = {number + 1};COMMIT;")

    def close(self) -> None:
        """Close the file. Calling it again does nothing."""
        self._db.close()

    def __enter__(self) -> PullRequestStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._rows("SELECT count(*) FROM pull_requests")[0][0])

    def belong_to(self, project: str) -> None:
        """Say which project of which forge this is about.

        Raises:
            InhouseError: it is about another one. Reading that again may take hours, so a typing mistake costs nothing.
        """
        known = self._meta("project")
        if known is not None and known != project and len(self):
            raise InhouseError(
                f"The pull requests kept in {self.path} are those of {known}, and not of {project}.",
                "Correct [forge] in inhouse.toml, or remove that file to begin with the other project.",
            )
        if known != project:
            with self._plain_errors():
                self._db.executescript("BEGIN;DELETE FROM answers;DELETE FROM meta;COMMIT;")
            self._set_meta("project", project)

    def begin_sync(self, now: float, valid_for: float) -> str:
        """The version of the listings that this sync reads: that of a sync that did not end, while it is not older
        than ``valid_for`` seconds; else a new one."""
        open_sync = self._meta("sync")
        if open_sync is None or not 0 <= now - float(open_sync.partition(" ")[0]) <= valid_for:
            open_sync = f"{now} {uuid.uuid4().hex}"  # a clock may show the same time twice
            self._set_meta("sync", open_sync)
        return open_sync

    def end_sync(self) -> None:
        """All that was to be read is here."""
        with self._plain_errors():
            self._db.execute("DELETE FROM meta WHERE key = 'sync'")

    def recall(self, url: str) -> Answer | None:
        """What was answered to this request, for whatever version."""
        rows = self._rows("SELECT version, etag, next_url, missing, items FROM answers WHERE url = ?", (url,))
        if not rows:
            return None
        version, etag, next_url, missing, items = rows[0]
        return Answer(version, etag, next_url, bool(missing), json.loads(items))

    def keep(self, url: str, answer: Answer) -> None:
        """Keep an answer; a former one to the same request gives way."""
        row = (url, answer.version, answer.etag, answer.next_url, answer.missing, json.dumps(answer.items))
        with self._plain_errors():
            self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?)", row)

    def version(self, number: int) -> str | None:
        """When the pull request that was read had been updated last."""
        rows = self._rows("SELECT updated_at FROM pull_requests WHERE number = ?", (number,))
        return str(rows[0][0]) if rows else None

    def versions(self) -> list[tuple[int, str]]:
        """Number, and when it had been updated last, of every pull request."""
        rows = self._rows("SELECT number, updated_at FROM pull_requests ORDER BY number")
        return [(int(number), str(updated_at)) for number, updated_at in rows]

    def put(self, change: PullRequest, updated_at: str, missing: Sequence[str] = ()) -> None:
        """Keep a pull request of which everything was read but the parts named ``missing``."""
        assert change.number is not None and change.merged_at is not None, "a forge's pull request has both"
        content = _CONTENT.dump_json(change).decode()
        row = (change.number, updated_at, change.merged_at.isoformat(), json.dumps(list(missing)), content)
        with self._plain_errors():
            self._db.execute("INSERT OR REPLACE INTO pull_requests VALUES (?, ?, ?, ?, ?)", row)

    def get(self, number: int) -> PullRequest | None:
        """The pull request of this number."""
        rows = self._rows("SELECT content FROM pull_requests WHERE number = ?", (number,))
        return self._parse(rows[0][0]) if rows else None

    def newest(self, limit: int) -> list[PullRequest]:
        """The pull requests that were merged last, newest first."""
        rows = self._rows("SELECT content FROM pull_requests")
        found = [self._parse(content) for (content,) in rows]
        return sorted(found, key=lambda change: (change.merged_at or datetime.min, change.number or 0))[::-1][:limit]

    def missing(self) -> dict[int, list[str]]:
        """Number -> the parts that the forge would not give, for pull requests that lack some."""
        rows = self._rows("SELECT number, missing FROM pull_requests WHERE missing != '[]' ORDER BY number")
        return {number: json.loads(missing) for number, missing in rows}

    def _parse(self, content: str) -> PullRequest:
        try:
            return _CONTENT.validate_json(content)
        except ValueError as error:
            raise self._damaged() from error

    def _meta(self, key: str) -> str | None:
        rows = self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def _set_meta(self, key: str, value: str) -> None:
        with self._plain_errors():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._plain_errors():
            return self._db.execute(sql, values).fetchall()

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StateUnwritable(
                f"{self.path} cannot be used: {error}.",
                "Free some disk space or correct its permissions, then sync again; what was read is kept.",
            ) from error
        except sqlite3.ProgrammingError:
            raise
        except sqlite3.DatabaseError as error:
            raise self._damaged() from error

    def _damaged(self) -> InhouseError:
        return InhouseError(f"{self.path} is damaged.", "Remove it and run 'inhouse sync' again.")
