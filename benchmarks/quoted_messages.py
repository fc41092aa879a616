"""Finding the file that printed a message: strings of a repository's own code, quoted in a question with values in it.

    python benchmarks/quoted_messages.py REPOSITORY … [--queries 100] [--weights 0 1 2 4] [--state FOLDER]

A query is a string of at least four words out of the code, its placeholders replaced by values as a program would print
them. What it should find is the files that hold the string. Prints each weight of the leg that looks for quoted texts,
and what the trigrams take on disk. REPOSITORY is a clone; what is checked out is searched. Vectors are computed unless
``--state`` names a folder that has them (``FOLDER/NAME``).
"""

from __future__ import annotations

import argparse
import random
import re
import sqlite3
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from inhouse_retrieval import Index, Repository, load_encoder
from inhouse_retrieval.benchmark import BenchmarkQuery, bootstrap, measures
from inhouse_retrieval.search import Weights

_STRING = re.compile(r'"([^"\n\\]{24,140})"')
_PLACEHOLDER = re.compile(r"\$?\{[^{}]*\}|%[-\d.]*[sdvqfrxi]")
_NOT_CODE = (".md", ".rst", ".txt", ".json", ".yml", ".yaml", ".toml", ".html", ".css", ".lock")


def messages(repository: Repository, limit: int) -> list[BenchmarkQuery]:
    """``limit`` questions that quote a message, drawn with a fixed seed."""
    places: dict[str, set[str]] = defaultdict(set)
    for path, text in sources(repository):
        for match in _STRING.finditer(text):
            if len(match[1].split()) >= 4:
                places[match[1]].add(path)
    drawn = random.Random(3407).sample(sorted(places), min(limit, len(places)))
    printed = {text: _PLACEHOLDER.sub("42", text) for text in drawn}
    return [BenchmarkQuery("", f'Why do I get "{printed[text]}"?', "", tuple(sorted(places[text]))) for text in drawn]


def sources(repository: Repository) -> Iterator[tuple[str, str]]:
    """``(path, text)`` of the code."""
    for read in repository.iter_texts(repository.work_tree()):
        if isinstance(read, tuple) and not read[0].path.endswith(_NOT_CODE):
            yield read[0].path, read[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", nargs="+", type=Path)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--weights", nargs="+", type=float, default=[0, 1, 2, 4])
    parser.add_argument("--state", type=Path)
    arguments = parser.parse_args()
    for path in arguments.repositories:
        with tempfile.TemporaryDirectory() as scratch:
            state = arguments.state / path.name if arguments.state else Path(scratch)
            measure(Repository.open(path), path.name, state, arguments.queries, arguments.weights)


def measure(repository: Repository, name: str, state: Path, limit: int, weights: list[float]) -> None:
    """Print one repository's table."""
    with Index.open(repository, state, load_encoder()) as index:
        index.refresh()
        queries = messages(repository, limit)
        changed = sum("42" in query.title for query in queries)
        print(f"{name}: {len(queries)} messages, {changed} with values in them; {disk(state)}")
        for weight in weights:
            rankings, taken = [], []
            for query in queries:
                began = time.perf_counter()
                found = index.search(query.title, 20, weights=replace(Weights(), literal=weight), pull_requests=False)
                taken.append((time.perf_counter() - began) * 1000)
                rankings.append(list(dict.fromkeys(passage.path for passage in found.passages)))
            values = measures(rankings, queries)
            scores = {measure: bootstrap(values[measure]) for measure in ("R@1", "R@10", "MRR")}
            shown = "  ".join(f"{measure} {s.mean:.3f} ({s.low:.3f}-{s.high:.3f})" for measure, s in scores.items())
            print(f"  literal {weight:<4g} {shown}  p50 {statistics.median(taken):.0f} ms", flush=True)


def disk(state: Path) -> str:
    """What the trigrams take of the catalog."""
    with closing(sqlite3.connect(state / "catalog.sqlite")) as database:
        [(text,)] = database.execute("SELECT sum(length(CAST(text AS BLOB))) FROM chunks")
        [(trigrams,)] = database.execute("SELECT sum(length(block)) FROM trigrams_data")
    whole = (state / "catalog.sqlite").stat().st_size
    return f"text {text / 1e6:.1f} MB, trigrams {trigrams / 1e6:.1f} MB of the catalog's {whole / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
