"""The catalog's tables of pull requests: each one's page, its chunks, and a full-text index over them.

They are tables of their own, so that what was said about the code never changes how the code ranks: BM25 counts words
over one table, and the nearest vectors are of one kind.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from inhouse_retrieval.chunking import Chunk
from inhouse_retrieval.terms import index_terms

SCHEMA = """
    CREATE TABLE pull_requests (
        number INTEGER PRIMARY KEY,
        landed INTEGER NOT NULL,
        content_id TEXT NOT NULL,
        text TEXT NOT NULL
    );
    CREATE TABLE pull_request_chunks (
        id INTEGER PRIMARY KEY,
        number INTEGER NOT NULL REFERENCES pull_requests (number),
        start_line INTEGER NOT NULL,
        end_line INTEGER NOT NULL,
        header TEXT NOT NULL,
        text TEXT NOT NULL,
        vector_key TEXT NOT NULL
    );
    CREATE INDEX pull_request_chunks_by_number ON pull_request_chunks (number);
    CREATE INDEX pull_request_chunks_by_vector ON pull_request_chunks (vector_key);
    CREATE VIRTUAL TABLE pull_request_text USING fts5 (header, body, tokenize = 'porter unicode61');
"""


@dataclass(frozen=True, slots=True)
class PageRow:
    """A page to keep.

    Attributes:
        landed: when it was merged, in seconds since 1970.
        content_id: names the page's text and how it is cut: the same name, nothing to do.
        chunks: each with the key of its vector.
    """

    number: int
    landed: int
    content_id: str
    text: str
    chunks: Sequence[tuple[Chunk, str]]


@dataclass(frozen=True, slots=True)
class PageChunk:
    """A chunk of a page, as it is stored; ``heading`` is the first line of the page."""

    id: int
    number: int
    landed: int
    start_line: int
    end_line: int
    text: str
    heading: str


class PullRequestTables:
    """The tables of an open catalog; it lends how to read and how to write. Errors are the catalog's."""

    def __init__(
        self,
        rows: Callable[[str, Sequence[object]], list[tuple[object, ...]]],
        writing: Callable[[], AbstractContextManager[sqlite3.Connection]],
    ) -> None:
        self._rows = rows
        self._writing = writing

    def content_ids(self) -> dict[int, str]:
        """Number -> content id of every page."""
        rows = self._rows("SELECT number, content_id FROM pull_requests", ())
        return {int(str(number)): str(content) for number, content in rows}

    def texts(self, numbers: Sequence[int] | None = None) -> dict[int, str]:
        """Number -> text of the pages, of all of them or of those named."""
        wanted, values = ("", ()) if numbers is None else (_NAMED, (json.dumps(list(numbers)),))
        return {
            int(str(n)): str(text) for n, text in self._rows(f"SELECT number, text FROM pull_requests{wanted}", values)
        }

    def sizes(self) -> dict[int, int]:
        """Number -> bytes of its page."""
        rows = self._rows("SELECT number, length(CAST(text AS BLOB)) FROM pull_requests", ())
        return {int(str(number)): int(str(size)) for number, size in rows}

    def put(self, pages: Iterable[PageRow]) -> None:
        """Keep pages in place of those of the same numbers."""
        with self._writing() as db:
            for page in pages:
                _drop(db, [page.number])
                db.execute(
                    "INSERT INTO pull_requests VALUES (?, ?, ?, ?)",
                    (page.number, page.landed, page.content_id, page.text),
                )
                for chunk, key in page.chunks:
                    row = db.execute(
                        """INSERT INTO pull_request_chunks (number, start_line, end_line, header, text, vector_key)
                           VALUES (?, ?, ?, ?, ?, ?)""",
                        (page.number, chunk.start_line, chunk.end_line, chunk.header, chunk.text, key),
                    ).lastrowid
                    db.execute(
                        "INSERT INTO pull_request_text (rowid, header, body) VALUES (?, ?, ?)",
                        (row, index_terms(chunk.header), index_terms(chunk.text)),
                    )

    def keep_newest(self, limit: int) -> None:
        """Forget all but the ``limit`` pages that were merged last."""
        rows = self._rows(
            "SELECT number FROM pull_requests ORDER BY landed DESC, number DESC LIMIT -1 OFFSET ?", (limit,)
        )
        self.remove([int(str(row[0])) for row in rows])

    def remove(self, numbers: Sequence[int]) -> None:
        """Forget pages. Their vectors stay in the cache."""
        if numbers:
            with self._writing() as db:
                _drop(db, numbers)

    def without_vector(self, limit: int) -> list[tuple[str, str]]:
        """``(vector key, text to embed)`` of at most ``limit`` distinct chunks whose vector is missing."""
        rows = self._rows(
            """SELECT vector_key, header || char(10) || text FROM pull_request_chunks
               WHERE vector_key NOT IN (SELECT key FROM vectors) GROUP BY vector_key LIMIT ?""",
            (limit,),
        )
        return [(str(key), str(text)) for key, text in rows]

    def vector_keys(self) -> list[tuple[int, str]]:
        """Chunk id and vector key of every chunk."""
        rows = self._rows("SELECT id, vector_key FROM pull_request_chunks ORDER BY id", ())
        return [(int(str(row)), str(key)) for row, key in rows]

    def match(self, expression: str, limit: int) -> list[int]:
        """Chunk ids for an FTS5 expression, best first: BM25, the title weighted above the rest."""
        rows = self._rows(
            """SELECT rowid FROM pull_request_text WHERE pull_request_text MATCH ?
               ORDER BY bm25(pull_request_text, 2.0, 1.0) LIMIT ?""",
            (expression, limit),
        )
        return [int(str(row[0])) for row in rows]

    def chunks(self, ids: Sequence[int]) -> Mapping[int, PageChunk]:
        """Chunks by id; unknown ids are left out."""
        return self._chunks("c.id", ids)

    def first_chunks(self, numbers: Sequence[int]) -> list[PageChunk]:
        """Where the pages of ``numbers`` begin, in that order; unknown numbers are left out."""
        first: dict[int, PageChunk] = {}
        for chunk in self._chunks("c.number", numbers).values():
            first.setdefault(chunk.number, chunk)
        return [first[number] for number in numbers if number in first]

    def _chunks(self, column: str, values: Sequence[int]) -> dict[int, PageChunk]:
        rows = self._rows(
            f"""SELECT c.id, c.number, p.landed, c.start_line, c.end_line, c.text,
                substr(p.text, 1, instr(p.text, char(10)) - 1)
                FROM pull_request_chunks c JOIN pull_requests p ON p.number = c.number
                WHERE {column} IN (SELECT value FROM json_each(?)) ORDER BY c.id""",
            (json.dumps(list(values)),),
        )
        found = (_stored(row) for row in rows)
        return {chunk.id: chunk for chunk in found}


def _stored(row: Sequence[object]) -> PageChunk:
    chunk_id, number, landed, start_line, end_line = (int(str(value)) for value in row[:5])
    return PageChunk(chunk_id, number, landed, start_line, end_line, str(row[5]), str(row[6]))


_NAMED = " WHERE number IN (SELECT value FROM json_each(?))"


def _drop(db: sqlite3.Connection, numbers: Sequence[int]) -> None:
    named = (json.dumps(list(numbers)),)
    ids = f"SELECT id FROM pull_request_chunks{_NAMED}"
    db.execute(f"DELETE FROM pull_request_text WHERE rowid IN ({ids})", named)
    db.execute(f"DELETE FROM pull_request_chunks{_NAMED}", named)
    db.execute(f"DELETE FROM pull_requests{_NAMED}", named)
