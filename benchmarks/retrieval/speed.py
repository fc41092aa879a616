"""How fast the search is in a large repository, how soon a saved file is found, and what memory that takes.

The repository is made up: Python files of random names, so that anyone can repeat it. The vectors of its chunks are
random as well, since embedding 100,000 chunks takes most of an hour on two cores and costs a search nothing; questions
are embedded by the real encoder. Memory is told for the process that built the index and for one that opens it.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
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


def run(files: int, out: Path) -> None:
    """Measure with a repository of ``files`` files, of some six chunks each; the figures go to ``out`` as JSON."""
    figures: dict[str, Any] = {"files": files}

    def tell(**more: Any) -> None:
        figures.update(more)
        print(json.dumps(more), flush=True)
        out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as scratch:
        root, state = Path(scratch) / "large", Path(scratch) / "state"
        root.mkdir()
        words = make_repository(root, files)
        encoder = RandomDocuments()
        encoder.encode_query("warm up")
        before = resident()
        with Index.open(Repository.open(root), state, encoder) as index:
            started = time.perf_counter()
            index.refresh(embed=False)
            tell(lexical_index_s=round(time.perf_counter() - started, 1), lexical_mib=round(resident() - before))
            report = index.refresh()
            tell(chunks=report.chunks, indexed_mib=round(resident() - before))
            tell(search=spread(searches(index, words)), searched_mib=round(resident() - before))
            tell(save_to_found=spread(save_to_found(index, root)), peak_mib=round(peak() - before))
        tell(opened=opened_elsewhere(root, state, words), disk_mib=round(size(state)))


def opened_elsewhere(root: Path, state: Path, words: Sequence[str]) -> dict[str, Any]:
    """Memory and searches of a new process that opens the index, as an owner does on any day but the first."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as elsewhere:
        return elsewhere.submit(_opened, root, state, list(words)).result()


def _opened(root: Path, state: Path, words: Sequence[str]) -> dict[str, Any]:
    encoder = RandomDocuments()
    encoder.encode_query("warm up")
    before = resident()
    with Index.open(Repository.open(root), state, encoder) as index:
        index.refresh()
        taken = searches(index, words)
        return {"added_mib": round(resident() - before), "search": spread(taken)}


def searches(index: Index, words: Sequence[str]) -> list[float]:
    """Seconds of each of :data:`QUERIES` searches."""
    chance = random.Random(2)
    taken = []
    for _ in range(QUERIES):
        question = " ".join(chance.choices(words, k=6))
        started = time.perf_counter()
        index.search(question, 10)
        taken.append(time.perf_counter() - started)
    return taken


def peak() -> float:
    """The most that this process had resident, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def size(folder: Path) -> float:
    """Disk that the files below ``folder`` take, in MiB."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


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
