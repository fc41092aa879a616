"""Hybrid search: several legs rank files, their ranks are fused, and each file answers with its best passages.

The legs: ``dense`` (vectors of the chunks), ``lexical`` (BM25 over their words), ``path`` (BM25 over the path alone),
``history`` (past changes vote for the files they touched), ``definition`` (a name in the question is defined there) and
``literal`` (a text that the question quotes is written there). The last two have something to say about questions of
their kind alone: those that name code, and those that quote it or an error message.

A hit whose file changed since it was indexed is never returned: the file is cut again as it is now, those
chunks take part in the legs as if they were indexed, and the search repeats. A hit whose file is gone is
dropped.

A wiki page that is older than the code it describes comes behind that code, which is found with it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Protocol, TypeVar

from inhouse_retrieval.catalog import Catalog, Vectors
from inhouse_retrieval.catalog_rows import StoredChunk, vector_key
from inhouse_retrieval.chunking import Chunk
from inhouse_retrieval.history_votes import FOUND_BY_EACH, ChangeVotes
from inhouse_retrieval.literals import chunks_with, literals
from inhouse_retrieval.passage import Passage
from inhouse_retrieval.terms import identifiers, match_expression
from inhouse_retrieval.wiki import PAGE_SUFFIXES
from inhouse_retrieval.within import EVERYWHERE, Within

RRF_K = 5
"""Of Cormack, Clarke and Buettcher, "Reciprocal rank fusion outperforms Condorcet" (SIGIR 2009), who take 60 for
runs of a thousand documents. A repository has fewer files, and first ranks are worth more: 5 to 10 was best."""
_LEG_DEPTH = 5
"""Each leg looks at this many times the passages asked for, and at 100 chunks at least."""
_FURTHER = 0.3
"""What a file's next passage is worth, as a part of the one before: ten passages then come from nearly ten files."""
_PATHS = 100
_REASONS = 3
_BEHIND = 0.999
"""Puts a page right behind the code that it is compared with."""
_DEFINITIONS = 20

Document = tuple[str, Sequence[Chunk]]
"""Blob id and chunks of a file as it is now."""
UNCHANGED: Document = ("", ())
"""Stands for a file that is still what was indexed."""
Reread = Callable[[str, str], Document | None]
"""``(path, blob id indexed)`` -> :data:`UNCHANGED`, or what the file is now; ``None`` when it is gone or no
text."""
_DAY_S = 86_400
_Item = TypeVar("_Item", bound=Hashable)


class Pages(Protocol):
    """Which files are wiki pages, and when files were last changed."""

    def is_page(self, path: str) -> bool: ...
    def last_changed(self, path: str) -> int | None:
        """Seconds since 1970, or a moment before which it was; ``None`` when nothing says."""

    def is_untouched(self, path: str) -> bool:
        """Whether no change that is known touched a page, so that its moment is a bound."""

    def is_edited(self, path: str) -> bool:
        """Whether a page reads differently from its last commit."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What the first rank of each leg is worth; a leg of weight 0 is left out.

    The defaults were chosen on four repositories (httpx, gin, axum, pinia) and are reported on others.
    """

    dense: float = 0.75
    lexical: float = 1.0
    path: float = 0.5
    history: float = 1.25
    definition: float = 2.0
    literal: float = 4.0


@dataclass(frozen=True, slots=True)
class Query:
    """One search.

    Attributes:
        vector: unit vector of the question, ``None`` while there are no vectors.
        nearest: ``(vector key, cosine similarity)`` of the indexed chunks nearest to it, best first.
        within: the part of the repository that is searched; each leg ranks what lies there and nothing else.
    """

    text: str
    limit: int
    vector: Vectors | None = None
    nearest: Sequence[tuple[str, float]] = ()
    weights: Weights = Weights()
    within: Within = EVERYWHERE


def reciprocal_rank_fusion(
    legs: Mapping[str, Sequence[_Item]], weights: Mapping[str, float] | None = None, k: int = RRF_K
) -> list[tuple[_Item, float, tuple[str, ...]]]:
    """``(item, score, legs that found it)``, best first: each leg gives its weight / (k + rank) to what it found.

    Ties go to what was found by the earlier leg, then at the better rank, so the order never varies.
    """
    scores: dict[_Item, float] = defaultdict(float)
    names: dict[_Item, list[str]] = defaultdict(list)
    for name, items in legs.items():
        weight = weights[name] if weights is not None else 1.0
        for rank, item in enumerate(dict.fromkeys(items), start=1):
            scores[item] += weight / (k + rank)
            names[item].append(name)
    ranked = sorted(scores, key=lambda item: -scores[item])
    return [(item, scores[item], tuple(names[item])) for item in ranked]


def hybrid_search(
    catalog: Catalog,
    lock: AbstractContextManager[object],
    encoder_name: str,
    query: Query,
    votes: ChangeVotes,
    commit: str,
    overlay: dict[str, Document | None],
    reread: Reread,
    similarity: Callable[[Mapping[str, str]], Mapping[str, float]],
    pages: Pages,
) -> tuple[Passage, ...]:
    """The best passages for ``query``.

    Args:
        lock: held while the catalog is read.
        votes: the history, for its leg.
        overlay: files that read differently from what is indexed, unsaved buffers first of all; ``None`` is a
            file that is gone. Grows as stale hits are found.
        reread: says what became of an indexed file.
        similarity: vector key -> text to embed; gives the similarity to the question by key.
    """
    if match_expression(query.text) is None or query.limit < 1:
        return ()
    checked: set[str] = set(overlay)
    while True:
        similar = dict(query.nearest)
        if query.vector is not None and overlay:
            chunks = [chunk for document in overlay.values() if document is not None for chunk in document[1]]
            similar |= similarity({vector_key(encoder_name, chunk): chunk.embedded for chunk in chunks})
        with lock, catalog.pretending(encoder_name, overlay):
            hits = _behind_newer_code(catalog, _hits(catalog, query, votes, similar), query, pages)
        passages: list[Passage] = []
        stale = False
        for hit in hits:
            path = hit.stored.chunk.path
            if not query.within.holds(path):  # no leg finds it; nor would a new one that forgets to look
                continue
            if path not in checked:
                checked.add(path)
                now = reread(path, hit.stored.blob_id)
                if now is not UNCHANGED:
                    overlay[path] = now
                    stale = True
            passages.append(_passage(hit, commit, pages))
            if len(passages) == query.limit:
                break
        if not stale:
            return tuple(passages)


_PATH = re.compile(r"[\w.@-]+(?:/[\w.@-]+)+\.\w+")
"""A path as prose names it, from the root of the repository on."""


def leg_depth(limit: int) -> int:
    """How many chunks a leg looks at when ``limit`` passages are asked for."""
    return max(100, limit * _LEG_DEPTH)


@dataclass(frozen=True, slots=True)
class _Hit:
    stored: StoredChunk
    score: float
    legs: tuple[str, ...]
    changes: tuple[str, ...]
    newer_code: str = ""


def _hits(catalog: Catalog, query: Query, votes: ChangeVotes, similar: Mapping[str, float]) -> list[_Hit]:
    """Chunks, best first, by the fused score of their file, times :data:`_FURTHER` for each better chunk of it."""
    expression = match_expression(query.text) or ""
    depth = leg_depth(query.limit)
    by_chunk: dict[str, list[int]] = {}
    if similar:
        found = catalog.chunks_of_vectors(list(similar), query.within)
        best = sorted((key for key in similar if key in found), key=lambda key: -similar[key])
        by_chunk["dense"] = [chunk for key in best for chunk in found[key]][:depth]
    by_chunk["lexical"] = catalog.match(expression, depth, query.within)
    if quoted := literals(query.text):
        by_chunk["literal"] = chunks_with(quoted, lambda text: catalog.containing(text, depth, query.within))[:depth]
    if names := identifiers(query.text):
        by_chunk["definition"] = catalog.defining(names, query.within)[:depth]
    stored = catalog.chunks(sorted({chunk for chunks in by_chunk.values() for chunk in chunks}))
    legs: dict[str, list[str]] = {
        name: [stored[chunk].chunk.path for chunk in chunks if chunk in stored] for name, chunks in by_chunk.items()
    }
    legs["path"] = catalog.match_paths(expression, _PATHS, query.within)
    matched = catalog.history.match_changes(expression, FOUND_BY_EACH)
    voted = votes.votes(query.vector, matched, lambda paths: catalog.living(paths, query.within))
    legs["history"] = [vote.path for vote in voted]
    weights = {name: getattr(query.weights, name) for name in legs}
    ranked = reciprocal_rank_fusion({name: items for name, items in legs.items() if weights[name] > 0}, weights)

    chunks_of: dict[str, list[int]] = defaultdict(list)
    for chunk, _, _ in reciprocal_rank_fusion(
        {name: chunks for name, chunks in by_chunk.items() if weights[name] > 0}, weights
    ):
        if chunk in stored:
            chunks_of[stored[chunk].chunk.path].append(chunk)
    reasons = {vote.path: vote.changes[:_REASONS] for vote in voted}
    hits: list[_Hit] = []
    # A file of a lower rank cannot come before the first passages of those above it.
    for path, score, found_by in ranked[: query.limit]:
        chunks = chunks_of[path] or _first_chunk(catalog, path, stored)
        for number, chunk in enumerate(chunks):
            hits.append(_Hit(stored[chunk], score * _FURTHER**number, found_by, reasons.get(path, ())))
    return sorted(hits, key=lambda hit: -hit.score)


def _first_chunk(catalog: Catalog, path: str, stored: dict[int, StoredChunk]) -> list[int]:
    """Where a file begins: the passage of one that only its path or the history found."""
    ids = catalog.chunks_of_path(path)[:1]
    stored |= catalog.chunks(ids)
    return ids


def _behind_newer_code(catalog: Catalog, hits: list[_Hit], query: Query, pages: Pages) -> list[_Hit]:
    """The hits, each wiki page that is shown right behind the code that it names, where that changed later.

    The code is lifted to the page's place: a page that is found well leads to the code, however that itself was found.
    """
    newer: dict[str, StoredChunk] = {}
    for hit in hits[: query.limit]:
        path = hit.stored.chunk.path
        if (
            path not in newer
            and pages.is_page(path)
            and (code := _newer_code(catalog, hit.stored.chunk, pages, query.within))
        ):
            newer[path] = code
    if not newer:
        return hits
    lifted: dict[str, float] = {}
    for hit in hits:
        if (code := newer.get(hit.stored.chunk.path)) is not None:
            lifted[code.chunk.path] = max(hit.score, lifted.get(code.chunk.path, 0.0))
    found: list[_Hit] = []
    for hit in hits:
        path = hit.stored.chunk.path
        if path in newer:
            found.append(replace(hit, score=hit.score * _BEHIND, newer_code=newer[path].chunk.path))
        else:
            found.append(replace(hit, score=max(hit.score, lifted.pop(path, 0.0))))
    for code in newer.values():
        if (score := lifted.pop(code.chunk.path, None)) is not None:
            found.append(_Hit(code, score, ("described",), ()))
    return sorted(found, key=lambda hit: -hit.score)


def _newer_code(catalog: Catalog, page: Chunk, pages: Pages, within: Within) -> StoredChunk | None:
    """Code that the page names and that was changed after it: by what it defines, where most of the names are defined
    if there is more, or by its path."""
    written = pages.last_changed(page.path)
    if written is None:
        return None
    names = identifiers(page.text)
    ids = catalog.defining(names, within)[:_DEFINITIONS] if names else []
    for path in sorted(catalog.living(_PATH.findall(page.text), within)):
        ids += catalog.chunks_of_path(path)[:1]
    stored = catalog.chunks(ids)
    for chunk in (stored[chunk_id] for chunk_id in ids if chunk_id in stored):
        path = chunk.chunk.path
        changed = pages.last_changed(path)
        is_code = PurePosixPath(path).suffix.lower() not in PAGE_SUFFIXES
        if is_code and changed is not None and changed > written and not pages.is_edited(page.path):
            return chunk
    return None


def _passage(hit: _Hit, commit: str, pages: Pages) -> Passage:
    chunk, blob = hit.stored.chunk, hit.stored.blob_id
    is_page = pages.is_page(chunk.path)
    return Passage(
        chunk.path,
        chunk.start_line,
        chunk.end_line,
        chunk.text,
        "wiki" if is_page else "code",
        blob,
        commit,
        hit.score,
        hit.legs,
        hit.changes,
        updated=_page_day(pages, chunk.path) if is_page else "",
        newer_code=hit.newer_code,
        newer_code_updated=day_of(pages.last_changed(hit.newer_code)) if hit.newer_code else "",
    )


def _page_day(pages: Pages, path: str) -> str:
    written = pages.last_changed(path)
    if written is None or not pages.is_untouched(path):
        return day_of(written)
    if pages.is_edited(path):
        return ""  # that it is old is true of the committed page only
    following = day_of(written + _DAY_S)  # it may have been written on the day of the oldest change
    return f"before {following}" if following else ""


def day_of(seconds: int | None) -> str:
    """``"2024-05-01"`` for a time of git's, in seconds since 1970; empty when it is not known or no such day."""
    try:
        return datetime.fromtimestamp(seconds, UTC).date().isoformat() if seconds is not None else ""
    except (ValueError, OverflowError, OSError):  # git stores what a broken clock said
        return ""
