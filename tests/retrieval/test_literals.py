"""Quoted texts and error messages: what counts as one, and that the file that holds it is found."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inhouse_retrieval import Encoder, Index, Repository
from inhouse_retrieval.catalog import Catalog
from inhouse_retrieval.chunking import Chunk
from inhouse_retrieval.index import LONGEST_QUERY
from inhouse_retrieval.literals import LOOKED_AT, chunks_with, literals
from inhouse_retrieval.terms import identifiers
from tests.retrieval.trees import commit_all, write

TILL = 'def close(till):\n    raise ValueError(f"The till {till.id} holds more coins than it counted")\n'


@pytest.mark.parametrize(
    ("question", "quoted"),
    [
        ('why "no till is open" today', ["no till is open"]),
        ("what prints “no till is open”?", ["no till is open"]),
        ("don't say it's 'no till is open' again", ["no till is open"]),
        ("`if till: close()` where?", ["if till: close()"]),
        ("ValueError: no till is open", ["no till is open"]),
        ("I get\n  shop.TillError: no till\nat noon", ["no till"]),
        ("```py\nif x:\n    close( x )\n```", ["if x:", "close( x )"]),
        ("```close(x, y)``` or ```open( x )```", ["(x, y)", "( x )"]),
        ("Error: 'no till' is 'open now', it's said", ["no till", "open now", "'no till' is 'open now', it's said"]),
        ("they say 'it isn't open' or `if till", ["it isn't open"]),
        ("what does `close_till` do", []),
        ("what does ```close_till``` do", []),
        ('where is `shop.Till` or "close()"', []),
        ("the customers' and the staff's tills", []),
        ("close the till at noon", []),
        ('"a"', []),
    ],
)
def test_what_a_question_quotes(question: str, quoted: list[str]) -> None:
    assert literals(question) == quoted


@pytest.mark.parametrize(
    "unit", ["a.", " 'a", "“a", '"a', "`a", "```a\n", "a", "Error:", "Error: ", "'a''", "'", "A", "_"]
)
@pytest.mark.parametrize("opening", ["", "```", "'", "“"])
def test_a_question_of_any_kind_and_length_is_read_at_once(
    unit: str, opening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = (opening + unit * 100_000)[:100_000]
    monkeypatch.setattr("inhouse_retrieval.literals.LOOKED_AT", len(question))
    assert least_s(lambda: literals(question)) < 0.2
    assert least_s(lambda: identifiers(f"{question[:LONGEST_QUERY]} x")) < 0.2


def least_s(call: Callable[[], object]) -> float:
    """Processor time of the quicker of two calls: a collection of garbage may fall into one."""
    taken = []
    for _ in range(2):
        began = time.thread_time()
        call()
        taken.append(time.thread_time() - began)
    return min(taken)


def test_no_more_of_a_question_is_looked_at() -> None:
    within = "x" * (LOOKED_AT - len('"no till" '))
    assert literals(f'{within}"no till" "is open"') == ["no till"]
    assert literals(f'{within}xx"no till" "is open"') == []


def test_a_message_with_values_is_found_by_what_the_source_has_of_it(root: Path, state: Path, encoder: Encoder) -> None:
    noise = {f"shop/till_{n}.py": f'"""The till holds coins; more than {n} it counted."""\nX = {n}\n' for n in range(8)}
    write(root, {"shop/close.py": TILL, **noise})
    commit_all(root, "Count")
    with Index.open(Repository.open(root), state, encoder) as index:
        index.refresh(embed=False)
        for message in ("The till 77 holds more coins than it counted", "HOLDS MORE COINS THAN IT COUNTED"):
            best = index.search(f'why "{message}"?').passages[0]
            assert best.path == "shop/close.py" and "literal" in best.legs
        assert "literal" not in index.search("The till holds more coins than it counted").passages[0].legs
        (root / "shop/close.py").write_text(TILL.replace("coins", "notes"))
        index.refresh(embed=False)
        found = index.search('"coins than it"').passages
        assert not any("literal" in passage.legs and passage.path == "shop/close.py" for passage in found)


def test_chunks_that_hold_more_of_it_come_first() -> None:
    held = {1: "no user of this name is known", 2: "is known to the till", 3: "no user"}

    def containing(text: str) -> list[int]:
        return [number for number, chunk in held.items() if text in chunk]

    assert chunks_with(["no user of this name is known"], containing) == [1]
    assert chunks_with(["no user 77 is known to the till"], containing) == [2]
    assert chunks_with(["nothing of it at all"], containing) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8"), min_size=3, max_size=12))
def test_any_text_is_looked_for_as_it_is(text: str, tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog.sqlite")
    catalog.replace("encoder", [("a.txt", "blob", [Chunk("a.txt", 1, 1, f"x{text}y", "a.txt", ())])])
    found = catalog.containing(text, 5)
    assert len(found) == 1 or "\0" in text or text != text.lower(), "and nothing of it is an operator"
    assert catalog.containing(text + "☃", 5) == []
    catalog.remove(["a.txt"])
    assert catalog.containing(text, 5) == []
    catalog.close()
