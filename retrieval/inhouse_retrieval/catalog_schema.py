"""The tables of the catalog, version by version."""

from __future__ import annotations

from inhouse_retrieval import pull_request_tables

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
