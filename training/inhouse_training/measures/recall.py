"""How much of its files an adapter knows by heart. That is memory, not quality: nothing here counts as better.

A file is opened in the words in which files are learned, its path first, and asked is how many of its first tokens a
greedy continuation writes before the first that is another. Nothing is generated for that: up to its first mistake a
continuation has the file's own tokens before it, so one forward pass over the file shows each of its choices.

Some openings anyone guesses, such as a licence or the usual imports. So the same is asked of files that were added
after the snapshot, which no adapter can know: what known files have beyond those is memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from inhouse_retrieval import Repository, redact

from ..documents import file_document
from ..engine import BASE, ScoredRow
from ..evaluation import CANDIDATE
from ..prompts import IGNORED, literal_ids, raw_row
from ..scoring import TokenScores
from . import LEAST_ITEMS, paired_difference, rounded
from .later_texts import LaterText

RECALL_TOKENS = 40
"""More than anyone writes by chance, and few enough that small files have them."""
MOST_FILES = 100
KNOWN_FILES = "known_files"
LATER_FILES = "later_files"
_CHARACTERS = RECALL_TOKENS * 32
"""A token is rarely longer."""


class TokenScorer(Protocol):
    """The part of an engine that shows what it would write at each token."""

    def score_tokens(self, rows: Sequence[ScoredRow], adapter: str = BASE) -> list[TokenScores]: ...


@dataclass(frozen=True, slots=True)
class Recall:
    """How much each adapter would write by heart.

    Attributes:
        prefixes: :data:`KNOWN_FILES` or :data:`LATER_FILES` -> adapter label -> for each file, how many of its first
            :data:`RECALL_TOKENS` tokens come before the first mistake.
    """

    prefixes: Mapping[str, Mapping[str, tuple[int, ...]]]

    def metrics(self) -> dict[str, Any]:
        """The mean exact prefix in tokens and the share of files that are exact to the end of it, by adapter."""
        found: dict[str, Any] = {"measures": "memory, not quality", "of_tokens": RECALL_TOKENS}
        for files, labels in self.prefixes.items():
            whole = {label: [each == RECALL_TOKENS for each in given] for label, given in labels.items()}
            found[files] = {
                "items": len(labels[CANDIDATE]),
                "prefix_tokens": _by_label(labels),
                "all_exact": _by_label(whole),
            }
        return found


def _by_label(labels: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    items = len(labels[CANDIDATE])
    found: dict[str, Any] = {label: round(sum(given) / items, 4) if items else None for label, given in labels.items()}
    found["difference"] = {
        f"to_{other}": rounded(paired_difference(labels[other], labels[CANDIDATE]))
        for other in labels
        if other != CANDIDATE and items >= LEAST_ITEMS
    }
    return found


def known_files(repository: Repository, snapshot: str, trained: Iterable[str]) -> list[tuple[str, str]]:
    """Path and text, redacted as it was learned, of at most :data:`MOST_FILES` files, drawn by a hash of their paths.

    Args:
        snapshot: the commit that the version was trained on.
        trained: paths whose beginning is among the rows of the dataset.
    """
    paths = sorted(set(trained), key=lambda path: hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest())
    texts = repository.iter_texts_at([(snapshot, path) for path in paths])
    found = ((path, redact(text)[0]) for path, text in zip(paths, texts, strict=True) if text is not None)
    return [each for each, _ in zip(found, range(MOST_FILES), strict=False)]


def measure_recall(
    engine: TokenScorer,
    tokenizer: Any,
    known: Iterable[tuple[str, str]],
    later: Iterable[LaterText],
    adapters: Mapping[str, str],
) -> Recall:
    """How much of ``known`` files, and of ``later`` ones that nobody knew, each adapter would write by heart.

    Files of fewer than :data:`RECALL_TOKENS` tokens are left out.

    Raises:
        InhouseError: an adapter cannot be loaded.
    """
    texts = {
        KNOWN_FILES: [(file_document(path, "").header, text) for path, text in known],
        LATER_FILES: [(item.header, item.text) for item in later][:MOST_FILES],
    }
    prefixes: dict[str, dict[str, tuple[int, ...]]] = {}
    for files, given in texts.items():
        rows = [row for header, text in given if (row := _row(tokenizer, header, text)) is not None]
        for label, adapter in adapters.items():
            scored = engine.score_tokens(rows, adapter) if rows else []
            prefixes.setdefault(files, {})[label] = tuple(
                exact_prefix(row, scores) for row, scores in zip(rows, scored, strict=True)
            )
    return Recall(prefixes)


def exact_prefix(row: ScoredRow, scores: TokenScores) -> int:
    """Labelled tokens before the first at which the model would have written another."""
    wanted = np.array([label for label in row.labels if label != IGNORED])
    wrong = np.flatnonzero(wanted != scores.best)
    return int(wrong[0]) if len(wrong) else len(wanted)


def _row(tokenizer: Any, header: str, text: str) -> ScoredRow | None:
    opening, _ = raw_row(tokenizer, header, ends=False)
    start = literal_ids(tokenizer, text[:_CHARACTERS])[:RECALL_TOKENS]
    if len(start) < RECALL_TOKENS:
        return None
    return ScoredRow((*opening, *start), (*[IGNORED] * len(opening), *start))
