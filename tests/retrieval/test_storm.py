"""A storm of checkouts, renames, deletes, rebases and edits: no search ever returns what is not there any more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from inhouse_retrieval import Encoder, Index, Repository
from tests.retrieval.trees import commit_all, git, write

TOPICS = ("voucher", "courier", "refund", "basket", "invoice", "parcel", "discount", "address", "receipt", "stamp")
BRANCHES = ("main", "spring", "summer")


class Storm:
    """A repository that changes at random, the same way for the same seed."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.chance = random.Random(seed)
        self.made = 0
        root.mkdir()
        git(root, "init", "--quiet", "--initial-branch=main")
        for _ in range(24):
            self.add()
        commit_all(root, "Begin")
        for branch in BRANCHES[1:]:
            git(root, "branch", branch)

    def strike(self) -> str:
        """Do one thing; its name."""
        name = self.chance.choice(
            (
                "add",
                "edit",
                "edit",
                "delete",
                "rename",
                "move",
                "commit",
                "checkout",
                "rebase",
                "reset",
                "amend",
                "undo",
            )
        )
        getattr(self, name)()
        return name

    def files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*.py") if ".git" not in path.parts)

    def text(self) -> str:
        self.made += 1
        topic = self.chance.choice(TOPICS)
        lines = [f"def {topic}_{self.made}_{number}():\n    return '{topic} {self.made}'\n" for number in range(3)]
        return "\n\n".join(lines)

    def add(self) -> None:
        write(self.root, {f"{self.chance.choice(TOPICS)}/file{self.made}.py": self.text()})

    def edit(self) -> None:
        if files := self.files():
            self.chance.choice(files).write_text(self.text())

    def delete(self) -> None:
        if len(files := self.files()) > 8:
            self.chance.choice(files).unlink()

    def rename(self) -> None:
        if files := self.files():
            file = self.chance.choice(files)
            file.rename(file.with_name(f"renamed{self.made}_{file.name}"[:60]))
            self.made += 1

    def move(self) -> None:
        """A folder takes another's place, files and all."""
        if files := self.files():
            folder = self.chance.choice(files).parent
            if folder != self.root:
                folder.rename(folder.with_name(f"moved{self.made}"))
                self.made += 1

    def commit(self) -> None:
        commit_all(self.root, f"Change {self.made}")

    def amend(self) -> None:
        git(self.root, "add", "--all")
        git(self.root, "commit", "--quiet", "--amend", "--allow-empty", "--message", f"Amended {self.made}")

    def checkout(self) -> None:
        self.commit()
        git(self.root, "checkout", "--quiet", self.chance.choice(BRANCHES))

    def rebase(self) -> None:
        self.commit()
        git(self.root, "rebase", "--quiet", "-X", "theirs", "--empty=drop", self.chance.choice(BRANCHES), check=False)
        git(self.root, "rebase", "--abort", check=False)

    def reset(self) -> None:
        git(self.root, "reset", "--quiet", "--hard", f"HEAD~{self.chance.randrange(3)}", check=False)

    def undo(self) -> None:
        git(self.root, "checkout", "--quiet", "--", ".", check=False)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("strikes", [25, pytest.param(500, marks=pytest.mark.long)])
def test_nothing_that_is_gone_is_ever_found(tmp_path: Path, encoder: Encoder, strikes: int) -> None:
    storm = Storm(tmp_path / "shop", seed=7)
    stale: list[tuple[int, str, str]] = []
    found = 0
    with Index.open(Repository.open(storm.root), tmp_path / "state", encoder) as index:
        index.refresh()
        for number in range(strikes):
            what = storm.strike()
            if storm.chance.random() < 0.4:
                index.refresh(embed=storm.chance.random() < 0.5)
            result = index.search(f"{storm.chance.choice(TOPICS)} {storm.chance.randrange(storm.made)}", 10)
            for passage in result.passages:
                found += 1
                file = storm.root / passage.path
                lines = file.read_text().split("\n") if file.exists() else []
                if "\n".join(lines[passage.start_line - 1 : passage.end_line]) != passage.text:
                    stale.append((number, what, passage.path))
        index.refresh()
        paths = {passage.path for topic in TOPICS for passage in index.search(topic, 1_000).passages}
    assert stale == []
    assert found > strikes
    assert paths == {file.relative_to(storm.root).as_posix() for file in storm.files()}, "the index is whole again"
