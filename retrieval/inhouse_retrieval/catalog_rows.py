"""A file and its chunks as rows of the catalog's tables, and the names under which they are found there."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from inhouse_retrieval.chunking import CHUNKER_VERSION, Chunk
from inhouse_retrieval.terms import index_terms

_QUALIFIER = re.compile(r"\.|::|#|\\")


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk with where it is stored; ``blob_id`` is that of the file it was cut from."""

    id: int
    blob_id: str
    chunk: Chunk
    vector_key: str


def vector_key(encoder: str, chunk: Chunk) -> str:
    """Names the vector of ``chunk``: one text under one header is embedded once by each encoder."""
    told = f"{encoder}\0{CHUNKER_VERSION}\0{chunk.embedded}".encode()
    return hashlib.blake2b(told, digest_size=20).hexdigest()


def put_file(db: sqlite3.Connection, encoder: str, path: str, blob_id: str, content: Sequence[Chunk] | str) -> None:
    """Put a file's chunks, or the reason for having none, in place of what was known of its path."""
    drop_file(db, path)
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


def drop_file(db: sqlite3.Connection, path: str) -> None:
    """Forget a file. The vectors of its chunks stay, and are the last to have been used."""
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


def stored_chunk(row: tuple[object, ...]) -> StoredChunk:
    """A chunk from its id, blob id, path, first and last line, text, header, symbols and vector key."""
    chunk_id, blob, path, start, end, text, header, symbols, key = row
    names = tuple(name for name in str(symbols).split("\n") if name)
    chunk = Chunk(str(path), int(str(start)), int(str(end)), str(text), str(header), names)
    return StoredChunk(int(str(chunk_id)), str(blob), chunk, str(key))


def symbol_names(symbols: Iterable[str]) -> set[str]:
    """Names by which definitions are looked for: as written, and the last part of a qualified one."""
    found: set[str] = set()
    for symbol in symbols:
        found |= {symbol, _QUALIFIER.split(symbol)[-1]}
    return found


def trigram_expression(text: str) -> str | None:
    """What all texts with ``text`` in them match in the table of trigrams; ``None`` where it is too short for that."""
    trigrams = {text[at : at + 3] for at in range(len(text) - 2)}
    if not trigrams or "\0" in text:  # which would end the expression
        return None
    return " AND ".join('"' + trigram.replace('"', '""') + '"' for trigram in sorted(trigrams))
