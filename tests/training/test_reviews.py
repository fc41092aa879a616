"""Review replies: a hunk of a past change, and what a reviewer said of it, in the form of the reading reviewer."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import PullRequest, PullRequestStore, Repository, ReviewComment, read_pull_requests
from inhouse_training import BaseModel, open_run
from inhouse_training.dataset import Dataset, build_dataset
from inhouse_training.recipe import Recipe
from inhouse_training.reviews import NO_REMARKS, Review, UnusedComment, read_reviews, review_row

from .history import commit, git, handler
from .test_dataset import squashed
from .test_edits import counter, learned
from .test_leaks import VALIDATION

WHEN = datetime(2026, 11, 2, tzinfo=UTC)
PAY = "def pay(amount):\n    total = amount * 1.19\n    log(total)\n    return total\n"
HUNK = "@@ -1,2 +1,4 @@\n def pay(amount):\n-    return amount\n+    total = amount * 1.19"
LATER = "@@ -1,2 +1,3 @@\n def pay(amount):\n+    total = amount * 1.17\n+    print(total)"


def said(text: str, hunk: str = HUNK, role: str = "member", path: str = "pay.py", side: Any = "new") -> ReviewComment:
    return ReviewComment(path, 2, side, hunk, role, WHEN, text)


@pytest.fixture(scope="module")
def paid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, PullRequest]:
    """A change of one file that was commented, and of two that were not."""
    root = tmp_path_factory.mktemp("reviews") / "shop"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    commit(root, "Start", pay_py="def pay(amount):\n    return amount\n", old_py="x = 1\n")
    commit(root, "Pay with tax (#7)", pay_py=PAY, new_py=handler("thing"), old_py="x = 1\ny = 2\n")
    repository = Repository.open(root)
    return repository, read_pull_requests(repository)[0]


def reviews(paid: tuple[Repository, PullRequest], *comments: ReviewComment) -> tuple[list[Review], list[str]]:
    repository, change = paid
    found = list(read_reviews(repository, [replace(change, review_comments=comments)], 1))
    unused = [each.reason for each in found if isinstance(each, UnusedComment)]
    return [each for each in found if isinstance(each, Review)], unused


def test_a_remark_on_lines_that_landed_is_shown_the_whole_hunk_and_the_code_around(
    paid: tuple[Repository, PullRequest], tokenizer: Any
) -> None:
    text = "The rate lives in tax.py.\n```suggestion\n    total = taxed(amount)\n```\n"
    [review, passed], unused = reviews(paid, said(text))
    assert unused == [] and review.name == f"{paid[1].commit}:pay.py:2"
    row = review_row(tokenizer, counter(tokenizer), review, 2048)
    assert row is not None
    ids, labels, (system, user, assistant) = row
    assert system.content.startswith("You review a change to this code repository.")
    assert "The change is called: Pay with tax\n" in user.content
    assert f"The code as it is after the change:\n\npay.py:1-4\n```\n{PAY}```\n" in user.content
    assert "+    log(total)\n" in user.content.partition("The hunk to review")[2], "not cut at the remark"
    [finding] = json.loads(assistant.content)["findings"]
    assert list(finding) == ["quote", "problem", "better", "confidence"]
    assert finding["quote"] == "    total = amount * 1.19" and finding["better"] == "    total = taxed(amount)"
    assert finding["problem"] == "The rate lives in tax.py." and finding["confidence"] >= 5
    assert learned(tokenizer, labels) == assistant.content + "<|im_end|>" and len(ids) <= 2048
    # For each that got a remark, one that got none.
    assert passed.path in ("new.py", "old.py") and passed.remarks == ()
    row = review_row(tokenizer, counter(tokenizer), passed, 2048)
    assert row is not None and row[2][-1].content == '{"findings": []}'


def test_a_remark_on_lines_that_did_not_land_is_shown_what_was_commented(
    paid: tuple[Repository, PullRequest], tokenizer: Any
) -> None:
    [review, _], _ = reviews(paid, said("Use the logger.", LATER))
    assert review.hunk.lines[-1] == "+    print(total)" and review.around is None
    row = review_row(tokenizer, counter(tokenizer), review, 2048)
    assert row is not None and "The code as it is after the change" not in row[2][1].content
    assert row[2][1].content.count("amount * 1.17") == 1 and "1.19" not in row[2][1].content


def test_remarks_on_one_hunk_make_one_answer(paid: tuple[Repository, PullRequest]) -> None:
    log = HUNK + "\n+    log(total)"
    [review, _], _ = reviews(paid, said("Is this logged twice?", log), said("The rate lives in tax.py."))
    assert [remark.quote.strip() for remark in review.remarks] == ["total = amount * 1.19", "log(total)"]


@pytest.mark.parametrize(
    ("comment", "reason"),
    [
        (said("Coverage fell by 3 %.", role="bot"), "of a bot"),
        (said("I was not sure here myself.", role="author"), "of the change's author"),
        (said("Nice!"), "says too little"),
        (said("Why did this go away?", side="old"), "not about an added line"),
        (said("Is this old?", "@@ -1,2 +1,3 @@\n def pay(amount):"), "not about an added line"),
        (said("A word on the whole file.", ""), "the forge has no diff of it"),
        (said("Well, well. " * 60), "longer than a finding may be"),
    ],
)
def test_what_the_reviewer_of_the_product_could_not_say_is_left_out_with_its_reason(
    paid: tuple[Repository, PullRequest], comment: ReviewComment, reason: str
) -> None:
    assert reviews(paid, comment) == ([], [reason])


def test_only_the_first_word_of_a_thread_is_a_remark(paid: tuple[Repository, PullRequest]) -> None:
    found, unused = reviews(
        paid, said("The rate lives in tax.py."), said("As I said, in tax.py."), said("Done!", role="author")
    )
    assert len(found[0].remarks) == 1 and unused == ["goes on with a thread"] * 2


def test_a_suggestion_alone_is_a_remark_and_hidden_words_are_not(paid: tuple[Repository, PullRequest]) -> None:
    [review, _], _ = reviews(paid, said("```suggestion\n    total = taxed(amount)\n```"))
    assert review.remarks[0].problem and review.remarks[0].better == "    total = taxed(amount)"
    assert reviews(paid, said("<!-- never mind this one -->"))[1] == ["says too little"]


def test_of_a_long_hunk_the_lines_up_to_the_remark_are_kept(
    paid: tuple[Repository, PullRequest], tokenizer: Any
) -> None:
    lines = [f"+value_{number} = compute({number})" for number in range(300)]
    [review, *_], _ = reviews(paid, said("Why this number?", "@@ -0,0 +1,300 @@\n" + "\n".join(lines)))
    row = review_row(tokenizer, counter(tokenizer), review, 800)
    assert row is not None and len(row[0]) <= 800
    user = row[2][1].content
    assert "pay.py:281-300\n" in user and "+value_299 " in user and "+value_279 " not in user
    assert review_row(tokenizer, counter(tokenizer), review, 128) is None


@pytest.fixture
def recipe(tiny_recipe: Recipe) -> Recipe:
    data = {"max_train_tokens": 0, "max_tokens": 1024, "file_share": 0.2, "review_share": 0.2}
    return tiny_recipe.model_copy(update={"data": tiny_recipe.data.model_copy(update=data)})


def told(dataset: Dataset) -> list[dict[str, Any]]:
    listed = map(json.loads, (dataset.directory / "left_out.jsonl").read_text().splitlines())
    return [each for each in listed if each["kind"] == "review"]


def test_remarks_of_training_changes_are_learned_as_they_were_said_by_the_snapshot(
    tokenizer: Any, recipe: Recipe, tiny_base: BaseModel, tmp_path: Path
) -> None:
    repository, state = squashed(tmp_path / "shop", 12), tmp_path / "state"
    state.mkdir()
    cut = open_run(repository, state, recipe, tiny_base).cut
    with PullRequestStore.in_state(state) as store:
        for change in (*cut.training, *cut.held_out):
            if change.number is None:
                continue
            path, key = f"area{change.number}.py", "AKIA" + "Z7QX3MPLK2VBN5RT"
            hunk = f"@@ -0,0 +1,2 @@\n+\n+@handles('{key}')"
            copied = "@@ -0,0 +1,20 @@\n" + "\n".join("+" + line for line in VALIDATION.strip().split("\n"))
            remarks = [
                ReviewComment(path, 2, "new", hunk, "member", cut.as_of, f"Early word, not {key}."),
                ReviewComment(path, 2, "new", hunk + " ", "member", cut.as_of + timedelta(seconds=1), "A late word."),
                ReviewComment(path, 2, "new", hunk + "  ", "bot", cut.as_of, "A word of a bot."),
                ReviewComment(path, 9, "new", copied, "member", cut.as_of, "Copied from where?"),
            ]
            store.put(replace(change, review_comments=tuple(remarks)), "1")
        commit(repository.root, "Plan the couriers (#13)", courier_py=VALIDATION)
        repository = Repository.open(repository.root)
        run = open_run(repository, state, recipe, tiny_base)
    dataset = build_dataset(repository, tokenizer, recipe, run.cut, run.dataset)
    rows = [row for row in dataset.rows if row["kind"] == "review"]
    learned_from = {change.commit for change in run.cut.training if change.number is not None}
    assert {row["name"].split(":")[0] for row in rows} == learned_from
    for row in rows:
        [source] = json.loads(row["origin"])["sources"]
        assert f"{source['commit']}:{source['place']}" == row["name"]
    text = "".join(tokenizer.decode(row["input_ids"]) for row in rows)
    assert text.count("Early word, not [REDACTED") == len(learned_from)
    assert "AKIA" not in text and "late word" not in text and "of a bot" not in text and "CourierPlanner" not in text
    reasons = {each["reason"] for each in told(dataset)}
    assert reasons == {"of a bot", "near-copy of a held-out change"}
    figures = dataset.manifest["tokens"]["review"]
    assert figures["read"] == figures["trained"] + sum(figures["dropped"].values())
    assert figures["trained"] == sum(row["source_tokens"] for row in rows) > 0 == figures["held_out"]


def test_where_nothing_is_synced_the_build_says_so(
    tokenizer: Any, recipe: Recipe, tiny_base: BaseModel, tmp_path: Path
) -> None:
    repository = squashed(tmp_path / "shop", 12)
    run = open_run(repository, tmp_path, recipe, tiny_base)
    dataset = build_dataset(repository, tokenizer, recipe, run.cut, tmp_path / "dataset")
    assert "review" not in dataset.rows["kind"]
    assert [each["reason"] for each in told(dataset)] == [NO_REMARKS]
    assert dataset.manifest["tokens"]["review"]["dropped"] == {NO_REMARKS: 0}
