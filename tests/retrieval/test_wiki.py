"""Wiki pages: which they are, how they are read, and that newer code comes before them."""

from __future__ import annotations

import os
import shutil
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
    assert skipped[0].path == "../export/link.md"
    read = wiki.read_current("../export/deep/new.txt")
    assert isinstance(read, tuple) and "REDACTED" in read[1] and "a1B2" not in read[1]
    told = list(wiki.pages_until(datetime(2024, 1, 1, tzinfo=UTC)))
    assert [page[0].path for page in told if not isinstance(page, SkippedFile)] == ["../export/old.txt"]
    assert any(isinstance(page, SkippedFile) and "no history" in page.reason for page in told)
    assert wiki.read_current("../export/../shop/basket.py") is None or isinstance(
        wiki.read_current("../export/../shop/basket.py"), SkippedFile
    )


@pytest.mark.parametrize("folder", ["..", ".", "/"])
def test_a_folder_that_holds_the_repository_is_refused(root: Path, folder: str) -> None:
    with pytest.raises(InhouseError, match="holds the repository"):
        Wiki(Repository.open(root).with_wiki([folder]))


def test_a_missing_folder_is_listed_and_one_that_goes_away_is_no_error(
    root: Path, wiki_clone: Path, state: Path, encoder: Encoder
) -> None:
    repository = Repository.open(root).with_wiki(["../nowhere", "~nobody-here/x", "../shop.wiki"])
    with Index.open(repository, state, encoder) as index:
        skipped = {file.path: file.reason for file in index.refresh(embed=False).skipped}
        assert skipped["../nowhere/"] == skipped["~nobody-here/x"] == "there is no such folder"
        shutil.rmtree(wiki_clone)
        assert index.search("gift cards", 5).passages == ()
        assert index.refresh(embed=False).files == 3


def test_links_lead_to_what_they_mean_and_rules_hold_outside(root: Path, wiki_clone: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(wiki_clone)
    (tmp_path / "inner").symlink_to(root / "docs")
    wiki = Wiki(Repository.open(root).excluding(["Home*"]).with_wiki(["../link", "../inner", "../shop.wiki"]))
    pages, skipped = wiki.work_tree()
    assert [page.path for page in pages] == ["../shop.wiki/Gift-cards.md"], "once, and without what is excluded"
    assert {file.path: file.reason for file in skipped}["../shop.wiki/Home.md"] == "excluded by the settings"
    assert wiki.is_page("docs/returns.md") and not wiki.is_page("docs/requirements.txt")


def test_a_clone_inside_the_repository_is_read_with_its_own_history(root: Path) -> None:
    inner = root / "wiki"
    inner.mkdir()
    git(inner, "init", "--quiet", "--initial-branch=main")
    write(inner, {"Home.md": "# Home\n"})
    commit_all(inner, "home", date="2025-01-05T00:00:00Z")
    wiki = Wiki(Repository.open(root).with_wiki(["docs", "wiki"]))
    assert [page.path for page in wiki.work_tree()[0]] == ["wiki/Home.md"]
    assert wiki.last_changed("wiki/Home.md") == datetime(2025, 1, 5, tzinfo=UTC).timestamp()


def test_what_had_not_landed_yet_is_not_read(root: Path, wiki_clone: Path) -> None:
    git(wiki_clone, "checkout", "--quiet", "-b", "draft", "HEAD~1")
    write(wiki_clone, {"Secret-plan.md": "# Plan\n"})
    commit_all(wiki_clone, "draft", date="2025-03-20T00:00:00Z")
    git(wiki_clone, "checkout", "--quiet", "master")
    git(wiki_clone, "merge", "--quiet", "--no-ff", "-m", "land", "draft", date="2025-06-20T00:00:00Z")
    wiki = Wiki(Repository.open(root).with_wiki(["../shop.wiki"]))
    read = [page for page in wiki.pages_until(datetime(2025, 4, 1, tzinfo=UTC)) if not isinstance(page, SkippedFile)]
    assert [page[0].path for page in read] == ["../shop.wiki/Home.md"]
    [none] = wiki.pages_until(datetime(2020, 1, 1, tzinfo=UTC))
    assert isinstance(none, SkippedFile) and "no commit before" in none.reason


def test_a_date_follows_the_wiki_and_an_edit_counts_at_once(root: Path, wiki_clone: Path) -> None:
    wiki = Wiki(Repository.open(root).with_wiki(["../shop.wiki"]))
    assert wiki.last_changed("../shop.wiki/Home.md") == datetime(2025, 3, 10, tzinfo=UTC).timestamp()
    (wiki_clone / "Home.md").write_text("# Home\n\nNew.\n")
    edited = wiki.last_changed("../shop.wiki/Home.md")
    assert edited is not None and edited > datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    commit_all(wiki_clone, "again", date="2025-08-01T00:00:00Z")
    assert wiki.last_changed("../shop.wiki/Home.md") == datetime(2025, 8, 1, tzinfo=UTC).timestamp()


def test_strange_names_are_skipped(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    for name in (b"b\xff.md", b"\x1eodd.md", b"fine.md"):
        (folder / os.fsdecode(name)).write_text("text\n")
    pages, skipped = Wiki(Repository.open(root).with_wiki(["../export"])).work_tree()
    assert [page.path for page in pages] == ["../export/fine.md"]
    assert len(skipped) == 2


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

        # The page is mended but not committed: it is not older than the code any more.
        write(root, {"docs/returns.md": RETURNS + "Since May they are collected.\n"})
        page = next(passage for passage in index.search(question, 3).passages if passage.path == "docs/returns.md")
        assert page.newer_code == ""


def test_a_page_of_the_first_commit_is_older_than_what_changed_since(root: Path, state: Path, encoder: Encoder) -> None:
    write(root, {"docs/couriers.md": "# Couriers\n\nWe call `book_courier` at noon.\n"})
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--amend", "--no-edit", date="2025-02-01T00:00:00Z")
    write(root, {"shop/courier.py": "def book_courier(parcel):\n    return None\n"})
    commit_all(root, "No couriers", date="2025-04-01T00:00:00Z")
    with Index.open(Repository.open(root).with_wiki(["docs"]), state, encoder) as index:
        index.refresh()
        found = index.search("couriers noon", 5).passages
        page = next(passage for passage in found if passage.path == "docs/couriers.md")
        assert page.newer_code == "shop/courier.py" and page.updated == "before 2025-04-01"


def test_a_page_that_names_a_file_by_its_path_is_older_than_that_file(
    root: Path, state: Path, encoder: Encoder
) -> None:
    write(root, {"docs/limits.md": "# Limits\n\nHow many couriers we pay stands in `shop/limits.py`.\n"})
    write(root, {"shop/limits.py": "_couriers = 3\n"})
    commit_all(root, "Limit the couriers", date="2025-03-01T00:00:00Z")
    write(root, {"shop/limits.py": "_couriers = 5\n"})
    commit_all(root, "More couriers", date="2025-04-01T00:00:00Z")
    with Index.open(Repository.open(root).with_wiki(["docs"]), state, encoder) as index:
        index.refresh()
        found = index.search("how many couriers do we pay?", 5).passages
        page = next(passage for passage in found if passage.path == "docs/limits.md")
        assert (page.newer_code, page.newer_code_updated) == ("shop/limits.py", "2025-04-01")
