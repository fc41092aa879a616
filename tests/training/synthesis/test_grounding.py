"""What of a reply is believed."""

from __future__ import annotations

import json

import pytest

from inhouse_training import (
    Task,
)
from inhouse_training.synthesis import grounding
from inhouse_training.synthesis.cache import Reply
from inhouse_training.synthesis.grounding import DroppedItem, Item, ground
from inhouse_training.synthesis.sources import Section

from ..history import handler
from .written import CODE, PAGE


def questions(**item: object) -> list[Item | DroppedItem]:
    usual = {
        "question": "Who signs off a refund?",
        "quote": "A refund is signed off by a clerk of the same tenant.",
        "answer": "A clerk of the same tenant.",
    }
    text = json.dumps({"items": [{**usual, **item}]})
    return ground(Task("questions", (PAGE,), "shop"), Reply(text, True, 1, 1))


def test_a_quotation_is_found_whatever_the_white_space_and_taken_as_the_source_has_it() -> None:
    [item] = questions(quote="  The ledger  keeps each refund\nfor seven years,")
    assert isinstance(item, Item)
    [evidence] = item.evidence
    assert evidence.text == "The ledger keeps each refund for seven years,"
    assert (evidence.first_line, evidence.last_line) == (15, 15)
    [across] = questions(quote="wait for two clerks. The ledger keeps")
    assert isinstance(across, Item)
    assert (across.evidence[0].first_line, across.evidence[0].last_line) == (13, 15)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"quote": "A refund is signed off by the manager of the shop."}, grounding.NOT_IN_SOURCE),
        ({"quote": "a refund is signed off by a clerk of the same tenant."}, grounding.NOT_IN_SOURCE),
        ({"quote": "A refund is"}, grounding.SHORT_QUOTE),
        ({"quote": None}, grounding.INCOMPLETE),
        ({"answer": "  "}, grounding.INCOMPLETE),
        ({"answer": "`sign_off_refund()` of `RefundDesk` does."}, grounding.UNKNOWN_NAMES),
        ({"answer": "A clerk, within 14 days."}, grounding.UNKNOWN_NAMES),
        ({"question": "What does this page say about refunds?"}, grounding.NOT_ALONE),
        ({"question": "A refund: a clerk", "answer": "a refund, a clerk!"}, grounding.NO_ANSWER),
    ],
)
def test_what_is_not_in_the_source_is_dropped_by_reason(item: dict[str, object], reason: str) -> None:
    [dropped] = questions(**item)
    assert isinstance(dropped, DroppedItem) and dropped.reason == reason


def test_a_relation_quotes_each_of_its_files() -> None:
    second = Section("handlers/area0.py", "b3", 1, 20, handler("invoice"), False, ("update_invoice",))

    def told(first_quote: str, second_quote: str) -> list[Item | DroppedItem]:
        item = {"first_quote": first_quote, "second_quote": second_quote, "statement": "The desk passes it on."}
        reply = Reply(json.dumps({"items": [item]}), True, 1, 1)
        return ground(Task("relation", (CODE, second), "shop"), reply)

    here, there = "reply = await update_invoice(request, ledger)", "changes = require_valid(InvoiceChanges, request)"
    [item] = told(here, there)
    assert isinstance(item, Item) and [each.section.path for each in item.evidence] == ["desk.py", "handlers/area0.py"]
    [dropped] = told(here, here)
    assert isinstance(dropped, DroppedItem) and dropped.reason == grounding.NOT_IN_SOURCE


def test_of_a_reply_that_was_cut_the_whole_items_are_used() -> None:
    item = {"quote": "where clerks take what customers bring", "statement": "Clerks take things there."}
    text = json.dumps({"items": [item, item]})[:-30]
    found = ground(Task("explanation", (CODE,), "shop"), Reply(text, False, 1, 1))
    assert [type(each) for each in found] == [Item, DroppedItem]
    assert isinstance(found[1], DroppedItem) and found[1].reason == grounding.CUT


@pytest.mark.parametrize("text", ["", "Sure! Here are some questions.", '{"items": []}', "[" * 10_000, "[null, 3]"])
def test_what_is_no_list_of_items_is_said_to_be_none(text: str) -> None:
    [dropped] = ground(Task("questions", (PAGE,), "shop"), Reply(text, True, 1, 1))
    assert isinstance(dropped, DroppedItem) and dropped.reason == grounding.NOT_AS_ASKED
