"""Wiki pages: which they are, how they are read, and that newer code comes before them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from inhouse_retrieval import Encoder, Index, InhouseError, Repository, SkippedFile, Wiki
from tests.retrieval.trees import commit_all, git, write

RETURNS = "# Returns\n\nParcels come back through TeamPost: call `schedule_return` and print the label.\n"


@pytest.fixture
def wiki_clone(tmp_path: Path) -> Path:
    """A wiki beside the repository: a page of March and one of June."""
    clone = tmp_path / "shop.wiki"
    clone.mkdir()
    git(clone, "init", "--quiet", "--initial-branch=master")
    write(clone, {"Home.md": "# Home\n\nWelcome to the shop.\n", "logo.png": b"\x89PNG\x00", "data.json": "{}\n"})
    commit_all(clone, "home", date="2025-03-10T00:00:00Z")
    write(clone, {"Gift-cards.md": "# Gift cards\n\nThey expire after a year.\n"})
    commit_all(clone, "cards", date="2025-06-10T00:00:00Z")
    return clone


def test_pages_inside_and_outside_are_told_from_code(root: Path, wiki_clone: Path) -> None:
    wiki = Wiki(Repository.open(root).with_wiki(["docs", "../shop.wiki"]))
    assert wiki.is_page("docs/returns.md") and not wiki.is_page("docs/conf.py") and not wiki.is_page("README.md")
    assert wiki.is_page("../shop.wiki/Home.md") and wiki.holds("../shop.wiki/Home.md")
    assert not wiki.holds("docs/returns.md") and not wiki.is_page("../other/Home.md")
    pages, skipped = wiki.work_tree()
    assert [page.path for page in pages] == ["../shop.wiki/Gift-cards.md", "../shop.wiki/Home.md"]
    assert {file.path: file.reason for file in skipped}["../shop.wiki/data.json"] == "not a wiki page"
    assert wiki.last_changed("../shop.wiki/Home.md") == datetime(2025, 3, 10, tzinfo=UTC).timestamp()


def test_a_page_of_later_is_not_read_for_an_earlier_moment(root: Path, wiki_clone: Path) -> None:
    wiki = Wiki(Repository.open(root).with_wiki(["../shop.wiki"]))
    april = datetime(2025, 4, 1, tzinfo=UTC)
    read = [page[0].path for page in wiki.pages_until(april) if not isinstance(page, SkippedFile)]
    assert read == ["../shop.wiki/Home.md"]
    assert wiki.states_until(april) == [f"../shop.wiki/@{git(wiki_clone, 'rev-parse', 'HEAD~1')}"]
    assert wiki.states_until(april) != wiki.states_until(datetime(2025, 7, 1, tzinfo=UTC))


def test_a_plain_folder_of_exported_pages(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    write(folder, {"old.txt": "How it was.\n", "deep/new.txt": 'token = "ghp_' + "a1B2" * 9 + '"\n'})
    (folder / "link.md").symlink_to(tmp_path / "shop" / "docs" / "returns.md")
    os.utime(folder / "old.txt", (1_700_000_000, 1_700_000_000))
    wiki = Wiki(Repository.open(root).with_wiki([str(folder)]))
    pages, skipped = wiki.work_tree()
    assert [page.path for page in pages] == ["../export/old.txt", "../export/deep/new.txt"]
    assert "link.md" in skipped[0].path
    read = wiki.read_current("../export/deep/new.txt")
    assert isinstance(read, tuple) and "REDACTED" in read[1] and "a1B2" not in read[1]
    told = list(wiki.pages_until(datetime(2024, 1, 1, tzinfo=UTC)))
    assert [page[0].path for page in told if not isinstance(page, SkippedFile)] == ["../export/old.txt"]
    assert any(isinstance(page, SkippedFile) and "no history" in page.reason for page in told)
    assert wiki.read_current("../export/../shop/basket.py") is None or isinstance(
        wiki.read_current("../export/../shop/basket.py"), SkippedFile
    )


@pytest.mark.parametrize(("folder", "problem"), [("../nowhere", "no wiki folder"), ("..", "holds the repository")])
def test_a_wrong_folder_is_refused(root: Path, folder: str, problem: str) -> None:
    with pytest.raises(InhouseError, match=problem):
        Wiki(Repository.open(root).with_wiki([folder]))


def test_pages_are_found_kept_fresh_and_forgotten(root: Path, wiki_clone: Path, state: Path, encoder: Encoder) -> None:
    with Index.open(Repository.open(root).with_wiki(["docs", "../shop.wiki"]), state, encoder) as index:
        assert index.refresh().files == 5
        best = index.search("when do gift cards expire?", 1).passages[0]
        assert (best.path, best.source, best.updated) == ("../shop.wiki/Gift-cards.md", "wiki", "2025-06-10")
        (wiki_clone / "Gift-cards.md").write_text("# Gift cards\n\nThey never expire.\n")
        assert index.status().pending == 1
        assert "never" in index.search("when do gift cards expire?", 1).passages[0].text
        (wiki_clone / "Gift-cards.md").unlink()
        assert index.search("when do gift cards expire?", 1).passages[0].path != "../shop.wiki/Gift-cards.md"
        assert index.refresh().files == 4


def test_code_that_changed_after_a_page_comes_before_it(root: Path, state: Path, encoder: Encoder) -> None:
    write(root, {"docs/returns.md": RETURNS, "shop/back.py": "def schedule_return(parcel):\n    print_label(parcel)\n"})
    commit_all(root, "Take parcels back", date="2025-03-20T00:00:00Z")
    repository = Repository.open(root).with_wiki(["docs"])
    question = "How do parcels come back through TeamPost?"
    with Index.open(repository, state, encoder) as index:
        index.refresh()
        page = index.search(question, 3).passages[0]
        assert (page.path, page.updated, page.newer_code) == ("docs/returns.md", "2025-03-20", "")

        write(root, {"shop/back.py": "def schedule_return(parcel):\n    book_collection(parcel)\n"})
        commit_all(root, "Collect returns (#9)", date="2025-05-02T00:00:00Z")
        index.refresh()
        code, page = index.search(question, 3).passages[:2]
        assert (code.path, code.source) == ("shop/back.py", "code")
        assert (page.path, page.newer_code, page.newer_code_updated) == (
            "docs/returns.md",
            "shop/back.py",
            "2025-05-02",
        )
