"""How soon a repository can be searched, by words and by everything, from nothing."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from inhouse_retrieval import Index, Repository, load_encoder
from inhouse_retrieval.benchmark import clone_at


def run(targets: Sequence[str], out: Path) -> None:
    """Measure each ``REPOSITORY[@REVISION]`` in a folder of its own; one line of JSON each."""
    lines = [json.dumps(measure(target)) for target in targets]
    print("\n".join(lines), flush=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(target: str) -> dict[str, object]:
    """Seconds from opening the index, the encoder not loaded, to a search by words and to all vectors."""
    path, _, at = target.partition("@")
    repository = Repository.open(Path(path))
    with tempfile.TemporaryDirectory() as scratch:
        clone = clone_at(repository, repository.commit_id(at or "HEAD"), Path(scratch))
        began = time.perf_counter()
        with Index.open(clone, Path(scratch) / "state", load_encoder()) as index:
            index.refresh(embed=False)
            index.search("where is it", 10)
            words = time.perf_counter() - began
            report = index.refresh()
            vectors = time.perf_counter() - began
    return {
        "repository": Path(path).name,
        "files": report.files,
        "chunks": report.chunks,
        "search_by_words_s": round(words, 1),
        "all_vectors_s": round(vectors, 1),
    }
