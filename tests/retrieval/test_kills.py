"""`kill -9` at random points of indexing and refreshing: then a sound, complete index, and nothing paid for twice."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from tests.retrieval import killable
from tests.retrieval.trees import commit_all, git, write

FILES = 120


@pytest.fixture(scope="module")
def processes() -> Iterator[ForkServerContext]:
    """Starts processes in milliseconds, with all of the index's modules loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([killable.__name__])
    yield context


class Victim:
    """A repository that changes between the kills, and its index."""

    def __init__(self, root: Path, state: Path, processes: ForkServerContext, seed: int) -> None:
        self.root, self.state = root, state
        self.chance = random.Random(seed)
        self._processes = processes
        self._made = 0
        root.mkdir()
        git(root, "init", "--quiet", "--initial-branch=main")
        write(root, {f"part{n % 7}/file{n}.py": self._text() for n in range(FILES)})
        commit_all(root, "Begin")

    def _text(self) -> str:
        self._made += 1
        return "\n\n".join(f"def number_{self._made}_{part}():\n    return {part}\n" for part in range(2))

    def files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*.py"))

    def change(self) -> list[str]:
        """Edit, add, delete and commit; what an editor would name."""
        edited = self.chance.sample(self.files(), 40)
        for path in edited[:3]:
            path.unlink()
        for path in edited[3:]:
            path.write_text(self._text())
        write(self.root, {f"new/file{self._made}.py": self._text() for _ in range(3)})
        if self.chance.random() < 0.5:
            commit_all(self.root, f"Change {self._made}")
        return [path.relative_to(self.root).as_posix() for path in edited[: self.chance.choice((0, 5))]]

    def begin_anew(self) -> None:
        shutil.rmtree(self.state, ignore_errors=True)

    def run(self, named: list[str], delay: float | None) -> tuple[str, float]:
        """Refresh in a process that is killed after ``delay``; the last that it told, and its seconds."""
        receiving, sending = self._processes.Pipe(duplex=False)
        process = self._processes.Process(target=killable.refresh, args=(self.root, self.state, named, sending))
        began = time.monotonic()
        process.start()
        sending.close()
        process.join(delay)
        process.kill()
        process.join()
        seconds = time.monotonic() - began
        last = "nothing"
        try:
            while True:
                last = receiving.recv()
        except (EOFError, OSError):
            return last, seconds

    def verify(self) -> dict[str, Any]:
        receiving, sending = self._processes.Pipe(duplex=False)
        process = self._processes.Process(target=killable.verify, args=(self.root, self.state, sending))
        process.start()
        sending.close()
        found: dict[str, Any] = receiving.recv()
        process.join()
        assert process.exitcode == 0
        return found

    def paid(self) -> set[str]:
        """Keys of the vectors that were kept."""
        if not (self.state / "catalog.sqlite").exists():
            return set()
        with sqlite3.connect(self.state / "catalog.sqlite") as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'vectors'").fetchone():
                return set()
            return {str(row[0]) for row in db.execute("SELECT key FROM vectors")}


@pytest.mark.timeout(4 * 3600)
@pytest.mark.long  # test_index.py kills it once at each stage
@pytest.mark.parametrize("kills", [200])
def test_killed_at_random_points(kills: int, tmp_path: Path, processes: ForkServerContext) -> None:
    victim = Victim(tmp_path / "shop", tmp_path / "state", processes, seed=kills)
    _, whole = victim.run([], None)
    stages: Counter[str] = Counter()
    for number in range(kills):
        if number % 2 == 0:
            victim.begin_anew()
        named = victim.change()
        stage, _ = victim.run(named, victim.chance.uniform(0, whole))
        stages[stage] += 1
        paid = victim.paid()
        found = victim.verify()
        where = f"kill {number}, at {stage}"
        assert found["sound"] and not found["set_aside"], where
        assert found["files"] == [path.relative_to(victim.root).as_posix() for path in victim.files()], where
        assert (found["pending"], found["unembedded"], found["lost"]) == (0, 0, []), where
        assert found["records"] >= found["keys"] == found["chunks"], where
        assert not found["paid"] & paid, f"{where}: paid for twice"
    assert stages["closed"] < kills, "not all of them came too late"
    assert kills < 10 or len(stages) >= 5, stages
