"""How fast the search is in a large repository, how soon a saved file is found, and what memory that takes.

    python benchmarks/retrieval_speed.py            # 100,000 chunks
    python benchmarks/retrieval_speed.py --files 2500

The repository is made up: Python files of random names, so that anyone can repeat it. The vectors of its chunks are
random as well, since embedding 100,000 chunks takes most of an hour on two cores and costs a search nothing; questions
are embedded by the real encoder.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inhouse_retrieval import Index, Repository, load_encoder, watch

QUERIES = 200
SAVES = 20


class RandomDocuments:
    """The real encoder but for documents, whose vectors are random."""

    def __init__(self) -> None:
        self._encoder = load_encoder()
        self._random = np.random.default_rng(1)
        self.name = "random documents"
        self.dimension = self._encoder.dimension
        self.max_tokens = self._encoder.max_tokens

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._encoder.count_tokens(texts)

    def encode_documents(self, texts: Sequence[str]) -> Any:
        vectors = self._random.standard_normal((len(texts), self.dimension), np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_query(self, text: str) -> Any:
        return self._encoder.encode_query(text)


def make_repository(root: Path, files: int) -> list[str]:
    """Files of four chunks each, in one commit; returns the words that they are made of."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnoprstuvw", k=chance.randint(4, 9))) for _ in range(20_000)]
    for number in range(files):
        path = root / f"package_{number % 97}" / f"{chance.choice(words)}_{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = []
        for _ in range(12):
            name = "_".join(chance.choices(words, k=2))
            lines = [f"    {chance.choice(words)} = {chance.choice(words)}({chance.choice(words)})" for _ in range(5)]
            parts.append("\n".join([f"def {name}({chance.choice(words)}):", *lines]))
        path.write_text("\n\n\n".join(parts) + "\n")
    for arguments in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "All"],
    ):
        subprocess.run(["git", "-C", str(root), *arguments], check=True)
    return words


def resident() -> float:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds."""
    ordered = [round(each * 1000, 1) for each in sorted(seconds)]
    return {"p50_ms": statistics.median(ordered), "p95_ms": ordered[int(len(ordered) * 0.95)], "n": len(ordered)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=25_000)
    files = parser.parse_args().files
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "large"
        root.mkdir()
        words = make_repository(root, files)
        encoder = RandomDocuments()
        encoder.encode_query("warm up")
        before = resident()
        with Index.open(Repository.open(root), Path(scratch) / "state", encoder) as index:
            started = time.perf_counter()
            index.refresh(embed=False)
            lexical = time.perf_counter() - started
            report = index.refresh()
            chance = random.Random(2)
            taken = []
            for _ in range(QUERIES):
                question = " ".join(chance.choices(words, k=6))
                started = time.perf_counter()
                index.search(question, 10)
                taken.append(time.perf_counter() - started)
            searching = resident() - before
            print(json.dumps({"lexical_index_s": round(lexical, 1), "search": spread(taken)}), flush=True)
            saved = save_to_found(index, root)
    print(
        json.dumps(
            {
                "files": report.files,
                "chunks": report.chunks,
                "lexical_index_s": round(lexical, 1),
                "search": spread(taken),
                "save_to_found": spread(saved),
                "memory_added_mib": round(searching),
            },
            indent=1,
        )
    )


def save_to_found(index: Index, root: Path) -> list[float]:
    """Seconds from writing a file to its being the first hit of a search through the watched index."""
    stop, ready = threading.Event(), threading.Event()
    watcher = threading.Thread(target=watch, args=(index, stop, lambda report: ready.set()), daemon=True)
    watcher.start()
    ready.wait(120)
    taken = []
    for number in range(SAVES):
        time.sleep(0.5)
        name = f"quetzal_{number}_marker"
        started = time.perf_counter()
        (root / f"saved_{number}.py").write_text(f"def {name}():\n    return {number}\n")
        while not any(hit.path == f"saved_{number}.py" for hit in index.search(name, 3).passages):
            time.sleep(0.01)
        taken.append(time.perf_counter() - started)
    stop.set()
    watcher.join(30)
    return taken


if __name__ == "__main__":
    main()
