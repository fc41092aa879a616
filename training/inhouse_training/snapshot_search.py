"""A throw-away search over one commit: what evaluation retrieves from, so that it sees the past only.

The product's index holds the present, in which the held-out changes are merged already; searching it would
hand the model the answer. This one is built in memory from the training snapshot and forgotten. It is
lexical (BM25 over the same words as the product's own full-text index), since it must be ready in a second
or two and is used for a few dozen questions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Protocol

from inhouse_retrieval import Passage, Repository, SkippedFile, index_terms, match_expression

WINDOW_LINES = 16
"""Short, so that a passage or two fit the prompt of the smallest recipe."""


class Retriever(Protocol):
    """Finds passages for a question."""

    def __call__(self, query: str, limit: int) -> Sequence[Passage]:
        """The best passages, best first."""


class SnapshotSearch:
    """BM25 (SQLite FTS5) over windows of the files of one commit. Callable as a :class:`Retriever`."""

    def __init__(self, repository: Repository, commit: str) -> None:
        self._commit = commit
        self._windows: list[tuple[str, int, str, str]] = []
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute("CREATE VIRTUAL TABLE windows USING fts5(path, body, content='')")
        for item in repository.iter_texts(repository.snapshot(commit)):
            if not isinstance(item, SkippedFile):
                file, text = item
                self._add(file.path, file.blob_id, text)

    def _add(self, path: str, blob_id: str, text: str) -> None:
        lines = text.split("\n")
        for start in range(0, len(lines), WINDOW_LINES):
            body = "\n".join(lines[start : start + WINDOW_LINES])
            if not body.strip():
                continue
            self._windows.append((path, start + 1, body, blob_id))
            self._database.execute(
                "INSERT INTO windows(rowid, path, body) VALUES (?, ?, ?)",
                (len(self._windows), index_terms(path), index_terms(body)),
            )

    def __call__(self, query: str, limit: int) -> list[Passage]:
        """The best windows, best first; none when no word of the query occurs."""
        expression = match_expression(query)
        if expression is None:
            return []
        found = self._database.execute(
            "SELECT rowid, bm25(windows, 4.0, 1.0) AS rank FROM windows WHERE windows MATCH ?"
            " ORDER BY rank, rowid LIMIT ?",
            (expression, limit),
        )
        passages = []
        for rowid, rank in found:
            path, start, body, blob_id = self._windows[rowid - 1]
            end = start + body.count("\n")
            passages.append(Passage(path, start, end, body, "code", blob_id, self._commit, -float(rank), ("lexical",)))
        return passages

    def close(self) -> None:
        """Forget the index."""
        self._database.close()
