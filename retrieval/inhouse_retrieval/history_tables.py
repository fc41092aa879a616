"""The catalog's tables of the history: its changes, and a full-text index over them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from inhouse_retrieval.history import HistoryChange
from inhouse_retrieval.terms import index_terms

_LONGEST_DESCRIPTION = 2_000


@dataclass(frozen=True, slots=True)
class StoredChange:
    """A change of the history as the catalog keeps it; newer ones have larger ids."""

    id: int
    commit: str
    landed: int
    number: int | None
    title: str
    files: tuple[str, ...]
    renamed: dict[str, str]
    vector_key: str


def title_key(encoder: str, title: str) -> str:
    """Names the vector of a change's title."""
    return hashlib.blake2b(f"{encoder}\0title\0{title}".encode(), digest_size=20).hexdigest()


class HistoryTables:
    """The tables of an open catalog; it lends how to read and how to write. Errors are the catalog's."""

    def __init__(
        self,
        rows: Callable[[str, Sequence[object]], list[tuple[object, ...]]],
        writing: Callable[[], AbstractContextManager[sqlite3.Connection]],
    ) -> None:
        self._rows = rows
        self._writing = writing

    def add_changes(self, encoder: str, changes: Iterable[HistoryChange], keep: int, anew: bool) -> None:
        """Take in ``changes``, oldest first; the newest ``keep`` stay.

        Args:
            anew: forget those that were there: the history was rewritten.
        """
        with self._writing() as db:
            if anew:
                db.execute("DELETE FROM changes")
                db.execute("DELETE FROM change_text")
            for change in changes:
                row = db.execute(
                    """INSERT INTO changes (commit_id, landed, number, title, files, renamed, vector_key)
                       VALUES (?, ?, ?, ?, ?, ?, ?)""",
                    (
                        change.commit,
                        change.landed,
                        change.number,
                        change.title,
                        json.dumps(change.files),
                        json.dumps(change.renamed),
                        title_key(encoder, change.title),
                    ),
                ).lastrowid
                db.execute(
                    "INSERT INTO change_text (rowid, title, body, paths) VALUES (?, ?, ?, ?)",
                    (
                        row,
                        index_terms(change.title),
                        index_terms(change.description[:_LONGEST_DESCRIPTION]),
                        index_terms(" ".join(change.files)),
                    ),
                )
            surplus = "SELECT id FROM changes ORDER BY id DESC LIMIT -1 OFFSET ?"
            db.execute(f"DELETE FROM change_text WHERE rowid IN ({surplus})", (keep,))
            db.execute(f"DELETE FROM changes WHERE id IN ({surplus})", (keep,))

    def changes(self) -> list[StoredChange]:
        """The changes held, newest first."""
        rows = self._rows(
            "SELECT id, commit_id, landed, number, title, files, renamed, vector_key FROM changes ORDER BY id DESC",
            (),
        )
        return [
            StoredChange(
                int(str(row)),
                str(commit),
                int(str(landed)),
                int(str(number)) if number is not None else None,
                str(title),
                tuple(json.loads(str(files))),
                dict(json.loads(str(renamed))),
                str(key),
            )
            for row, commit, landed, number, title, files, renamed, key in rows
        ]

    def change_named(self, commit: str) -> tuple[int | None, str] | None:
        """Number of the pull request, and title, of the change that ``commit`` landed; ``None`` when it is not held."""
        rows = self._rows("SELECT number, title FROM changes WHERE commit_id = ?", (commit,))
        return (int(str(rows[0][0])) if rows[0][0] is not None else None, str(rows[0][1])) if rows else None

    def commit_of(self, number: int) -> str | None:
        """The commit that landed pull request ``number``; of two with one number, the newer; ``None`` when not held."""
        rows = self._rows("SELECT commit_id FROM changes WHERE number = ? ORDER BY id DESC LIMIT 1", (number,))
        return str(rows[0][0]) if rows else None

    def match_changes(self, expression: str, limit: int) -> list[int]:
        """Change ids for an FTS5 expression, best first: BM25, the title above the description above the paths."""
        rows = self._rows(
            """SELECT rowid FROM change_text WHERE change_text MATCH ?
               ORDER BY bm25(change_text, 2.0, 1.0, 0.5) LIMIT ?""",
            (expression, limit),
        )
        return [int(str(row[0])) for row in rows]

    def titles_without_vector(self, limit: int) -> list[tuple[str, str]]:
        """``(vector key, title)`` of at most ``limit`` distinct titles of changes whose vector is missing."""
        rows = self._rows(
            """SELECT vector_key, title FROM changes WHERE vector_key NOT IN (SELECT key FROM vectors)
               GROUP BY vector_key LIMIT ?""",
            (limit,),
        )
        return [(str(key), str(title)) for key, title in rows]
