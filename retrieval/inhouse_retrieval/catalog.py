"""The catalog: one SQLite file that is the truth about what is indexed. The vector store only mirrors it.

It holds the files as last seen, their chunks with a full-text index over them, and every vector ever paid
for, keyed by what was embedded and by which encoder. Each method is one transaction, so a process killed at
any point leaves a whole catalog behind. Not thread-safe: its owner holds a lock.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inhouse_retrieval import pull_request_tables
from inhouse_retrieval.chunking import CHUNKER_VERSION, Chunk
from inhouse_retrieval.errors import InhouseError, StateUnwritable
from inhouse_retrieval.history import HistoryChange
from inhouse_retrieval.secrets import redactions_in
from inhouse_retrieval.terms import index_terms
from inhouse_retrieval.within import EVERYWHERE, Within

_log = logging.getLogger(__name__)

MIGRATIONS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE files (
        id INTEGER PRIMARY KEY,
        path TEXT NOT NULL UNIQUE,
        blob_id TEXT NOT NULL,
        skipped TEXT
    );
    CREATE TABLE chunks (
        id INTEGER PRIMARY KEY,
        file_id INTEGER NOT NULL REFERENCES files (id),
        start_line INTEGER NOT NULL,
        end_line INTEGER NOT NULL,
        header TEXT NOT NULL,
        text TEXT NOT NULL,
        symbols TEXT NOT NULL,
        vector_key TEXT NOT NULL
    );
    CREATE INDEX chunks_by_file ON chunks (file_id);
    CREATE INDEX chunks_by_vector ON chunks (vector_key);
    CREATE VIRTUAL TABLE full_text USING fts5 (path, symbols, body, tokenize = 'porter unicode61');
    CREATE TABLE vectors (key TEXT PRIMARY KEY, vector BLOB NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE mirrored (key TEXT PRIMARY KEY) WITHOUT ROWID;
    """,
    """
    CREATE VIRTUAL TABLE path_text USING fts5 (path, tokenize = 'porter unicode61');
    INSERT INTO meta VALUES ('encoder', '') ON CONFLICT (key) DO UPDATE SET value = '';
    CREATE TABLE symbols (
        name TEXT NOT NULL,
        chunk_id INTEGER NOT NULL,
        PRIMARY KEY (name, chunk_id)
    ) WITHOUT ROWID;
    CREATE INDEX symbols_by_chunk ON symbols (chunk_id);
    CREATE TABLE changes (
        id INTEGER PRIMARY KEY,
        commit_id TEXT NOT NULL,
        number INTEGER,
        title TEXT NOT NULL,
        files TEXT NOT NULL,
        renamed TEXT NOT NULL,
        vector_key TEXT NOT NULL
    );
    CREATE VIRTUAL TABLE change_text USING fts5 (title, body, paths, tokenize = 'porter unicode61');
    """,
    """
    ALTER TABLE changes ADD COLUMN landed INTEGER NOT NULL DEFAULT 0;
    DELETE FROM meta WHERE key = 'history';
    """,
    pull_request_tables.SCHEMA,
    # Row numbers of trigrams and nothing else: three quarters of the text's own size, a third of what positions take.
    """
    CREATE VIRTUAL TABLE trigrams USING fts5 (
        text, tokenize = 'trigram', detail = none, content = 'chunks', content_rowid = 'id'
    );
    INSERT INTO trigrams (rowid, text) SELECT id, text FROM chunks;
    """,
)
"""Entry n takes the schema from version n to n + 1. Entries are added, never changed. An empty ``encoder`` has every
file cut again, whose vectors are kept; no ``history`` has the changes read again."""

_SPARE_VECTORS = 20_000
"""Vectors kept beyond those in use, so that switching back to a branch costs nothing (16 MB at 384
dimensions)."""

_LONGEST_DESCRIPTION = 2_000
_QUALIFIER = re.compile(r"\.|::|#|\\")

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk with where it is stored; ``blob_id`` is that of the file it was cut from."""

    id: int
    blob_id: str
    chunk: Chunk
    vector_key: str


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


class CatalogCorrupt(Exception):
    """The file is not a catalog any more. Its owner sets it aside and builds a new one."""


def vector_key(encoder: str, chunk: Chunk) -> str:
    """Names the vector of ``chunk``: one text under one header is embedded once by each encoder."""
    told = f"{encoder}\0{CHUNKER_VERSION}\0{chunk.embedded}".encode()
    return hashlib.blake2b(told, digest_size=20).hexdigest()


def title_key(encoder: str, title: str) -> str:
    """Names the vector of a change's title."""
    return hashlib.blake2b(f"{encoder}\0title\0{title}".encode(), digest_size=20).hexdigest()


class Catalog:
    """An open catalog file.

    Raises:
        CatalogCorrupt: on opening or later, from any method.
        StateUnwritable: on opening or later, when the disk is full or the file read-only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _translated(path):
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise
        self.pull_requests = pull_request_tables.PullRequestTables(self._rows, self._writing)

    @classmethod
    def open_or_rebuild(cls, path: Path) -> tuple[Catalog, bool]:
        """The catalog at ``path``; a corrupt one is set aside first. The flag tells whether that happened."""
        try:
            return cls(path), False
        except CatalogCorrupt as error:
            _log.warning("the catalog is corrupt and is rebuilt: %s", error)
            set_aside(path)
            return cls(path), True

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise InhouseError(
                "This repository's index was made by a newer inhouse.",
                f"Update inhouse, or remove {self.path.parent} to index again.",
            )
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
            self.set_meta("closed", "1")
        self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with _translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        with _translated(self.path):
            return self._db.execute(sql, values).fetchall()

    # -- facts -----------------------------------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        """A fact by name, or ``None``."""
        rows = self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def set_meta(self, key: str, value: str) -> None:
        """Remember a fact."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def files(self) -> dict[str, str]:
        """Path -> blob id of every file as last seen, also of those that turned out not to be text."""
        return {str(path): str(blob) for path, blob in self._rows("SELECT path, blob_id FROM files")}

    def files_below(self, paths: Sequence[str]) -> dict[str, str]:
        """Path -> blob id of the files at and below ``paths``."""
        seen, values = Within(tuple(paths)).condition("path")
        return {
            str(path): str(blob) for path, blob in self._rows(f"SELECT path, blob_id FROM files WHERE {seen}", values)
        }

    def sizes(self) -> tuple[int, int]:
        """Indexed files, and chunks."""
        row = self._rows("SELECT (SELECT count(*) FROM files WHERE skipped IS NULL), (SELECT count(*) FROM chunks)")[0]
        return int(str(row[0])), int(str(row[1]))

    def skipped(self) -> list[tuple[str, str]]:
        """``(path, reason)`` of the files that turned out not to be text when they were read."""
        rows = self._rows("SELECT path, skipped FROM files WHERE skipped IS NOT NULL ORDER BY path")
        return [(str(path), str(reason)) for path, reason in rows]

    def redactions(self) -> list[tuple[str, int, str]]:
        """``(path, line, kind)`` of what was taken out of the indexed files."""
        rows = self._rows(
            "SELECT path, start_line, text FROM chunks JOIN files ON files.id = file_id WHERE text LIKE '%[REDACTED %'"
        )
        return sorted(
            {
                (str(path), int(str(start)) + found.line - 1, found.kind)
                for path, start, text in rows
                for found in redactions_in(str(text))
            }
        )

    def counts(self) -> tuple[int, int, int]:
        """Indexed files, chunks, and distinct chunks that have no vector yet."""
        row = self._rows(
            """SELECT (SELECT count(*) FROM files WHERE skipped IS NULL), (SELECT count(*) FROM chunks),
               (SELECT count(DISTINCT vector_key) FROM chunks WHERE vector_key NOT IN (SELECT key FROM
               vectors))"""
        )[0]
        return int(str(row[0])), int(str(row[1])), int(str(row[2]))

    # -- files and chunks ------------------------------------------------------------------------------------

    def replace(self, encoder: str, documents: Iterable[tuple[str, str, Sequence[Chunk] | str]]) -> None:
        """Put ``(path, blob id, chunks or the reason for having none)`` in place of what was known of each
        path."""
        with self._writing() as db:
            for path, blob_id, content in documents:
                _put(db, encoder, path, blob_id, content)

    def remove(self, paths: Iterable[str]) -> None:
        """Forget files that are gone. Their vectors stay in the cache."""
        with self._writing() as db:
            for path in paths:
                _drop(db, path)

    def chunks(self, ids: Sequence[int]) -> dict[int, StoredChunk]:
        """Chunks by id; unknown ids are left out."""
        rows = self._rows(
            """SELECT c.id, f.blob_id, f.path, c.start_line, c.end_line, c.text, c.header, c.symbols,
            c.vector_key
               FROM chunks c JOIN files f ON f.id = c.file_id
               WHERE c.id IN (SELECT value FROM json_each(?))""",
            (json.dumps(list(ids)),),
        )
        return {row[0]: _stored(row) for row in rows if isinstance(row[0], int)}

    # -- vectors ---------------------------------------------------------------------------------------------

    def without_vector(self, limit: int) -> list[tuple[str, str]]:
        """``(vector key, text to embed)`` of at most ``limit`` distinct chunks whose vector is missing."""
        rows = self._rows(
            """SELECT vector_key, header || char(10) || text FROM chunks
               WHERE vector_key NOT IN (SELECT key FROM vectors) GROUP BY vector_key LIMIT ?""",
            (limit,),
        )
        return [(str(key), str(text)) for key, text in rows]

    def titles_without_vector(self, limit: int) -> list[tuple[str, str]]:
        """``(vector key, title)`` of at most ``limit`` distinct titles of changes whose vector is missing."""
        rows = self._rows(
            """SELECT vector_key, title FROM changes WHERE vector_key NOT IN (SELECT key FROM vectors)
               GROUP BY vector_key LIMIT ?""",
            (limit,),
        )
        return [(str(key), str(title)) for key, title in rows]

    def add_vectors(self, keys: Sequence[str], vectors: Vectors) -> None:
        """Keep vectors, [len(keys), dimension], in half precision (an error of 0.0005 in a cosine)."""
        now = time.time()
        with self._writing() as db:
            db.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)",
                [(key, row.astype("<f2").tobytes(), now) for key, row in zip(keys, vectors, strict=True)],
            )

    def vectors(self, keys: Sequence[str]) -> dict[str, Vectors]:
        """Cached vectors by key; unknown keys are left out."""
        rows = self._rows(
            "SELECT key, vector FROM vectors WHERE key IN (SELECT value FROM json_each(?))",
            (json.dumps(list(keys)),),
        )
        return {
            str(key): np.frombuffer(blob, "<f2").astype(np.float32) for key, blob in rows if isinstance(blob, bytes)
        }

    def prune_vectors(self) -> None:
        """Drop the longest unused vectors beyond :data:`_SPARE_VECTORS` spare ones."""
        with self._writing() as db:
            db.execute(
                """DELETE FROM vectors WHERE key IN (
                     SELECT key FROM vectors WHERE key NOT IN (SELECT vector_key FROM chunks)
                     AND key NOT IN (SELECT vector_key FROM changes)
                     AND key NOT IN (SELECT vector_key FROM pull_request_chunks)
                     ORDER BY used DESC LIMIT -1 OFFSET ?)""",
                (_SPARE_VECTORS,),
            )

    # -- the mirror in the vector store ----------------------------------------------------------------------

    def to_mirror(self) -> tuple[list[str], list[str]]:
        """Vector keys that the vector store lacks, and those that it should drop."""
        add = self._rows(
            """SELECT DISTINCT vector_key FROM chunks WHERE vector_key IN (SELECT key FROM vectors)
               AND vector_key NOT IN (SELECT key FROM mirrored)"""
        )
        drop = self._rows("SELECT key FROM mirrored WHERE key NOT IN (SELECT vector_key FROM chunks)")
        return [str(row[0]) for row in add], [str(row[0]) for row in drop]

    def mirrored(self) -> int:
        """How many records the vector store holds if it lost none."""
        return int(str(self._rows("SELECT count(*) FROM mirrored")[0][0]))

    def not_mirrored(self, keys: Sequence[str]) -> list[str]:
        """Those of ``keys`` that the vector store lacks."""
        rows = self._rows(
            "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT key FROM mirrored)", (json.dumps(list(keys)),)
        )
        return [str(row[0]) for row in rows]

    def unused(self, keys: Sequence[str]) -> list[str]:
        """Those of ``keys`` that the vector store holds and no chunk has any more."""
        rows = self._rows(
            """SELECT key FROM mirrored WHERE key IN (SELECT value FROM json_each(?))
               AND key NOT IN (SELECT vector_key FROM chunks)""",
            (json.dumps(list(keys)),),
        )
        return [str(row[0]) for row in rows]

    def is_mirrored(self) -> bool:
        """Whether the vector store holds any record, told without counting them."""
        return bool(self._rows("SELECT 1 FROM mirrored LIMIT 1"))

    def note_mirrored(self, added: Sequence[str] = (), dropped: Sequence[str] = ()) -> None:
        """The vector store acknowledged these changes."""
        with self._writing() as db:
            db.executemany("INSERT OR IGNORE INTO mirrored VALUES (?)", [(key,) for key in added])
            db.executemany("DELETE FROM mirrored WHERE key = ?", [(key,) for key in dropped])

    def forget_mirror(self) -> None:
        """The vector store was lost: everything has to be mirrored again."""
        with self._writing() as db:
            db.execute("DELETE FROM mirrored")

    # -- history ---------------------------------------------------------------------------------------------

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
            "SELECT id, commit_id, landed, number, title, files, renamed, vector_key FROM changes ORDER BY id DESC"
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

    def match_changes(self, expression: str, limit: int) -> list[int]:
        """Change ids for an FTS5 expression, best first: BM25, the title above the description above the paths."""
        rows = self._rows(
            """SELECT rowid FROM change_text WHERE change_text MATCH ?
               ORDER BY bm25(change_text, 2.0, 1.0, 0.5) LIMIT ?""",
            (expression, limit),
        )
        return [int(str(row[0])) for row in rows]

    # -- search ----------------------------------------------------------------------------------------------

    def match_paths(self, expression: str, limit: int, within: Within = EVERYWHERE) -> list[str]:
        """Paths of files for an FTS5 expression, best first by BM25."""
        seen, paths = within.condition("f.path")
        rows = self._rows(
            f"""SELECT f.path FROM path_text JOIN files f ON f.id = path_text.rowid
               WHERE path_text MATCH ? AND {seen} ORDER BY bm25(path_text), f.path LIMIT ?""",
            (expression, *paths, limit),
        )
        return [str(row[0]) for row in rows]

    def defining(self, names: Sequence[str], within: Within = EVERYWHERE) -> list[int]:
        """Ids of the chunks in which one of ``names`` is defined, the ones that define most of them first."""
        seen, paths = _chunk_condition("chunk_id", within)
        rows = self._rows(
            f"""SELECT chunk_id FROM symbols WHERE name IN (SELECT value FROM json_each(?)) AND {seen}
               GROUP BY chunk_id ORDER BY count(*) DESC, chunk_id""",
            (json.dumps(list(names)), *paths),
        )
        return [int(str(row[0])) for row in rows]

    def paths_defining(self, name: str) -> list[str]:
        """Paths of the files in which ``name`` is defined."""
        rows = self._rows(
            """SELECT DISTINCT f.path FROM symbols s JOIN chunks c ON c.id = s.chunk_id
               JOIN files f ON f.id = c.file_id WHERE s.name = ?""",
            (name,),
        )
        return [str(row[0]) for row in rows]

    def paths_containing(self, text: str) -> list[str]:
        """Paths of the files in which ``text`` occurs, upper or lower case."""
        needle = trigram_expression(text)
        if needle is None:
            rows = self._rows(
                """SELECT DISTINCT f.path FROM chunks c JOIN files f ON f.id = c.file_id
                   WHERE instr(lower(c.text), lower(?)) ORDER BY f.path""",
                (text,),
            )
        else:
            rows = self._rows(
                """SELECT DISTINCT f.path FROM trigrams JOIN chunks c ON c.id = trigrams.rowid
                   JOIN files f ON f.id = c.file_id
                   WHERE trigrams MATCH ? AND instr(lower(c.text), lower(?)) ORDER BY f.path""",
                (needle, text),
            )
        return [str(row[0]) for row in rows]

    def living(self, paths: Iterable[str], within: Within = EVERYWHERE) -> frozenset[str]:
        """Those of ``paths`` that have chunks."""
        seen, values = within.condition("path")
        rows = self._rows(
            f"""SELECT path FROM files
                WHERE path IN (SELECT value FROM json_each(?)) AND skipped IS NULL AND {seen}""",
            (json.dumps(list(paths)), *values),
        )
        return frozenset(str(row[0]) for row in rows)

    def paths(self) -> frozenset[str]:
        """Paths of the files that have chunks."""
        return frozenset(str(row[0]) for row in self._rows("SELECT path FROM files WHERE skipped IS NULL"))

    def match(self, expression: str, limit: int, within: Within = EVERYWHERE) -> list[int]:
        """Chunk ids for an FTS5 expression, best first: BM25, path and symbols weighted above the body."""
        seen, paths = _chunk_condition("rowid", within)
        rows = self._rows(
            f"""SELECT rowid FROM full_text WHERE full_text MATCH ? AND {seen}
               ORDER BY bm25(full_text, 3.0, 2.0, 1.0) LIMIT ?""",
            (expression, *paths, limit),
        )
        return [row[0] for row in rows if isinstance(row[0], int)]

    def containing(self, text: str, limit: int, within: Within = EVERYWHERE) -> list[int]:
        """Ids of chunks in which ``text`` occurs, upper or lower case, at least three characters long."""
        if (needle := trigram_expression(text)) is None:
            return []
        seen, paths = _chunk_condition("c.id", within)
        rows = self._rows(
            f"""SELECT c.id FROM trigrams JOIN chunks c ON c.id = trigrams.rowid
               WHERE trigrams MATCH ? AND instr(lower(c.text), lower(?)) AND {seen} ORDER BY c.id LIMIT ?""",
            (needle, text, *paths, limit),
        )
        return [row[0] for row in rows if isinstance(row[0], int)]

    def vector_keys(self, within: Within, limit: int) -> list[str]:
        """Vector keys of at most ``limit`` distinct chunks of the files there."""
        seen, paths = within.condition("path")
        rows = self._rows(
            f"""SELECT DISTINCT vector_key FROM chunks WHERE file_id IN (SELECT id FROM files WHERE {seen}) LIMIT ?""",
            (*paths, limit),
        )
        return [str(row[0]) for row in rows]

    def chunks_of_vectors(self, keys: Sequence[str], within: Within = EVERYWHERE) -> dict[str, list[int]]:
        """Vector key -> ids of the chunks that it stands for."""
        seen, paths = _chunk_condition("id", within)
        rows = self._rows(
            f"""SELECT vector_key, id FROM chunks
               WHERE vector_key IN (SELECT value FROM json_each(?)) AND {seen} ORDER BY id""",
            (json.dumps(list(keys)), *paths),
        )
        found: dict[str, list[int]] = {}
        for key, chunk_id in rows:
            if isinstance(chunk_id, int):
                found.setdefault(str(key), []).append(chunk_id)
        return found

    def chunks_of_path(self, path: str) -> list[int]:
        """Ids of the chunks of one file."""
        rows = self._rows("SELECT c.id FROM chunks c JOIN files f ON f.id = c.file_id WHERE f.path = ?", (path,))
        return [row[0] for row in rows if isinstance(row[0], int)]

    @contextmanager
    def pretending(self, encoder: str, documents: Mapping[str, tuple[str, Sequence[Chunk]] | None]) -> Iterator[None]:
        """Within the block, files read as given (``None``: gone). Nothing is kept afterwards.

        An open transaction is rolled back at the end, so unsaved text is ranked with the real statistics of
        the full-text index and never reaches the disk.
        """
        if not documents:
            yield
            return
        with _translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for path, content in documents.items():
                    if content is None:
                        _drop(self._db, path)
                    else:
                        _put(self._db, encoder, path, *content)
                yield
            finally:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")


def _chunk_condition(column: str, within: Within) -> tuple[str, list[str]]:
    """A condition on the id of a chunk: its file lies within."""
    if within.everywhere:
        return "1", []
    seen, paths = within.condition("path")
    # The sign keeps SQLite from looking each chunk up by its id, for which FTS5 searches once each: 3.8 s instead of
    # 0.015 s for 10,000 chunks.
    return f"+{column} IN (SELECT id FROM chunks WHERE file_id IN (SELECT id FROM files WHERE {seen}))", paths


def _put(db: sqlite3.Connection, encoder: str, path: str, blob_id: str, content: Sequence[Chunk] | str) -> None:
    _drop(db, path)
    reason = content if isinstance(content, str) else None
    file_id = db.execute(
        "INSERT INTO files (path, blob_id, skipped) VALUES (?, ?, ?)", (path, blob_id, reason)
    ).lastrowid
    if isinstance(content, str):
        return
    db.execute("INSERT INTO path_text (rowid, path) VALUES (?, ?)", (file_id, index_terms(path)))
    for chunk in content:
        chunk_id = db.execute(
            """INSERT INTO chunks (file_id, start_line, end_line, header, text, symbols, vector_key)
               VALUES (?, ?, ?, ?, ?, ?, ?)""",
            (
                file_id,
                chunk.start_line,
                chunk.end_line,
                chunk.header,
                chunk.text,
                "\n".join(chunk.symbols),
                vector_key(encoder, chunk),
            ),
        ).lastrowid
        db.execute(
            "INSERT INTO full_text (rowid, path, symbols, body) VALUES (?, ?, ?, ?)",
            (
                chunk_id,
                index_terms(path),
                index_terms(" ".join([chunk.header, *chunk.symbols])),
                index_terms(chunk.text),
            ),
        )
        db.execute("INSERT INTO trigrams (rowid, text) VALUES (?, ?)", (chunk_id, chunk.text))
        db.executemany(
            "INSERT OR IGNORE INTO symbols VALUES (?, ?)", [(name, chunk_id) for name in symbol_names(chunk.symbols)]
        )


def trigram_expression(text: str) -> str | None:
    """What all texts with ``text`` in them match in the table of trigrams; ``None`` where it is too short for that."""
    trigrams = {text[at : at + 3] for at in range(len(text) - 2)}
    if not trigrams or "\0" in text:  # which would end the expression
        return None
    return " AND ".join('"' + trigram.replace('"', '""') + '"' for trigram in sorted(trigrams))


def symbol_names(symbols: Iterable[str]) -> set[str]:
    """Names by which definitions are looked for: as written, and the last part of a qualified one."""
    found: set[str] = set()
    for symbol in symbols:
        found |= {symbol, _QUALIFIER.split(symbol)[-1]}
    return found


def _drop(db: sqlite3.Connection, path: str) -> None:
    ids = "SELECT c.id FROM chunks c JOIN files f ON f.id = c.file_id WHERE f.path = ?"
    db.execute(
        f"INSERT INTO trigrams (trigrams, rowid, text) SELECT 'delete', id, text FROM chunks WHERE id IN ({ids})",
        (path,),
    )
    db.execute(f"DELETE FROM full_text WHERE rowid IN ({ids})", (path,))
    db.execute(f"DELETE FROM symbols WHERE chunk_id IN ({ids})", (path,))
    db.execute("DELETE FROM path_text WHERE rowid IN (SELECT id FROM files WHERE path = ?)", (path,))
    db.execute(
        f"UPDATE vectors SET used = ? WHERE key IN (SELECT vector_key FROM chunks WHERE id IN ({ids}))",
        (time.time(), path),
    )
    db.execute("DELETE FROM chunks WHERE file_id IN (SELECT id FROM files WHERE path = ?)", (path,))
    db.execute("DELETE FROM files WHERE path = ?", (path,))


def _stored(row: tuple[object, ...]) -> StoredChunk:
    chunk_id, blob, path, start, end, text, header, symbols, key = row
    names = tuple(name for name in str(symbols).split("\n") if name)
    chunk = Chunk(str(path), int(str(start)), int(str(end)), str(text), str(header), names)
    return StoredChunk(int(str(chunk_id)), str(blob), chunk, str(key))


def set_aside(path: Path) -> None:
    """Move a corrupt catalog out of the way (one is kept, for a look) with its side files."""
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").replace(f"{path}.corrupt{suffix}")


_FULL = ("disk is full", "disk i/o error", "readonly", "read-only", "unable to open")


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
