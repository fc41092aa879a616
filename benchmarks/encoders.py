"""Encoders beside each other: how many chunks each embeds in a second, and what the search finds with its vectors.

    python benchmarks/encoders.py CLONE[@REVISION_OR_DATE] … [--encoder NAME[:PRECISION]] … [--queries N] [--cache DIR]

The others are compared with the first encoder. Without --encoder these are all-MiniLM-L6-v2 in float32, and in int8.
Queries and measures are those of `inhouse eval retrieval`: the dense leg alone, and all legs.
Speed is the best of three rounds over the same 64 chunks, the encoders in turns, so other programs disturb all alike.
With --cache, clones, indexes and their vectors are kept for the next run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from inhouse_retrieval import Cancelled, Encoder, EncoderChoice, Index, Repository, chunk_text, load_encoder
from inhouse_retrieval.benchmark import LADDER, BenchmarkQuery, bootstrap, clone_at, measures, select_queries

SAMPLE = 64
ROUNDS = 3
DEPTH = 20
RUNGS = ("dense", "+ literal")
"""The dense leg alone, and what the product does."""


def chunks_per_second(repository: Repository, encoders: Sequence[Encoder]) -> dict[str, float]:
    """Encoder -> its best of some rounds over chunks drawn from the repository."""
    reads = [read for read in repository.iter_texts(repository.work_tree()) if isinstance(read, tuple)]
    drawn = random.Random(3407).sample(reads, min(len(reads), SAMPLE))
    chunks = [
        chunk.embedded
        for file, text in drawn
        for chunk in chunk_text(file.path, text, encoders[0].count_tokens, encoders[0].max_tokens)
    ]
    sample = random.Random(3407).sample(chunks, min(len(chunks), SAMPLE))
    best = {encoder.name: 0.0 for encoder in encoders}
    for encoder in encoders:
        encoder.encode_documents(sample[:4])  # the model loads
    for _ in range(ROUNDS):
        for encoder in encoders:
            began = time.perf_counter()
            encoder.encode_documents(sample)
            best[encoder.name] = max(best[encoder.name], len(sample) / (time.perf_counter() - began))
    return best


def refreshed(index: Index) -> None:
    """Bring ``index`` up to date, but for the vectors of pull requests: no file is found by them."""

    def progress(stage: str, done: int, total: int | None) -> None:
        if stage == "embedding pull requests":
            raise Cancelled("Everything that is measured is embedded.")

    with contextlib.suppress(Cancelled):
        index.refresh(progress)


def searched(
    clone: Repository, state: Path, encoder: Encoder, queries: Sequence[BenchmarkQuery]
) -> dict[str, dict[str, Any]]:
    """Rung -> measure -> a value for each query."""
    found = {}
    with Index.open(clone, state, encoder) as index:
        refreshed(index)
        for rung in RUNGS:
            rankings = []
            for query in queries:
                passages = index.search(query.title, 100, weights=LADDER[rung], pull_requests=False).passages
                rankings.append(list(dict.fromkeys(passage.path for passage in passages))[:DEPTH])
            found[rung] = measures(rankings, queries)
    return found


def chosen(named: Sequence[str]) -> list[EncoderChoice]:
    """``NAME[:PRECISION]`` as choices."""
    parted = [name.rpartition(":") if name.endswith((":int8", ":float32")) else (name, "", "auto") for name in named]
    return [EncoderChoice(name, precision=precision) for name, _, precision in parted]  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", nargs="+")
    parser.add_argument("--encoder", action="append", dest="encoders")
    parser.add_argument("--queries", type=int, default=150)
    parser.add_argument("--cache", type=Path)
    arguments = parser.parse_args()
    named = arguments.encoders or ["all-MiniLM-L6-v2:float32", "all-MiniLM-L6-v2:int8"]
    encoders = [load_encoder(choice) for choice in chosen(named)]
    for target in arguments.repositories:
        path, _, at = target.partition("@")
        repository = Repository.open(Path(path))
        queries = select_queries(repository, at or None, arguments.queries)
        with tempfile.TemporaryDirectory() as scratch:
            folder = (arguments.cache or Path(scratch)) / Path(path).resolve().name
            clone = clone_at(repository, queries.snapshot, folder)
            print(f"{folder.name} at {queries.snapshot[:12]}, {len(queries.queries)} queries", flush=True)
            speed = chunks_per_second(clone, encoders)
            base: dict[str, dict[str, Any]] = {}
            for encoder in encoders:
                found = searched(clone, folder / "state", encoder, queries.queries)
                base = base or found
                print(f"  {encoder.name}: {speed[encoder.name]:.1f} chunks/s")
                for rung, values in found.items():
                    scores = "  ".join(f"{name} {values[name].mean():.4f}" for name in ("R@10", "MRR", "hit@10"))
                    gain = bootstrap(values["R@10"] - base[rung]["R@10"])
                    print(
                        f"    {rung:10} {scores}  R@10 {gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
