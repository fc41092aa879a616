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
        blob_id: git blob id of the content these lines were read from; empty for a pull request.
        commit: HEAD when the passage was indexed.
        score: fusion score; only its order has a meaning.
        legs: names of the searches that found its file, such as ``("dense", "lexical")``.
        changes: past changes that spoke for its file, such as ``"#12 Retry payments"``, the nearest first; for a pull
            request, itself.
        updated: for a pull request, the day it was merged, ``"2024-05-01"``; for a wiki page, the day it was last
            changed, or ``"before 2024-05-01"``, the day of the oldest change known, when none touched it; empty where
            nothing is known.
        newer_code: for a wiki page, the path of code that it describes and that changed after it.
        newer_code_updated: the day of that change.
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
    changes: tuple[str, ...] = ()
    updated: str = ""
    newer_code: str = ""
    newer_code_updated: str = ""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Passages, best first, and how fresh they are.

    Attributes:
        index_commit: HEAD at the last refresh.
        pending: files that changed since and are not indexed yet.
        unembedded: chunks that only words can find so far, while their vectors are being computed.
        to_rerank: passages that the reranker was to look at; 0 where none is configured.
        reranked: those of them that it scored in time; the others keep their place.
    """

    passages: tuple[Passage, ...]
    index_commit: str
    pending: int
    unembedded: int = 0
    to_rerank: int = 0
    reranked: int = 0


def of_day(updated: str) -> str:
    """``"of 2024-05-01"`` or ``"from before 2024-05-01"``, after "a page"."""
    return f"from {updated}" if updated.startswith("before") else f"of {updated}"


def on_day(updated: str) -> str:
    """``"on 2024-05-01"`` or ``"before 2024-05-01"``, after "was changed"."""
    return updated if updated.startswith("before") else f"on {updated}"
