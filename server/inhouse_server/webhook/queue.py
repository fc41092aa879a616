"""What waits to be reviewed, on disk: what was answered with "accepted" is there after a kill or a power cut."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inhouse_retrieval import InhouseError, StateUnwritable
from inhouse_server.webhook.events import Wanted

FILE_NAME = "webhook.sqlite"
MOST_TRIES = 6
_KEPT_NAMES = 20_000
"""Names of deliveries, two for each. What is repeated after that asks for a head that is done."""
_KEPT_DONE = 2_000
_FIRST_WAIT_S = 60.0
_LONGEST_WAIT_S = 3600.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS delivery (name TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS job (
    id INTEGER PRIMARY KEY AUTOINCREMENT, pull INTEGER NOT NULL, head TEXT NOT NULL, command TEXT NOT NULL,
    member INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS done (
    id INTEGER PRIMARY KEY AUTOINCREMENT, pull INTEGER NOT NULL, head TEXT NOT NULL, outcome TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS done_head ON done (pull, head);
CREATE TABLE IF NOT EXISTS paused (pull INTEGER PRIMARY KEY);
"""

Accepted = Literal["queued", "repeated", "waiting", "done", "full"]
"""What became of a delivery: new; seen before; asked for already; reviewed already; or no room."""


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to do, tried ``tries`` times before."""

    id: int
    wanted: Wanted
    tries: int


class Queue:
    """The queue of one repository. Receiver and worker each open their own; SQLite keeps them apart.

    Args:
        room: jobs that may wait.

    Raises:
        InhouseError: the file is not a queue.
        StateUnwritable: it cannot be written.
    """

    def __init__(self, state_dir: Path, room: int) -> None:
        self._room = room
        self._path = state_dir / FILE_NAME
        with self._told():
            self._file = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = FULL")  # WAL alone loses the last commits when the power goes
            self._file.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def accept(self, names: Sequence[str], wanted: Wanted | None) -> Accepted:
        """Take in a delivery; on disk when this returns, the delivery's names and its job together.

        Args:
            names: what it is remembered by; one of them seen before is a repetition.
            wanted: ``None`` when there is nothing to do, and only the names are remembered.
        """
        with self._transaction() as file:
            marks = ",".join("?" * len(names))
            if file.execute(f"SELECT 1 FROM delivery WHERE name IN ({marks})", names).fetchone():
                return "repeated"
            outcome = "queued" if wanted is None else self._add(file, wanted)
            if outcome == "full":
                return outcome  # its names are not remembered: the forge may send it again
            last = int(file.execute("SELECT COALESCE(MAX(number), 0) FROM delivery").fetchone()[0])
            file.executemany("INSERT INTO delivery VALUES (?, ?)", [(name, last + 1) for name in names])
            file.execute("DELETE FROM delivery WHERE number <= ?", (last + 1 - _KEPT_NAMES // 2,))
            return outcome

    def _add(self, file: sqlite3.Connection, wanted: Wanted) -> Accepted:
        if wanted.head:
            if file.execute("SELECT 1 FROM done WHERE pull = ? AND head = ?", (wanted.number, wanted.head)).fetchone():
                return "done"
            # A push makes the review of an earlier head useless.
            earlier = "DELETE FROM job WHERE pull = ? AND head NOT IN ('', ?)"
            file.execute(earlier, (wanted.number, wanted.head))
        row = (wanted.number, wanted.head, wanted.command, wanted.member)
        same = "SELECT 1 FROM job WHERE pull = ? AND head = ? AND command = ? AND member = ?"
        if file.execute(same, row).fetchone():
            return "waiting"
        # Anyone may write comments; what they ask for leaves half of the room to pushes.
        room = self._room if wanted.head else self._room // 2
        if file.execute("SELECT COUNT(*) FROM job").fetchone()[0] >= room:
            return "full"
        file.execute("INSERT INTO job (pull, head, command, member) VALUES (?, ?, ?, ?)", row)
        return "queued"

    def next(self, now: float | None = None) -> Job | None:
        """The job that waits longest and is due. It stays in the queue until :meth:`finish` or :meth:`retry`."""
        with self._told():
            row = self._file.execute(
                "SELECT id, pull, head, command, member, tries FROM job WHERE due <= ? ORDER BY due, id LIMIT 1",
                (time.time() if now is None else now,),
            ).fetchone()
        return None if row is None else Job(row[0], Wanted(*row[1:5]), row[5])

    def finish(self, job: Job, head: str, outcome: str, reviewed: bool) -> None:
        """The job is over.

        Args:
            head: what was reviewed, which may be a later commit than was asked for.
            reviewed: the head needs no review any more.
        """
        with self._transaction() as file:
            file.execute("DELETE FROM job WHERE id = ?", (job.id,))
            if reviewed:
                file.execute("DELETE FROM job WHERE pull = ? AND head = ?", (job.wanted.number, head))
            row = (job.wanted.number, head if reviewed else "", outcome)
            last = file.execute("INSERT INTO done (pull, head, outcome) VALUES (?, ?, ?)", row).lastrowid
            file.execute("DELETE FROM done WHERE id <= ?", ((last or 0) - _KEPT_DONE,))

    def retry(self, job: Job, outcome: str, now: float | None = None) -> bool:
        """The job failed; try it again later, or give it up after :data:`MOST_TRIES`. Returns whether it waits."""
        if job.tries + 1 >= MOST_TRIES:
            self.finish(job, "", f"given up: {outcome}", reviewed=False)
            return False
        wait = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 4**job.tries)
        due = (time.time() if now is None else now) + wait
        with self._transaction() as file:
            file.execute("UPDATE job SET tries = tries + 1, due = ? WHERE id = ?", (due, job.id))
        return True

    def pause(self, pull: int, paused: bool) -> None:
        """Stop reviewing this pull request when it is pushed to, or go on."""
        with self._transaction() as file:
            file.execute("DELETE FROM paused WHERE pull = ?", (pull,))
            if paused:
                file.execute("INSERT INTO paused VALUES (?)", (pull,))

    def is_paused(self, pull: int) -> bool:
        """Whether a member paused this pull request."""
        with self._told():
            return self._file.execute("SELECT 1 FROM paused WHERE pull = ?", (pull,)).fetchone() is not None

    def waiting(self) -> list[Wanted]:
        """What waits, the oldest first."""
        with self._told():
            rows = self._file.execute("SELECT pull, head, command, member FROM job ORDER BY id").fetchall()
        return [Wanted(*row) for row in rows]

    def outcomes(self, limit: int = 10) -> list[tuple[int, str]]:
        """``(pull request, what became of it)``, the newest first."""
        with self._told():
            return self._file.execute("SELECT pull, outcome FROM done ORDER BY id DESC LIMIT ?", (limit,)).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._told():
            self._file.execute("BEGIN IMMEDIATE")
            try:
                yield self._file
            except BaseException:
                self._file.execute("ROLLBACK")
                raise
            self._file.execute("COMMIT")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StateUnwritable(
                f"The queue {self._path} cannot be used: {error}.", "Free some space, or change its rights."
            ) from error
        except sqlite3.DatabaseError as error:
            raise InhouseError(
                f"The queue {self._path} is damaged: {error}.", "Delete it; what waits in it is lost."
            ) from error
