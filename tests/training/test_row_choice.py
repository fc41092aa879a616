"""Which rows are trained on: shares of what is learned, within a budget of what is read."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from inhouse_training.kinds import Kind
from inhouse_training.recipe import DataSettings
from inhouse_training.row_choice import Candidate, Choice, choose_rows


def rows(kind: Kind, count: int, tokens: int, learned: int) -> list[Candidate]:
    return [
        Candidate(
            kind, f"{kind}{number}", 0, tokens, learned, learned, hashlib.sha256(f"{kind}{number}".encode()).digest()
        )
        for number in range(count)
    ]


def settings(budget: int, **shares: float) -> DataSettings:
    none = {"file_share": 0.0, "conversation_share": 0.0, "change_share": 0.0}
    return DataSettings.model_validate({"max_train_tokens": budget, **none, **shares})


def learned(candidates: list[Candidate], choice: Choice) -> dict[str, float]:
    found: Counter[str] = Counter()
    for index in choice.order:
        found[candidates[index].kind] += candidates[index].learned_tokens
    whole = sum(found.values())
    return {kind: tokens / whole for kind, tokens in found.items()}


def read(candidates: list[Candidate], choice: Choice) -> int:
    return sum(candidates[index].tokens for index in choice.order)


def test_shares_are_of_the_learned_tokens_and_the_budget_of_all() -> None:
    candidates = [*rows("file", 400, 100, 100), *rows("edit", 400, 500, 50), *rows("change", 400, 80, 80)]
    data = settings(30_000, file_share=0.5, edit_share=0.2, change_share=0.3)
    choice = choose_rows(candidates, data)
    assert learned(candidates, choice) == pytest.approx({"file": 0.5, "edit": 0.2, "change": 0.3}, abs=0.02)
    assert 29_500 < read(candidates, choice) <= 30_000
    assert {reason for _, reason in choice.dropped} == {"over the recipe's token budget"}
    assert len(choice.order) + len(choice.dropped) == len(candidates)


def test_what_a_kind_does_not_have_goes_to_the_others_in_proportion() -> None:
    candidates = [*rows("file", 400, 100, 100), *rows("edit", 4, 500, 50), *rows("change", 400, 80, 80)]
    found = learned(
        candidates, choose_rows(candidates, settings(30_000, file_share=0.5, edit_share=0.2, change_share=0.3))
    )
    assert found["edit"] < 0.01 and found["file"] / found["change"] == pytest.approx(5 / 3, rel=0.03)


def test_pages_threads_and_written_conversations_share_with_their_kind() -> None:
    candidates = [
        *rows("file", 200, 100, 100), *rows("page", 200, 100, 100), *rows("change", 200, 100, 100),
        *rows("thread", 200, 100, 100), *rows("conversation", 200, 100, 100), *rows("written", 200, 100, 100),
    ]  # fmt: skip
    shares = {"file_share": 0.4, "change_share": 0.2, "conversation_share": 0.4}
    found = learned(candidates, choose_rows(candidates, settings(20_000, **shares)))
    assert found["file"] + found["page"] == pytest.approx(0.4, abs=0.02)
    assert found["change"] + found["thread"] == pytest.approx(0.2, abs=0.02)
    assert found["conversation"] + found["written"] == pytest.approx(0.4, abs=0.02)
    shares = {"file_share": 0.2, "page_share": 0.2, "change_share": 0.1, "thread_share": 0.1, "written_share": 0.2}
    found = learned(candidates, choose_rows(candidates, settings(20_000, **shares)))
    assert found == pytest.approx(
        {"file": 0.25, "page": 0.25, "change": 0.125, "thread": 0.125, "written": 0.25}, abs=0.02
    )


def test_a_long_row_that_does_not_fit_leaves_room_for_short_ones() -> None:
    candidates = [*rows("file", 1, 900, 900), *rows("change", 5, 100, 100)]
    choice = choose_rows(candidates, settings(600, file_share=0.9, change_share=0.1))
    assert [candidates[index].kind for index in choice.order] == ["change"] * 5


def test_everything_is_read_where_the_budget_suffices() -> None:
    candidates = [*rows("file", 3, 100, 100), *rows("edit", 3, 100, 10), *rows("replay", 3, 100, 100)]
    choice = choose_rows(candidates, settings(900, file_share=0.1, edit_share=0.9))
    assert Counter(candidates[index].kind for index in choice.order) == {"file": 3, "edit": 3}
    assert {(candidates[index].kind, reason) for index, reason in choice.dropped} == {
        ("replay", "switched off in the recipe")
    }


def test_a_synthetic_kind_keeps_to_its_share_below_a_budget_too() -> None:
    candidates = [*rows("file", 400, 100, 100), *rows("lookup", 400, 500, 50)]
    data = settings(60_000, file_share=0.38, lookup_share=0.05, edit_share=0.4)  # there are no edits
    choice = choose_rows(candidates, data)
    found = learned(candidates, choice)
    assert 0.03 < found["lookup"] <= 0.05 + 1e-9 and read(candidates, choice) > 40_000
    reasons = Counter((candidates[index].kind, reason) for index, reason in choice.dropped)
    assert reasons["lookup", "over its share of the learned tokens"] == 400 - sum(
        candidates[index].kind == "lookup" for index in choice.order
    )
