"""What the house reviewer says about files that past changes removed or only renamed, and what became of what it names.

    python benchmarks/moved_companions.py CLONE… [--changes 1500]

Two questions. Asked about each such file as if nothing else had been changed: was the companion that it names removed
or renamed in that same change, was it changed there, or left alone? And asked about the whole change, as a review does:
which companions that were left alone does it name? No model; a minute for each clone.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from inhouse_retrieval import Repository, read_changes
from inhouse_server.review.companions import MAX_FILES, WINDOW, History


def moved_files(repository: Repository, commit: str) -> set[str]:
    """Files that a commit removed, or renamed with their lines as they were, under their names before it."""
    out = repository.git("diff-tree", "-r", "--find-renames", "--name-status", "-z", f"{commit}^1", commit)
    fields = iter(out.decode("utf-8", "replace").split("\0"))
    moved: set[str] = set()
    for status in fields:
        if not status:
            continue
        former = next(fields)
        if status[0] in "RC":
            next(fields)
        if status in ("D", "R100"):
            moved.add(former)
    return moved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clones", nargs="+", type=Path)
    parser.add_argument("--changes", type=int, default=1_500, help="of each clone, the newest")
    arguments = parser.parse_args()
    for root in arguments.clones:
        repository = Repository.open(root)
        past = list(read_changes(repository))
        told: Counter[str] = Counter()
        for row, change in enumerate(past[: arguments.changes]):
            if not change.parents or not change.files or len(change.files) > MAX_FILES:
                continue
            told["changes"] += 1
            moved = moved_files(repository, change.commit)
            if not moved:
                continue
            listed = repository.git("ls-tree", "-r", "-z", "--name-only", f"{change.commit}^1")
            there = set(listed.decode("utf-8", "replace").split("\0"))
            history = History(past[row + 1 : row + 1 + WINDOW], there.__contains__)
            touched = {*change.files, *change.renamed}
            gone = moved | set(change.renamed)
            for file in sorted(moved):
                told["moved files"] += 1
                for found in history.companions({file}, moved={file}):
                    told["named by itself"] += 1
                    if found.path in gone:
                        told["of those moved, too"] += 1
                    elif found.path in touched:
                        told["of those changed"] += 1
            remarks = {found.because for found in history.companions(touched, moved=moved) if found.because in moved}
            told["remarks on whole changes"] += len(remarks)
        print(root.name, json.dumps(told))


if __name__ == "__main__":
    main()
