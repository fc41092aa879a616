"""Measure the retrieval, all of it, in one command:

    python -m benchmarks.retrieval REPOSITORY[@REVISION_OR_DATE] … [--out DIR] [--cache DIR] [--files 25000]

1. Quality beside the peers (``quality.py``), on each REPOSITORY: titles of later pull requests -> the files that they
   changed. Without a REPOSITORY this part is left out.
2. Speed, memory and save-to-found (``speed.py``), on a made-up repository of ``--files`` files; 0 leaves it out.
3. Cold start (``cold_start.py``) of each REPOSITORY: to the first search by words, to all vectors.

The peers need ``pip install inhouse[benchmarks]``.

Writes ``quality.jsonl``, ``speed.json`` and ``cold_start.jsonl`` to ``--out``. Stale passages under a storm of
checkouts are ``pytest tests/retrieval/test_storm.py -m long``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.retrieval import cold_start, quality, speed


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retrieval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repositories", nargs="*")
    parser.add_argument("--queries", type=int, default=150)
    parser.add_argument("--files", type=int, default=25_000)
    parser.add_argument("--out", type=Path, default=Path("retrieval-benchmark"))
    parser.add_argument("--cache", type=Path, help="keeps clones, indexes and the peers' vectors for the next run")
    parser.add_argument("--only", choices=("quality", "speed", "cold-start"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.only in (None, "quality") and given.repositories:
        quality.run(given.repositories, given.queries, given.out / "quality.jsonl", given.cache)
    if given.only in (None, "cold-start") and given.repositories:
        cold_start.run(given.repositories, given.out / "cold_start.jsonl")
    if given.only in (None, "speed") and given.files:
        speed.run(given.files, given.out / "speed.json")


if __name__ == "__main__":
    main()
