"""Questions that a program reads off the code, with passages of which one answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from inhouse_retrieval import Repository
from inhouse_training.cut import Cut
from inhouse_training.dataset import Dataset
from inhouse_training.facts import KINDS, PARAMETERS, PLACE, VALUE, is_kept_for_asking
from inhouse_training.measures.spans import known_questions
from inhouse_training.probes.answers import read_house
from inhouse_training.prompts import NOT_HERE
from inhouse_training.recipe import Recipe
from inhouse_training.synthesis import lookup, raft
from inhouse_training.synthesis.lookup import lookup_items
from inhouse_training.synthesis.sources import Section

from .written import rows_of, with_data

CODE = """\
RETRY_LIMIT = 12


def send_the_parcel(first, second):
    RETRY_LIMIT_HERE = 13
    return first
"""


def trained_path(stem: str) -> str:
    """A path of which rows are made, and none that is kept for asking."""
    return next(path for number in range(99) if not is_kept_for_asking(path := f"{stem}{number}.py"))


def section(path: str, text: str = CODE, first_line: int = 1) -> Section:
    return Section(path, "b", first_line, first_line + text.count("\n"), text, False, ("send_the_parcel",))


def test_each_question_comes_with_its_answer_and_the_line_that_proves_it() -> None:
    path = trained_path("parcel")
    items = {item.evidence[0].text: item for item in lookup_items([section(path, first_line=41)], 1)}
    assert set(items) == {"RETRY_LIMIT = 12", "    RETRY_LIMIT_HERE = 13", "def send_the_parcel(first, second):"}
    value = items["RETRY_LIMIT = 12"]
    assert value.answer == "`RETRY_LIMIT` is `12`." and "`RETRY_LIMIT`" in value.question and path in value.question
    assert (value.evidence[0].first_line, value.evidence[0].last_line) == (41, 41)
    answers = {item.answer for item in lookup_items([section(path)], 1)}
    assert "`send_the_parcel` takes `first, second`." in answers
    assert f"`send_the_parcel` is defined in `{path}`." in answers


def test_what_has_two_answers_is_not_asked() -> None:
    here, there = trained_path("here"), trained_path("there")
    once = [item.answer for item in lookup_items([section(here)], 1)]
    assert any("is defined in" in answer for answer in once)
    twice = [item.answer for item in lookup_items([section(here), section(there)], 1)]
    assert not any("is defined in" in answer for answer in twice)
    assert "`RETRY_LIMIT` is `12`." in twice, "of which file is asked"
    again = [item.answer for item in lookup_items([section(here), section(here, first_line=50)], 1)]
    assert again == []


def test_kinds_and_files_share_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MOST", 9)
    files = [
        section(trained_path(f"area{number}_"), CODE.replace("send_the_parcel", f"send_the_parcel{number}"))
        for number in range(6)
    ]
    items = lookup_items(files, 1)
    assert items == lookup_items(files, 1) != lookup_items(files, 2)
    kinds = Counter(
        PLACE if "defined in" in item.answer else PARAMETERS if " takes " in item.answer else VALUE for item in items
    )
    assert kinds == dict.fromkeys(KINDS, 3)


def test_nothing_is_asked_in_the_evaluation_that_is_trained_on(
    shop: Repository, cut: Cut, sections: list[Section]
) -> None:
    sources = {evidence.section.path for item in lookup_items(sections, 1) for evidence in item.evidence}
    asked = known_questions(shop, cut.snapshot, read_house(shop, cut.snapshot, ()), 50)
    assert sources and asked
    assert not any(path in f"{each.question} {each.span}" for each in asked for path in sources)
    assert not {item.question for item in lookup_items(sections, 1)} & {each.question for each in asked}


def test_rows_quote_the_passage_that_answers_or_say_that_none_does(
    recipe: Recipe, build: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raft, "WITHOUT_TRUE_PASSAGE", 0.4)
    dataset = build(with_data(recipe, file_share=0.3, lookup_share=0.3))
    rows = rows_of(dataset, "lookup")
    quoted = 0
    for origin, (_, user, assistant) in rows:
        assert origin["generator"] == "no model" and origin["split"] == "training"
        assert user["content"].startswith("Passages of the repository:\n\n")
        if assistant["content"] == NOT_HERE:
            continue
        quoted += 1
        place, quote, _, answer = assistant["content"].split("\n")
        assert place.rpartition(":")[0] == origin["sources"][0]["place"].rpartition(":")[0]
        assert f"{place}\n```\n" in user["content"], "the place stands above a passage"
        assert quote.removeprefix("> ") in user["content"] and answer.endswith(".")
    assert 0 < quoted < len(rows)
    assert "courier.py" not in " ".join(dataset.rows["origin"]), "it is held out"
    figures = dataset.manifest["tokens"]["lookup"]
    assert figures["read"] == figures["trained"] + sum(figures["dropped"].values()) > 0
    assert dataset.manifest["synthesis"]["rows"]["lookup"] >= len(rows)


def test_no_row_asks_where_nothing_is_wanted(recipe: Recipe, build: Callable[..., Dataset]) -> None:
    assert "lookup" not in build(with_data(recipe, file_share=0.3)).rows["kind"]
