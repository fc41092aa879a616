"""The catalog: one SQLite file that is the truth about what is indexed. The vector store only mirrors it.

It holds the files as last seen, their chunks with a full-text index over them, and every vector ever paid
for, keyed by what was embedded and by which encoder. Each method is one transaction, so a process killed at
any point leaves a whole catalog behind. Not thread-safe: its owner holds a lock.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inhouse_retrieval.catalog_file import CatalogCorrupt, CatalogFile, set_aside
from inhouse_retrieval.catalog_rows import StoredChunk, drop_file, put_file, stored_chunk, trigram_expression
from inhouse_retrieval.chunking import Chunk
from inhouse_retrieval.history_tables import HistoryTables
from inhouse_retrieval.pull_request_tables import PullRequestTables
from inhouse_retrieval.secrets import redactions_in
from inhouse_retrieval.within import EVERYWHERE, Within

_log = logging.getLogger(__name__)

_SPARE_VECTORS = 20_000
"""Vectors kept beyond those in use, so that switching back to a branch costs nothing (16 MB at 384
dimensions)."""

Vectors = npt.NDArray[np.float32]


class Catalog:
    """An open catalog.

    Attributes:
        history: the tables of the changes that led here.
        pull_requests: the tables of merged pull requests.

    Args:
        read_only: another process may hold it and go on writing; nothing is changed here.

    Raises:
        CatalogCorrupt: on opening or later, from any method.
        StateUnwritable: on opening or later, when the disk is full or the file read-only.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self._file = CatalogFile(path, read_only)
        self._rows, self._writing = self._file.rows, self._file.writing
        self.history = HistoryTables(self._rows, self._writing)
        self.pull_requests = PullRequestTables(self._rows, self._writing)

    @classmethod
    def open_or_rebuild(cls, path: Path) -> tuple[Catalog, bool]:
        """The catalog at ``path``; a corrupt one is set aside first. The flag tells whether that happened."""
        try:
            return cls(path), False
        except CatalogCorrupt as error:
            _log.warning("the catalog is corrupt and is rebuilt: %s", error)
            set_aside(path)
            return cls(path), True

    def close(self) -> None:
        """Close the file. Calling it again does nothing."""
        self._file.close()

    def copy_to(self, path: Path) -> None:
        """Copy everything to a new file at ``path``, as it is at one moment, holding up nobody who writes."""
        self._file.copy_to(path)

    # -- facts -----------------------------------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        """A fact by name, or ``None``."""
        return self._file.meta(key)

    def set_meta(self, key: str, value: str) -> None:
        """Remember a fact."""
        self._file.set_meta(key, value)

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
                put_file(db, encoder, path, blob_id, content)

    def remove(self, paths: Iterable[str]) -> None:
        """Forget files that are gone. Their vectors stay in the cache."""
        with self._writing() as db:
            for path in paths:
                drop_file(db, path)

    def chunks(self, ids: Sequence[int]) -> dict[int, StoredChunk]:
        """Chunks by id; unknown ids are left out."""
        rows = self._rows(
            """SELECT c.id, f.blob_id, f.path, c.start_line, c.end_line, c.text, c.header, c.symbols,
            c.vector_key
               FROM chunks c JOIN files f ON f.id = c.file_id
               WHERE c.id IN (SELECT value FROM json_each(?))""",
            (json.dumps(list(ids)),),
        )
        return {row[0]: stored_chunk(row) for row in rows if isinstance(row[0], int)}

    # -- vectors ---------------------------------------------------------------------------------------------

    def without_vector(self, limit: int) -> list[tuple[str, str]]:
        """``(vector key, text to embed)`` of at most ``limit`` distinct chunks whose vector is missing."""
        rows = self._rows(
            """SELECT vector_key, header || char(10) || text FROM chunks
               WHERE vector_key NOT IN (SELECT key FROM vectors) GROUP BY vector_key LIMIT ?""",
            (limit,),
        )
        return [(str(key), str(text)) for key, text in rows]

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

    def mirrored_after(self, key: str, limit: int) -> list[str]:
        """The next keys of records that the vector store holds, in order."""
        rows = self._rows("SELECT key FROM mirrored WHERE key > ? ORDER BY key LIMIT ?", (key, limit))
        return [str(row[0]) for row in rows]

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
        with self._file.pretending() as db:
            for path, content in documents.items():
                if content is None:
                    drop_file(db, path)
                else:
                    put_file(db, encoder, path, *content)
            yield


def _chunk_condition(column: str, within: Within) -> tuple[str, list[str]]:
    """A condition on the id of a chunk: its file lies within."""
    if within.everywhere:
        return "1", []
    seen, paths = within.condition("path")
    # The sign keeps SQLite from looking each chunk up by its id, for which FTS5 searches once each: 3.8 s instead of
    # 0.015 s for 10,000 chunks.
    return f"+{column} IN (SELECT id FROM chunks WHERE file_id IN (SELECT id FROM files WHERE {seen}))", paths
