"""One hop from the best files: do their definitions, tests and imports find more of what a change needs?

    python benchmarks/one_hop.py CLONE[@REVISION_OR_DATE] … [--queries 150] [--cache DIR]

From the first five files of a search, four kinds of neighbours: files that define a name of the best passage (names
with at most three such files), the test of a file or what it tests (by its name), files that import it, and files that
it imports (by the words of import lines). Each kind is fused with the ranking as one more leg, at several weights.
Prints what that gains in R@10 and MRR, with 95 % intervals of a paired bootstrap over all queries.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")

import numpy as np
from encoders import DEPTH, refreshed

from inhouse_retrieval import Index, Passage, Repository, load_encoder
from inhouse_retrieval.benchmark import bootstrap, clone_at, measures, select_queries
from inhouse_retrieval.search import RRF_K

SEEDS = 5
WEIGHTS = (0.1, 0.25, 0.5, 1.0)
KINDS = ("definitions", "tests", "importers", "imported")
Ranking = dict[str, float]

_WORD = re.compile(r"[^\W\d]\w{2,}")
_IMPORT = re.compile(
    r"^\s*(?:import\b|from\b|(?:pub )?use\b|(?:pub )?mod\b|#include|require)"
    r"|^\s*(?:export .* from|const .*require\(|.*\bimport\()"
    r"|^\s*[\"'][\w./-]+[\"']\s*$"
)
_TEST = re.compile(r"(^|[/_.-])(tests?|specs?|__tests__)([/_.-]|$)|Test\.java$|_test\.go$", re.I)
_SAYS_NOTHING = frozenset(
    ("index", "mod", "main", "__init__", "lib", "utils", "util", "types", "doc", "readme", "init", "test", "tests")
)


@dataclass(frozen=True, slots=True)
class Links:
    """What leads from a file to others; sets of paths."""

    defining: Mapping[str, set[str]]
    by_stem: Mapping[str, set[str]]
    importers: Mapping[str, set[str]]
    imported: Mapping[str, set[str]]


def stem(path: str) -> str:
    """The name of a file without suffixes and what marks a test."""
    name = PurePosixPath(path).name.split(".")[0].lower()
    return re.sub(r"^(test|spec)s?[_-]|[_-]?(test|spec)s?$", "", name)


def links(index: Index) -> Links:
    """Of all files that the index holds."""
    catalog = index._catalog
    defining, imports, by_stem, imported = (defaultdict[str, set[str]](set) for _ in range(4))
    place = "JOIN files f ON f.id = c.file_id"
    for name, path in catalog._rows(f"SELECT s.name, f.path FROM symbols s JOIN chunks c ON c.id = s.chunk_id {place}"):
        defining[str(name)].add(str(path))
    for path, text in catalog._rows(f"SELECT f.path, c.text FROM chunks c {place}"):
        for line in str(text).split("\n"):
            if _IMPORT.match(line):
                imports[str(path)] |= {word.lower() for word in _WORD.findall(line)}
    paths = catalog.paths()
    importers: dict[str, set[str]] = {}
    for path in paths:
        name = stem(path)
        by_stem[name].add(path)
        told = len(name) > 3 and name not in _SAYS_NOTHING
        importers[path] = {other for other in paths if told and other != path and name in imports[other]}
        for other in importers[path]:
            imported[other].add(path)
    return Links(defining, by_stem, importers, imported)


def neighbours(passages: Sequence[Passage], files: Sequence[str], of: Links) -> dict[str, list[str]]:
    """Kind -> files one hop away, the best first."""
    votes: dict[str, dict[str, float]] = {kind: defaultdict(float) for kind in KINDS}
    best = {passage.path: passage for passage in reversed(passages)}
    for rank, path in enumerate(files[:SEEDS], start=1):
        vote = 1 / (RRF_K + rank)
        for name in {word for word in _WORD.findall(best[path].text) if word in of.defining}:
            others = of.defining[name] - {path}
            for other in others if len(others) <= 3 else ():
                votes["definitions"][other] += vote / len(of.defining[name])
        for other in of.by_stem[stem(path)] - {path}:
            if bool(_TEST.search(other)) != bool(_TEST.search(path)):
                votes["tests"][other] += vote
        for kind, links_of in (("importers", of.importers), ("imported", of.imported)):
            for other in links_of.get(path, ()):
                votes[kind][other] += vote / len(links_of[path])
    return {kind: sorted(given, key=lambda path: -given[path])[:DEPTH] for kind, given in votes.items()}


def fused(ranking: Ranking, hop: Sequence[str], weight: float) -> list[str]:
    """The files of a search with those of a hop as one more leg."""
    scores = dict(ranking)
    for rank, path in enumerate(hop, start=1):
        scores[path] = scores.get(path, 0.0) + weight / (RRF_K + rank)
    return sorted(scores, key=lambda path: -scores[path])[:DEPTH]


def measure(target: str, limit: int, folder: Path) -> dict[tuple[str, float], dict[str, Any]]:
    """``(kind, weight)`` -> measure -> its gain for each query."""
    path, _, at = target.partition("@")
    repository = Repository.open(Path(path))
    queries = select_queries(repository, at or None, limit)
    clone = clone_at(repository, queries.snapshot, folder)
    rankings: list[Ranking] = []
    hops: list[dict[str, list[str]]] = []
    with Index.open(clone, folder / "state", load_encoder()) as index:
        refreshed(index)
        of = links(index)
        for query in queries.queries:
            passages = index.search(query.title, 100, pull_requests=False).passages
            ranking: Ranking = {}
            for passage in passages:
                ranking.setdefault(passage.path, passage.score)
            rankings.append(ranking)
            hops.append(neighbours(passages, list(ranking), of))
    base = measures([list(ranking)[:DEPTH] for ranking in rankings], queries.queries)
    print(f"{folder.name}: R@10 {base['R@10'].mean():.4f}, MRR {base['MRR'].mean():.4f}", flush=True)
    gains = {}
    for kind in KINDS:
        for weight in WEIGHTS:
            found = [fused(ranking, hop[kind], weight) for ranking, hop in zip(rankings, hops, strict=True)]
            measured = measures(found, queries.queries)
            gains[kind, weight] = {name: measured[name] - base[name] for name in ("R@10", "MRR")}
    return gains


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", nargs="+")
    parser.add_argument("--queries", type=int, default=150)
    parser.add_argument("--cache", type=Path)
    arguments = parser.parse_args()
    found = []
    for target in arguments.repositories:
        with tempfile.TemporaryDirectory() as scratch:
            name = Path(target.partition("@")[0]).resolve().name
            found.append(measure(target, arguments.queries, (arguments.cache or Path(scratch)) / name))
    for kind, weight in found[0]:
        told = []
        for name in ("R@10", "MRR"):
            gain = bootstrap(np.concatenate([gains[kind, weight][name] for gains in found]))
            told.append(f"{name} {gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})")
        print(f"{kind:11} {weight:4}  {'  '.join(told)}")


if __name__ == "__main__":
    main()
