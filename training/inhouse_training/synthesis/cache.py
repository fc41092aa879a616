"""Replies on disk: one SQLite file, ``synthesis.sqlite``, in the state directory.

A reply is written in a transaction of its own as soon as it arrives, so a job that was killed asks nothing again that
had been answered. What is kept was redacted before.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from inhouse_retrieval import InhouseError, StateUnwritable

FILE_NAME = "synthesis.sqlite"
_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE replies (
    key TEXT PRIMARY KEY,
    generator TEXT NOT NULL,
    topic TEXT NOT NULL,
    places TEXT NOT NULL,
    text TEXT NOT NULL,
    whole INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a generator answered.

    Attributes:
        whole: ``False`` when the longest reply was reached first.
    """

    text: str
    whole: bool
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Replies:
    """The replies of one generator, by key. Empty where nothing was ever generated."""

    generator: str = ""
    by_key: Mapping[str, Reply] = field(default_factory=dict)


class ReplyCache:
    """An open cache.

    Raises:
        InhouseError: on opening or later, when the file is damaged or was made by a newer inhouse.
        StateUnwritable: on opening or later, when it cannot be written.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / FILE_NAME
        with self._plain_errors():
            self._db = sqlite3.connect(self.path, isolation_level=None, timeout=10)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise InhouseError(f"{self.path} was made by a newer inhouse.", "Update inhouse, or remove the file.")
        if version == 0:
            self._db.executescript(f"BEGIN;{_SCHEMA};PRAGMA user_version = {_VERSION};COMMIT;")

    def choose(self, generator: str) -> None:
        """From now on the dataset is made of this generator's replies."""
        with self._plain_errors():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('generator', ?)", (generator,))

    def keep(self, key: str, generator: str, topic: str, places: str, reply: Reply) -> None:
        """Keep a reply; durable against the end of this process when it returns."""
        row = (key, generator, topic, places, reply.text, reply.whole, reply.prompt_tokens, reply.completion_tokens)
        with self._plain_errors():
            self._db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def replies(self, generator: str = "") -> Replies:
        """All replies of ``generator``, or of the one that was chosen last."""
        with self._plain_errors():
            name = generator or self._chosen()
            rows = self._db.execute(
                "SELECT key, text, whole, prompt_tokens, completion_tokens FROM replies WHERE generator = ?", (name,)
            )
            return Replies(name, {key: Reply(text, bool(whole), *tokens) for key, text, whole, *tokens in rows})

    def digest(self, topics: Collection[str]) -> str:
        """Changes when the chosen generator has other replies on ``topics``; empty when it has none."""
        with self._plain_errors():
            marks = ",".join("?" * len(topics))
            asked = f"SELECT key, text FROM replies WHERE generator = ? AND topic IN ({marks}) ORDER BY key"
            told = hashlib.sha256()
            count = 0
            for key, text in self._db.execute(asked, (self._chosen(), *sorted(topics))):
                told.update(f"{key}\0{text}\0".encode())
                count += 1
            return told.hexdigest() if count else ""

    def _chosen(self) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE key = 'generator'").fetchone()
        return str(row[0]) if row else ""

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> ReplyCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise StateUnwritable(
                    f"{self.path} cannot be used: {error}.", "Free some space or correct its permissions, then go on."
                ) from error
            raise InhouseError(
                f"{self.path} is damaged: {error}.", "Remove it; what was generated is then generated again."
            ) from error


def stored_replies(state_dir: Path, generator: str = "") -> Replies:
    """The replies of ``generator``, or of the one that was chosen last: those a dataset is made of."""
    if not (state_dir / FILE_NAME).exists():
        return Replies(generator)
    with ReplyCache(state_dir) as cache:
        return cache.replies(generator)


def replies_digest(state_dir: Path, topics: Collection[str]) -> str:
    """Changes when :func:`stored_replies` has something else on ``topics``; empty when there is nothing."""
    if not topics or not (state_dir / FILE_NAME).exists():
        return ""
    with ReplyCache(state_dir) as cache:
        return cache.digest(topics)
