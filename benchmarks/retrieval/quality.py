"""The search beside its peers: titles of later pull requests -> the files that they changed, on the same corpus.

Peers: plain Chroma (windows of 40 lines, all-MiniLM-L6-v2 in float32 by sentence-transformers, cosine) and bm25s over
the same windows; a file ranks by its best window. A repository is a clone with its history. Prints a table for each and
the mean over all; intervals are paired bootstraps over queries, for the mean within each repository.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.retrieval.peers import Search, distinct, plain_bm25, plain_chroma, windows

from inhouse_retrieval import Index, Repository, load_encoder
from inhouse_retrieval.benchmark import bootstrap, clone_at, measures, select_queries

SHOWN = ("R@10", "MRR", "hit@10", "nDCG@10")


def measure(target: str, limit: int, folder: Path) -> dict[str, Any]:
    """All systems on one repository; values by query."""
    path, _, at = target.partition("@")
    repository = Repository.open(Path(path))
    chosen = select_queries(repository, at or None, limit)
    clone = clone_at(repository, chosen.snapshot, folder)
    corpus = windows(clone)
    results: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    with Index.open(clone, folder / "state", load_encoder()) as index:
        began = time.perf_counter()
        index.refresh()
        seconds["inhouse"] = time.perf_counter() - began
        systems: dict[str, Search] = {
            "inhouse": lambda query: distinct(hit.path for hit in index.search(query, 100).passages)
        }
        for name, make in (
            ("plain Chroma", lambda: plain_chroma(corpus, folder / "plain")),
            ("bm25s", lambda: plain_bm25(corpus)),
        ):
            began = time.perf_counter()
            systems[name] = make()
            seconds[name] = time.perf_counter() - began
        for name, search in systems.items():
            results[name] = measures([search(query.title) for query in chosen.queries], chosen.queries)
    return {
        "name": Path(path).name,
        "snapshot": chosen.snapshot,
        "queries": len(chosen.queries),
        "results": results,
        "index_s": seconds,
    }


def mean_interval(gains: Sequence[Any], resamples: int = 2000) -> tuple[float, float]:
    """95 % interval of the mean over repositories; queries are drawn anew within each."""
    random = np.random.default_rng(3407)
    means = [gain[random.integers(0, len(gain), size=(resamples, len(gain)))].mean(axis=1) for gain in gains]
    low, high = np.percentile(np.mean(means, axis=0), [2.5, 97.5])
    return float(low), float(high)


def run(targets: Sequence[str], limit: int, out: Path, cache: Path | None) -> None:
    """Measure each ``REPOSITORY[@REVISION_OR_DATE]`` with at most ``limit`` queries; one line a system in ``out``."""
    gains: list[Any] = []
    lines: list[str] = []
    for target in targets:
        with tempfile.TemporaryDirectory() as scratch:
            place = cache / Path(target.partition("@")[0]).resolve().name if cache else Path(scratch)
            place.mkdir(parents=True, exist_ok=True)
            measured = measure(target, limit, place)
        results = measured["results"]
        print(f"{measured['name']} at {measured['snapshot'][:12]}, {measured['queries']} queries")
        for name, values in results.items():
            scores = {measure: bootstrap(values[measure]) for measure in SHOWN}
            shown = "  ".join(f"{measure} {s.mean:.3f} ({s.low:.3f}-{s.high:.3f})" for measure, s in scores.items())
            print(f"  {name:14} {shown}  index {measured['index_s'][name]:.0f} s", flush=True)
            lines.append(
                json.dumps({"repository": measured["name"], "system": name, **{m: s.mean for m, s in scores.items()}})
            )
        gains.append(results["inhouse"]["R@10"] - results["plain Chroma"]["R@10"])
        gain = bootstrap(gains[-1])
        print(f"  R@10 over plain Chroma {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})", flush=True)
        out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    low, high = mean_interval(gains)
    mean = sum(gain.mean() for gain in gains) / len(gains)
    print(f"mean R@10 over plain Chroma: {mean:+.3f} ({low:+.3f} to {high:+.3f}) over {len(gains)} repositories")
