"""A piece of the repository that a search found: what passes from retrieval to every other room."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passage:
    """Lines ``start_line`` to ``end_line`` (1-based, inclusive) of ``path``.

    Attributes:
        path: relative to the repository root, with forward slashes.
        text: the lines themselves, without header.
        source: ``"code"``, ``"wiki"`` or ``"pull_request"``.
        blob_id: git blob id of the content these lines were read from.
        commit: HEAD when the passage was indexed.
        score: reciprocal-rank-fusion score; only its order has a meaning.
        legs: names of the searches that found it, such as ``("dense", "lexical")``.
    """

    path: str
    start_line: int
    end_line: int
    text: str
    source: str
    blob_id: str
    commit: str
    score: float
    legs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Passages, best first, and how fresh they are.

    Attributes:
        index_commit: HEAD at the last refresh.
        pending: files that changed since and are not indexed yet.
    """

    passages: tuple[Passage, ...]
    index_commit: str
    pending: int
