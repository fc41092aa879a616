"""Git's changes with what the forge says of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from inhouse_retrieval import Comment, InnerCommit, PullRequest, PullRequestStore, ReviewComment, with_forge

OPENED, MERGED = datetime(2025, 3, 1, 9, tzinfo=UTC), datetime(2025, 3, 2, 9, tzinfo=UTC)
GIT = PullRequest(7, "Offer vouchers", "", "https://old.example.org/7", MERGED, MERGED, "c" * 40, "p" * 40, ())
FORGE = PullRequest(
    7,
    "Offer vouchers",
    "Customers asked. 🎟\n",
    "https://git.example.org/acme/shop/pull/7",
    OPENED,
    MERGED,
    "c" * 40,
    "",
    (),
    comments=(Comment("member", MERGED, "At last."),),
    review_comments=(ReviewComment("a.py", None, "new", "", "author", MERGED, "A file."),),
    commits=(InnerCommit("d" * 40, "wip"),),
    author_role="contributor",
)


def test_the_forge_adds_what_was_said_and_git_keeps_what_landed(tmp_path: Path) -> None:
    with PullRequestStore.in_state(tmp_path) as store:
        store.put(FORGE, "1")
        other, plain = replace(GIT, number=8), replace(GIT, number=None)
        enriched, *unknown = with_forge([GIT, other, plain], store)
    assert unknown == [other, plain]
    assert enriched == replace(
        FORGE, description="Customers asked. 🎟", parent="p" * 40, created_at=OPENED, merged_at=MERGED
    )


def test_a_number_alone_is_not_believed(tmp_path: Path) -> None:
    with PullRequestStore.in_state(tmp_path) as store:
        store.put(FORGE, "1")
        rewritten = replace(GIT, commit="e" * 40)
        of_another_forge = replace(rewritten, title="Fix the till")
        edited = replace(GIT, title="Offer coupons")
        found = with_forge([rewritten, of_another_forge, edited], store)
    assert [bool(change.comments) for change in found] == [True, False, True]
    assert (found[0].commit, found[2].title) == ("e" * 40, "Offer coupons")


def test_without_a_store_nothing_changes() -> None:
    assert with_forge([GIT], None) == [GIT]
