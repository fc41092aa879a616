"""The history as something to search: what is read of it, how it votes, and that the index follows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inhouse_retrieval import Encoder, Index, Repository
from inhouse_retrieval.history import MAX_CHANGED_FILES, read_changes
from inhouse_retrieval.history_tables import StoredChange
from inhouse_retrieval.history_votes import ChangeVotes
from tests.retrieval.trees import commit_all, git, write


def test_changes_are_read_newest_first_with_their_files(root: Path) -> None:
    git(root, "checkout", "--quiet", "-b", "vouchers")
    write(root, {"shop/voucher.py": "RATE = 10\n", "weird\nname é.py": "x = 1\n"})
    commit_all(root, "wip")
    git(root, "checkout", "--quiet", "main")
    git(
        root,
        "merge",
        "--quiet",
        "--no-ff",
        "vouchers",
        "-m",
        "Merge pull request #7 from acme/vouchers\n\nOffer vouchers",
    )
    git(root, "mv", "shop/courier.py", "shop/delivery.py")
    commit_all(root, 'Rename the courier (#8)\n\nMore.\n\nkey = "AKIA' + 'QWERTYUIOPASDFGH"')
    (root / "docs/returns.md").unlink()
    commit_all(root, "Drop a page\x1e")
    git(root, "commit", "--quiet", "--allow-empty", "-m", "Nothing")

    empty, dropped, renamed, merged, first = read_changes(Repository.open(root))
    assert (empty.title, empty.files, empty.number) == ("Nothing", (), None)
    assert dropped.files == ("docs/returns.md",)
    assert (renamed.number, renamed.title, renamed.files) == (8, "Rename the courier", ("shop/delivery.py",))
    assert renamed.renamed == {"shop/courier.py": "shop/delivery.py"}
    assert "REDACTED" in renamed.description and "QWERTY" not in renamed.title + renamed.description
    assert (merged.number, merged.title) == (7, "Offer vouchers")
    assert set(merged.files) == {"shop/voucher.py", "weird\nname é.py"}
    assert (first.parents, len(first.files)) == (0, 3)
    assert [each.commit for each in read_changes(Repository.open(root), since=renamed.commit)] == [
        empty.commit,
        dropped.commit,
    ]
    assert [each.title for each in read_changes(Repository.open(root), limit=1)] == ["Nothing"]


def change(number: int, title: str, *files: str, renamed: dict[str, str] | None = None) -> StoredChange:
    return StoredChange(number, f"{number:040x}", number, number, title, files, renamed or {}, title)


def test_changes_vote_for_the_files_of_today() -> None:
    axes = {"voucher": [1.0, 0, 0], "courier": [0, 1.0, 0], "mass": [1.0, 0, 0], "rename": [0, 0, 1.0]}
    vectors = {name: np.array(axis, np.float32) for name, axis in axes.items()}
    everything = tuple(f"f{n}.py" for n in range(MAX_CHANGED_FILES + 1))
    history = [
        change(4, "mass", *everything),
        change(3, "rename", "delivery.py", renamed={"courier.py": "delivery.py"}),
        change(2, "courier", "courier.py", "gone.py"),
        change(1, "voucher", "voucher.py"),
    ]
    live = {"voucher.py", "delivery.py", *everything}
    votes = ChangeVotes(history, vectors)
    by_vector = votes.votes(vectors["courier"], [], live.intersection)
    assert (by_vector[0].path, by_vector[0].changes[0]) == ("delivery.py", "#2 courier"), "under its name of today"
    assert {vote.path for vote in by_vector} == {"delivery.py"}, "no vote for what is gone; a quarter of four is one"
    assert votes.votes(vectors["mass"], [], live.intersection) == [], "a mass edit says nothing of its files"
    by_words = votes.votes(None, [1, 99], live.intersection)
    assert [(vote.path, vote.changes) for vote in by_words] == [("voucher.py", ("#1 voucher",))]
    assert ChangeVotes([], {}).votes(vectors["courier"], [1], live.intersection) == []
    assert not {vote.path for vote in votes.votes(vectors["mass"], [4], live.intersection)} & set(everything)


def test_a_file_is_found_by_what_was_once_said_about_it(
    root: Path, repository: Repository, state: Path, encoder: Encoder
) -> None:
    write(root, {"shop/basket.py": "class Basket:\n    limit = 3\n"})
    commit_all(root, "Stop the Christmas rush from exhausting stock (#41)")
    with Index.open(repository, state, encoder) as index:
        index.refresh()
        best = index.search("what exhausts the stock at Christmas?").passages[0]
        assert (best.path, "history" in best.legs) == ("shop/basket.py", True)
        assert best.changes[0] == "#41 Stop the Christmas rush from exhausting stock"

        # Another commit is taken in; a history that was rewritten is forgotten.
        write(root, {"shop/courier.py": "def book_courier(): ...\n"})
        commit_all(root, "Let reindeer deliver (#42)")
        index.refresh()
        assert index.search("reindeer").passages[0].path == "shop/courier.py"
        git(root, "reset", "--quiet", "--hard", "HEAD~2")
        index.refresh()
        assert all(not passage.changes for passage in index.search("reindeer at Christmas").passages)


def test_a_name_leads_to_its_definition(root: Path, repository: Repository, state: Path, encoder: Encoder) -> None:
    uses = "from shop.rates import base_rate_of\n" + "".join(f"value_{n} = base_rate_of({n})\n" for n in range(30))
    write(
        root,
        {"shop/rates.py": "class Rates:\n    def base_rate_of(self, n):\n        return n\n", "shop/uses.py": uses},
    )
    with Index.open(repository, state, encoder) as index:
        index.refresh()
        for question in ("base_rate_of", "who calls `base_rate_of`?", "base_rate_of() fails"):
            best = index.search(question).passages[0]
            assert (best.path, "definition" in best.legs) == ("shop/rates.py", True), question
        unsaved = {"shop/rates.py": "RATE = 1\n", "shop/new.py": "def base_rate_of(n):\n    return n\n"}
        assert index.search("base_rate_of", open_documents=unsaved).passages[0].path == "shop/new.py"


def test_several_files_come_before_more_of_one(
    root: Path, repository: Repository, state: Path, encoder: Encoder
) -> None:
    long = "\n\n".join(
        f"def voucher_step_{n}(voucher):\n    '''Step {n} of a voucher.'''\n    return voucher" for n in range(60)
    )
    write(root, {"shop/steps.py": long})
    with Index.open(repository, state, encoder) as index:
        index.refresh()
        passages = index.search("voucher", limit=4).passages
        assert {passage.path for passage in passages} >= {"shop/steps.py", "shop/basket.py"}
        assert passages[0].score > passages[1].score
