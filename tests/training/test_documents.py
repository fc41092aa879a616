"""Raw text in the article's formats, and cutting it without losing a token."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inhouse_retrieval import ChangedFile, Comment, InnerCommit, PullRequest, ReviewComment
from inhouse_training.documents import change_document, count_tokens, file_document, split_document

PULL_REQUEST = PullRequest(
    number=2989,
    title="Create devcontainer.json",
    description="",
    url="https://github.com/octocat/Hello-World/pull/2989",
    created_at=datetime(2024, 2, 26, 11, 39, 3, tzinfo=UTC),
    merged_at=None,
    commit="c" * 40,
    parent="p" * 40,
    files=(ChangedFile(".devcontainer/devcontainer.json", "added", '@@ -0,0 +1,2 @@\n+{\n+  "image": 1\n'),),
)


def test_a_file_is_rendered_as_in_the_article(tokenizer: Any) -> None:
    _, pieces = split_document(file_document("client/product.ts", "export type A = 1;\n"), tokenizer, 512)
    assert [piece.text for piece in pieces] == ["- File: client/product.ts\nContent:\nexport type A = 1;\n"]
    assert pieces[0].last


def test_a_pull_request_is_rendered_as_in_the_article(tokenizer: Any) -> None:
    _, pieces = split_document(change_document(PULL_REQUEST), tokenizer, 512)
    assert pieces[0].text == (
        "PR #2989: Create devcontainer.json\n"
        "URL: https://github.com/octocat/Hello-World/pull/2989\n"
        "Description: None\n"
        "Created at: 2024-02-26T11:39:03Z\n"
        "Merged at: None\n"
        "File: .devcontainer/devcontainer.json, Status: added\n"
        'Changes: @@ -0,0 +1,2 @@\n+{\n+  "image": 1\n'
    )


def test_what_was_said_stands_in_its_place_and_bots_are_left_out(tokenizer: Any) -> None:
    when = datetime(2024, 2, 27, tzinfo=UTC)
    path = ".devcontainer/devcontainer.json"
    change = replace(
        PULL_REQUEST,
        comments=(Comment("member", when, "Do we need it?\nReally?"), Comment("bot", when, "Coverage 81 %")),
        review_comments=(
            ReviewComment(path, 2, "new", '@@ -0,0 +1,2 @@\n+{\n+  "image": 1', "owner", when, "Name it. 🐳"),
            ReviewComment("old.json", 9, "old", "", "author", when, "This went away."),
            ReviewComment(path, None, "new", "@@ -0,0 +1,2 @@", "", when, "A fine file."),
            ReviewComment(path, 1, "new", "", "bot", when, "Lint"),
        ),
    )
    _, [piece] = split_document(change_document(change), tokenizer, 512)
    assert piece.text.partition("Merged at: None\n")[2] == (
        "Comment (member): Do we need it?\nReally?\n"
        "File: .devcontainer/devcontainer.json, Status: added\n"
        'Changes: @@ -0,0 +1,2 @@\n+{\n+  "image": 1\n'
        'Review comment (owner) on line 2:\n> +  "image": 1\nName it. 🐳\n'
        "Review comment:\nA fine file.\n"
        "Review comment (author) on old.json line 9:\nThis went away.\n"
    )


def test_who_wrote_a_change_and_its_commits_stand_before_its_files() -> None:
    commits = (InnerCommit("a" * 40, "Ask for the date"), InnerCommit("b" * 40, "Show it"))
    document = change_document(replace(PULL_REQUEST, author_role="member", commits=commits))
    about, listed = document.sections[:2]
    assert about.body.endswith("\nAuthor: member\n")
    assert (listed.header, listed.body) == ("Commits:\n", "- Ask for the date\n- Show it\n")
    (_, after, *_) = change_document(replace(PULL_REQUEST, commits=commits[:1])).sections
    assert after.header != "Commits:\n", "one commit says what the title says"


def test_a_plain_commit_stands_where_there_are_no_pull_requests(tokenizer: Any) -> None:
    change = PullRequest(None, "Fix it", "", None, None, None, "abc" * 10, "p" * 40, ())
    _, pieces = split_document(change_document(change), tokenizer, 512)
    assert pieces[0].text.startswith("Commit abcabcabcabc: Fix it\n")


def test_a_long_file_is_cut_at_lines_with_its_heading_repeated(tokenizer: Any) -> None:
    text = "".join(f"value_{number} = compute({number})\n" for number in range(200))
    total, pieces = split_document(file_document("long.py", text), tokenizer, 128)
    assert len(pieces) > 10
    heading = "- File: long.py\nContent:\n"
    assert all(piece.text.startswith(heading) for piece in pieces)
    assert "".join(piece.text.removeprefix(heading) for piece in pieces) == text
    assert all(piece.text.endswith("\n") for piece in pieces)
    assert sum(piece.source_tokens for piece in pieces) == total
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    lines = text.split("\n")
    for piece in pieces:
        assert piece.text.removeprefix(heading).split("\n")[0] == lines[piece.first_line - 1]


def test_a_cut_in_a_patch_repeats_the_change_and_the_file(tokenizer: Any) -> None:
    patch = "@@ -0,0 +1,200 @@\n" + "".join(f"+line number {number}\n" for number in range(200))
    change = PullRequest(7, "Add lines", "", None, None, None, "c" * 40, "p" * 40, (
        ChangedFile("a.txt", "added", patch),
        ChangedFile("b.txt", "added", "@@ -0,0 +1 @@\n+end\n"),
    ))  # fmt: skip
    total, pieces = split_document(change_document(change), tokenizer, 128)
    assert all(piece.text.startswith("PR #7: Add lines\n") for piece in pieces)
    assert all("File: a.txt, Status: added\nChanges: " in piece.text for piece in pieces[:-1])
    assert "File: b.txt, Status: added\nChanges: @@ -0,0 +1 @@\n+end\n" in pieces[-1].text
    assert sum(piece.source_tokens for piece in pieces) == total


def test_a_long_file_is_cut_between_its_functions(tokenizer: Any) -> None:
    body = "".join(f"    step_{line} = do(step_{line - 1})\n\n" for line in range(1, 6))
    text = "\n".join(f"@once\ndef job_{number}():\n{body}" for number in range(12))
    total, pieces = split_document(file_document("jobs.py", text), tokenizer, 256)
    heading = "- File: jobs.py\nContent:\n"
    assert len(pieces) > 3 and sum(piece.source_tokens for piece in pieces) == total
    assert "".join(piece.text.removeprefix(heading) for piece in pieces) == text
    assert all(piece.text.removeprefix(heading).startswith("@once\ndef job_") for piece in pieces)


def test_a_patch_is_cut_between_hunks_and_a_long_hunk_repeats_its_place(tokenizer: Any) -> None:
    def hunk(number: int, lines: int) -> str:
        return f"@@ -{number},0 +{number},{lines} @@ def f{number}():\n" + f"+    number = {number}\n" * lines

    patch = "".join(hunk(number, 6) for number in (10, 20, 30, 40)) + hunk(50, 60)
    change = replace(PULL_REQUEST, files=(ChangedFile("a.py", "modified", patch),))
    total, pieces = split_document(change_document(change), tokenizer, 300)
    shown = [piece.text.partition("Changes: ")[2] for piece in pieces]
    assert len(pieces) > 3 and all(text.startswith("@@ -") for text in shown)
    assert all(text.startswith("@@ -50,0 +50,60 @@ def f50():\n+") for text in shown[2:])
    assert "".join(shown).count("+    number = 50\n") == 60
    assert sum(piece.source_tokens for piece in pieces) == total, "what is repeated is not counted as read"


def test_a_heading_that_fills_half_a_row_gives_no_piece(tokenizer: Any) -> None:
    total, pieces = split_document(file_document("deep/" * 80 + "x", "text"), tokenizer, 64)
    assert pieces == []
    assert total > 32


@pytest.mark.parametrize("text", ["x" * 5000, "naïve → 日本語 🎉 " * 300, "<|im_end|>" * 200, "\r\n\t" * 300])
def test_one_endless_line_is_cut_and_nothing_is_lost(tokenizer: Any, text: str) -> None:
    total, pieces = split_document(file_document("f", text), tokenizer, 64)
    heading = "- File: f\nContent:\n"
    assert "".join(piece.text.removeprefix(heading) for piece in pieces) == text
    assert sum(piece.source_tokens for piece in pieces) == total


@settings(max_examples=40, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=400), room=st.integers(24, 90))
def test_any_text_survives_cutting(tokenizer: Any, text: str, room: int) -> None:
    total, pieces = split_document(file_document("f", text), tokenizer, room)
    heading = "- File: f\nContent:\n"
    assert "".join(piece.text.removeprefix(heading) for piece in pieces) == text
    assert sum(piece.source_tokens for piece in pieces) == total
    # Cut text can need a token or two more than the same text in one piece.
    assert all(count_tokens(tokenizer, piece.text) <= room + 8 for piece in pieces)
