"""Pull requests in the index: beside the code, dated, redacted, opening in an editor, and never of the future."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from inhouse_retrieval import (
    Encoder,
    Index,
    Passage,
    PullRequest,
    PullRequestStore,
    Repository,
    ReviewComment,
    SearchResult,
    pull_request_pages,
)
from inhouse_retrieval.benchmark import clone_at, run_benchmark, select_queries
from inhouse_retrieval.pull_request_pages import SHARE
from tests.retrieval.trees import commit_all, git

PRINTED = "Print vouchers at the till (#2)\n\nCustomers lost the paper ones.\n\n<!-- say why -->\n![shot](https://x.example/a)"
KEY = "ghp_" + "a1B2" * 9


def land(root: Path, message: str, day: int) -> str:
    """A pull request that changes the basket and lands on a day of March."""
    with (root / "shop/basket.py").open("a") as stream:
        stream.write(f"# {day}\n")
    return commit_all(root, message, date=f"2025-03-{day:02}T12:00:00Z")


@pytest.fixture
def busy(root: Path) -> Repository:
    """The shop, and three pull requests that landed in it."""
    land(root, PRINTED, 2)
    land(root, "Let couriers come at noon (#3)\n\nThey are late before it.", 3)
    land(root, "Weigh the parcels before the courier comes (#4)", 4)
    return Repository.open(root)


def past(result: SearchResult) -> list[Passage]:
    return [passage for passage in result.passages if passage.source == "pull_request"]


def names(result: SearchResult) -> list[str]:
    return [passage.path.rpartition("/")[2] for passage in past(result)]


def remarked(commit: str, text: str) -> PullRequest:
    """What a forge says of the second pull request."""
    when = datetime(2025, 3, 9, tzinfo=UTC)
    remark = ReviewComment("shop/basket.py", 3, "new", "", "member", when, text)
    title, _, description = PRINTED.partition(" (#2)\n\n")
    return PullRequest(2, title, description, None, when, when, commit, "", (), review_comments=(remark,))


def test_pull_requests_come_beside_the_code_and_open(busy: Repository, state: Path, encoder: Encoder) -> None:
    with Index.open(busy, state, encoder) as index:
        index.refresh()
        result = index.search("vouchers printed at the till", SHARE)
        [page] = past(result)
        assert page.path == "../state/pull-requests/2.md" and page.updated == "2025-03-02"
        assert page.changes == ("#2 Print vouchers at the till",)
        assert page.legs == ("dense", "lexical")
        read = (busy.root / page.path).read_text()
        assert "\n".join(read.split("\n")[page.start_line - 1 : page.end_line]) == page.text
        assert "Merged on 2025-03-02" in read and "- shop/basket.py" in read and "Customers lost" in read
        assert "say why" not in read and "x.example" not in read, "nothing hidden, and nothing that a viewer fetches"
        assert index.pull_request_page(page.path) == read
        assert index.pull_request_page("../state/pull-requests/../catalog.sqlite") is None


def test_code_and_wiki_keep_their_places(busy: Repository, state: Path, encoder: Encoder) -> None:
    with Index.open(busy, state, encoder) as index:
        index.refresh()
        for question in ("courier", "why do couriers come late?", "basket", "#3"):
            for limit in (1, SHARE, 10):
                alone = index.search(question, limit, pull_requests=False)
                both = index.search(question, limit)
                kept = [passage for passage in both.passages if passage.source != "pull_request"]
                assert kept == list(alone.passages) and not past(alone)
                assert len(past(both)) <= max(limit // SHARE, question.count("#"))
                scores = [passage.score for passage in both.passages]
                assert scores == sorted(scores, reverse=True), "for whoever sorts by the score"


def test_where_they_come(busy: Repository, state: Path, encoder: Encoder) -> None:
    with Index.open(busy, state, encoder) as index:
        index.refresh(embed=False)
        sources = {
            question: [passage.source for passage in index.search(question, SHARE).passages]
            for question in ("noon courier", "why does the courier come at noon?", "what did #3 say of the courier")
        }
        assert past(index.search("courier, see #3", 1))[0].legs == ("number",)
        assert names(index.search("!4 and PR 2", 1)) == ["4.md", "2.md"]
        assert names(index.search("#77 courier", 1)) == []
    ordinary, of_the_past, by_number = sources.values()
    assert ordinary.count("pull_request") == 1 and ordinary[-1] == "pull_request"
    assert of_the_past.index("pull_request") == 1 and by_number.index("pull_request") == 0


def test_one_that_is_too_old_for_a_page_gets_one_when_it_is_named(
    busy: Repository, state: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_request_pages, "MAX_PAGES", 1)
    with Index.open(busy, state, encoder) as index:
        index.refresh()
        assert sorted(path.name for path in (state / "pull-requests").iterdir()) == ["4.md"]
        assert names(index.search("vouchers at the till", 10)) == [] and names(index.search("what of #99", 10)) == []
        found = index.search("what did #2 do?", 1)
        assert names(found) == ["2.md"] and "Customers lost" in (busy.root / past(found)[0].path).read_text()
        index.refresh()
        assert names(index.search("what did #2 do?", 1)) == ["2.md"]


def test_what_was_synced_is_added_redacted_and_kept_up_to_date(busy: Repository, state: Path, encoder: Encoder) -> None:
    landed = git(busy.root, "rev-parse", "HEAD~2")
    page = state / "pull-requests" / "2.md"
    with Index.open(busy, state, encoder) as index:
        index.refresh()
        with PullRequestStore.in_state(state) as store:
            store.put(remarked(landed, f"Use the thermal printer, its token is {KEY}."), "1")
            store.put(replace(remarked(landed, "Of another forge."), number=3), "1")
        index.refresh()
        assert "thermal printer" in page.read_text() and "on shop/basket.py:3" in page.read_text()
        assert "a1B2" not in page.read_text() and "[REDACTED" in page.read_text()
        assert KEY.encode() not in (state / "catalog.sqlite").read_bytes()
        assert "another forge" not in (state / "pull-requests" / "3.md").read_text(), "a number alone is not believed"
        assert names(index.search("thermal printer", SHARE)) == ["2.md"]
        with PullRequestStore.in_state(state) as store:
            store.put(remarked(landed, "Use the inkjet printer."), "2")
        index.refresh()
        assert "inkjet" in page.read_text() and "thermal" not in page.read_text()
        assert "thermal" not in past(index.search("thermal printer", SHARE))[0].text
        (state / "pull_requests.sqlite").write_bytes(b"not a database" * 1000)
        assert (
            "damaged" in {file.path: file.reason for file in index.refresh().skipped}["../state/pull_requests.sqlite"]
        )
        assert "inkjet" not in page.read_text() and "Customers lost" in page.read_text()


def test_only_what_changed_is_cut_again_and_what_is_gone_goes(
    busy: Repository, state: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = state / "pull-requests"
    with Index.open(busy, state, encoder) as index:
        index.refresh()
        cut: list[str] = []
        really = index._pages._cut
        monkeypatch.setattr(index._pages, "_cut", lambda path, text: [cut.append(path), *really(path, text)][1:])
        index.refresh()
        assert cut == []
        land(busy.root, "Accept cheques (#5)", 5)
        index.refresh()
        assert cut == ["pull-requests/5.md"]
        assert sorted(file.name for file in folder.iterdir()) == ["2.md", "3.md", "4.md", "5.md"]
        git(busy.root, "reset", "--quiet", "--hard", "HEAD~3")
        (folder / "2.md").write_text("torn")
        index.refresh()
        assert [file.name for file in folder.iterdir()] == ["2.md"] and "Customers" in (folder / "2.md").read_text()
        assert cut == ["pull-requests/5.md"] and names(index.search("cheques courier voucher", 10)) == ["2.md"]
        (folder / "2.md").unlink()
        assert (busy.root / past(index.search("vouchers", SHARE))[0].path).is_file(), "a citation opens"


def test_an_open_page_is_no_file_of_the_repository(busy: Repository, state: Path, encoder: Encoder) -> None:
    with Index.open(busy, state, encoder) as index:
        index.refresh()
        opened = {"../state/pull-requests/2.md": "voucher " * 50}
        result = index.search("voucher", SHARE, open_documents=opened)
    assert {passage.source for passage in result.passages if passage.path in opened} <= {"pull_request"}


def test_the_benchmark_sees_pull_requests_of_the_past_alone(
    busy: Repository, state: Path, tmp_path: Path, encoder: Encoder
) -> None:
    snapshot = busy.commit_id("HEAD")
    for day in range(6, 18):
        land(busy.root, f"Sort the lines of the basket, step {day} (#{day})", day)
    folder = busy.root / ".inhouse" / "benchmark"
    folder.mkdir(parents=True)
    with PullRequestStore.in_state(folder.parent) as store:
        store.put(remarked(git(busy.root, "rev-parse", "HEAD~14"), "Said long after."), "1")
    chosen = select_queries(busy, snapshot)
    run_benchmark(busy, folder, encoder, chosen)
    pages = folder / "state" / "pull-requests"
    assert sorted(page.name for page in pages.iterdir()) == ["2.md", "3.md", "4.md"]
    assert "long after" not in (pages / "2.md").read_text(), "a remark may be younger than the snapshot"
    with Index.open(clone_at(busy, snapshot, folder), folder / "state", encoder) as index:
        for query in chosen.queries:
            found = past(index.search(f"{query.title} #{query.commit[:7]} #6", 100))
            assert {page.updated for page in found} <= {"2025-03-02", "2025-03-03", "2025-03-04"}
