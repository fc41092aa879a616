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


ONCE = {"send_the_parcel": 1}


def test_each_question_comes_with_its_answer_and_the_line_that_proves_it() -> None:
    path = trained_path("parcel")
    items = {item.evidence[0].text: item for item in lookup_items([section(path, first_line=41)], ONCE, 1)}
    assert set(items) == {"RETRY_LIMIT = 12", "    RETRY_LIMIT_HERE = 13", "def send_the_parcel(first, second):"}
    value = items["RETRY_LIMIT = 12"]
    assert value.answer == "`RETRY_LIMIT` is `12`." and "`RETRY_LIMIT`" in value.question and path in value.question
    assert (value.evidence[0].first_line, value.evidence[0].last_line) == (41, 41)
    answers = {item.answer for item in lookup_items([section(path)], ONCE, 1)}
    assert "`send_the_parcel` takes `first, second`." in answers
    assert f"`send_the_parcel` is defined in `{path}`." in answers


def test_what_has_two_answers_is_not_asked() -> None:
    path = trained_path("here")

    def answers(*sections: Section, homes: int = 1) -> set[str]:
        return {item.answer for item in lookup_items(sections, {"send_the_parcel": homes}, 1)}

    assert f"`send_the_parcel` is defined in `{path}`." in answers(section(path))
    assert not any("is defined in" in answer for answer in answers(section(path), homes=2))
    assert "`RETRY_LIMIT` is `12`." in answers(section(path), homes=2), "of which file is asked"
    other = "RETRY_LIMIT = 14\n\n\ndef send_the_parcel(third, fourth):\n    return third\n"
    assert not {"`RETRY_LIMIT` is `14`.", "`RETRY_LIMIT` is `12`."} & answers(section(path), section(path, other, 50))
    thrice = [section(path, CODE + CODE), section(path, other, 50)]
    assert "`RETRY_LIMIT` is `14`." not in answers(*thrice)
    assert not any("send_the_parcel" in answer for answer in answers(*thrice))


def test_the_line_that_is_quoted_has_the_name_in_it() -> None:
    code = "@property\ndef send_the_parcel(first, second):\n    return first\n"
    items = lookup_items([section(trained_path("parcel"), code, 7)], ONCE, 1)
    assert {item.evidence[0].text for item in items} == {"def send_the_parcel(first, second):"}
    assert {item.evidence[0].first_line for item in items} == {8}


def test_kinds_and_files_share_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MOST", 9)
    files = [
        section(trained_path(f"area{number}_"), CODE.replace("send_the_parcel", f"send_the_parcel{number}"))
        for number in range(6)
    ]
    homes = {f"send_the_parcel{number}": 1 for number in range(6)}
    items = lookup_items(files, homes, 1)
    assert items == lookup_items(files, homes, 1) != lookup_items(files, homes, 2)
    kinds = Counter(
        PLACE if "defined in" in item.answer else PARAMETERS if " takes " in item.answer else VALUE for item in items
    )
    assert kinds == dict.fromkeys(KINDS, 3)


def test_nothing_is_asked_in_the_evaluation_that_is_trained_on(
    shop: Repository, cut: Cut, sections: list[Section]
) -> None:
    house = read_house(shop, cut.snapshot, ())
    homes = Counter(name for _, name in house.definitions)
    sources = {evidence.section.path for item in lookup_items(sections, homes, 1) for evidence in item.evidence}
    asked = known_questions(shop, cut.snapshot, house, 50)
    assert sources and asked
    # A definition is asked for without its path.
    trained = {*sources, *(name for path, name in house.definitions if path in sources and homes[name] == 1)}
    assert not [each for each in asked if any(one in f"{each.question} {each.span}" for one in trained)]


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
