"""Hybrid search: a dense and a lexical leg, fused by rank, every hit checked against the work tree.

A hit whose file changed since it was indexed is never returned: the file is cut again as it is now, those
chunks take part in both legs as if they were indexed, and the search repeats. A hit whose file is gone is
dropped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from inhouse_retrieval.catalog import Catalog, StoredChunk, vector_key
from inhouse_retrieval.chunking import Chunk
from inhouse_retrieval.passage import Passage
from inhouse_retrieval.terms import match_expression

RRF_K = 60
"""Of Cormack, Clarke and Buettcher, "Reciprocal rank fusion outperforms Condorcet" (SIGIR 2009)."""
_LEG_DEPTH = 5
"""Each leg looks at this many times the passages asked for, and at 50 at least."""

Document = tuple[str, Sequence[Chunk]]
"""Blob id and chunks of a file as it is now."""
UNCHANGED: Document = ("", ())
"""Stands for a file that is still what was indexed."""
Reread = Callable[[str, str], Document | None]
"""``(path, blob id indexed)`` -> :data:`UNCHANGED`, or what the file is now; ``None`` when it is gone or no
text."""


def reciprocal_rank_fusion(
    legs: Mapping[str, Sequence[int]], k: int = RRF_K
) -> list[tuple[int, float, tuple[str, ...]]]:
    """``(item, score, legs that found it)``, best first: each leg gives 1 / (k + rank) to what it found.

    Ties go to what was found by the earlier leg, then at the better rank, so the order never varies.
    """
    scores: dict[int, float] = defaultdict(float)
    names: dict[int, list[str]] = defaultdict(list)
    for name, items in legs.items():
        for rank, item in enumerate(dict.fromkeys(items), start=1):
            scores[item] += 1 / (k + rank)
            names[item].append(name)
    ranked = sorted(scores, key=lambda item: -scores[item])
    return [(item, scores[item], tuple(names[item])) for item in ranked]


def hybrid_search(
    catalog: Catalog,
    lock: AbstractContextManager[object],
    encoder_name: str,
    question: str,
    limit: int,
    commit: str,
    overlay: dict[str, Document | None],
    reread: Reread,
    nearest: Sequence[tuple[str, float]] | None,
    similarity: Callable[[Mapping[str, str]], Mapping[str, float]],
) -> tuple[Passage, ...]:
    """The best ``limit`` passages for ``question``.

    Args:
        lock: held while the catalog is read.
        overlay: files that read differently from what is indexed, unsaved buffers first of all; ``None`` is a
            file that is gone. Grows as stale hits are found.
        reread: says what became of an indexed file.
        nearest: ``(vector key, cosine similarity)`` of the indexed chunks nearest to the question, best
            first; ``None`` while there are no vectors.
        similarity: vector key -> text to embed, of chunks in the overlay; gives their similarity by key.
    """
    expression = match_expression(question)
    if expression is None or limit < 1:
        return ()
    depth = leg_depth(limit)
    checked: set[str] = set(overlay)
    while True:
        similar = dict(nearest or ())
        if nearest is not None and overlay:
            chunks = [chunk for document in overlay.values() if document is not None for chunk in document[1]]
            similar |= similarity({vector_key(encoder_name, chunk): chunk.embedded for chunk in chunks})
        with lock, catalog.pretending(encoder_name, overlay):
            legs: dict[str, list[int]] = {}
            if similar:
                found = catalog.chunks_of_vectors(list(similar))
                best = sorted((key for key in similar if key in found), key=lambda key: -similar[key])
                legs["dense"] = [chunk for key in best for chunk in found[key]][:depth]
            legs["lexical"] = catalog.match(expression, depth)
            fused = reciprocal_rank_fusion(legs)
            stored = catalog.chunks([item for item, _, _ in fused])
        hits = [(stored[item], score, names) for item, score, names in fused if item in stored]
        passages: list[Passage] = []
        stale = False
        for hit, score, names in hits:
            path = hit.chunk.path
            if path not in checked:
                checked.add(path)
                now = reread(path, hit.blob_id)
                if now is not UNCHANGED:
                    overlay[path] = now
                    stale = True
            passages.append(_passage(hit, commit, score, names))
            if len(passages) == limit:
                break
        if not stale:
            return tuple(passages)


def leg_depth(limit: int) -> int:
    """How many chunks each leg looks at when ``limit`` passages are asked for."""
    return max(50, limit * _LEG_DEPTH)


def _passage(hit: StoredChunk, commit: str, score: float, legs: tuple[str, ...]) -> Passage:
    chunk = hit.chunk
    return Passage(chunk.path, chunk.start_line, chunk.end_line, chunk.text, "code", hit.blob_id, commit, score, legs)
