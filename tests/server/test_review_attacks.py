"""Attacks on the model that reads: what it is shown of each, and what comes out when it does as it is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from inhouse_retrieval import Passage
from inhouse_server.review.change import Change, ReviewedFile, parse_hunks
from inhouse_server.review.companions import History
from inhouse_server.review.conventions import Conventions
from inhouse_server.review.finding import Review
from inhouse_server.review.past_remarks import PastRemarks
from inhouse_server.review.posting.inert import why_code_acts
from inhouse_server.review.posting.request import read_request
from inhouse_server.review.renderers import render
from inhouse_server.review.reviewer import House, Reader, review
from inhouse_training import BASE
from inhouse_training.plain_text import control_tokens, hidden_characters
from tests.server.test_posting import ATTACKS, SECRETS
from tests.server.test_review_reading import ScriptedEngine, commented, row
from tests.server.test_review_renderers import HEAD, active

PROMPT_ATTACKS = [
    json.loads(line) for line in Path(__file__).with_name("prompt_attacks.jsonl").read_text().splitlines()
]
ALL = [attack["text"] for attack in (*PROMPT_ATTACKS, *ATTACKS)]
HOUSE = House(History((), lambda path: True), Conventions(()))
LINE = "total = amount * 1.19"
OURS = ("How the repository", "What reviewers", "The change is called", "The code as it is", "The hunk to", "Answer as")


def read(
    engine: ScriptedEngine,
    title: str = "A title",
    description: str = "",
    path: str = "pay.py",
    code: str = "x = 1",
    wiki: str = "Rates.",
    page: str = "docs/rates.md",
    remark: str = "Rates live in tax.py.",
) -> Review:
    """The review of a change with these texts; each is a stranger's."""
    lines = [*re.split(r"\n", code), LINE]
    patch = f"@@ -0,0 +1,{len(lines)} @@\n" + "".join(f"+{line}\n" for line in lines)
    file = ReviewedFile(path, path, "added", parse_hunks(patch), "".join(f"{line}\n" for line in lines))
    change = Change("main", "#7", "b" * 40, HEAD, title, description, (file,))
    found = [Passage(page, 1, 9, wiki, "wiki", "", "", 1.0, ("dense",), (), "2024-01-01", page)]
    remarks = PastRemarks([commented(path, LINE, remark)])
    house = replace(HOUSE, remarks=remarks)
    return review(change, house, 9, Reader(engine, BASE, lambda query, limit: found, remarks, 100_000, 500))


def prompt(engine: ScriptedEngine) -> str:
    [asked] = engine.asked
    assert asked.messages[0].role == "system" and len(asked.messages) == 2
    return asked.messages[1].content


def fences(text: str) -> list[str]:
    return [token.content for token in MarkdownIt("commonmark").parse(text) if token.type == "fence"]


PLACES: dict[str, Callable[[str], dict[str, str]]] = {
    "title": lambda text: {"title": text},
    "description": lambda text: {"description": text},
    "path": lambda text: {"path": f"src/{text}.py"},
    "code": lambda text: {"code": text},
    "wiki": lambda text: {"wiki": text},
    "page": lambda text: {"page": f"docs/{text}.md"},
    "remark": lambda text: {"remark": f"Please. {text}"},
}


def test_the_corpus_is_large_enough() -> None:
    assert len(PROMPT_ATTACKS) >= 50 and len(ALL) >= 140
    assert {attack["kind"] for attack in PROMPT_ATTACKS} == {"order", "turn", "fence", "frame", "comment", "hidden"}


@pytest.mark.parametrize("place", ["everywhere", *(pytest.param(place, marks=pytest.mark.long) for place in PLACES)])
def test_an_attack_stays_where_it_is_put_and_is_seen(place: str) -> None:
    places = list(PLACES) if place == "everywhere" else [place]

    def put(text: str) -> dict[str, str]:
        return {name: value for each in places for name, value in PLACES[each](text).items()}

    plain = ScriptedEngine()
    read(plain, **put("plain"))
    usual = prompt(plain)
    for text in ALL:
        engine = ScriptedEngine()
        notes = " ".join(read(engine, **put(text)).notes)
        shown = prompt(engine)
        assert hidden_characters(shown) == 0 and not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", shown)
        assert control_tokens(shown) == 0, text
        assert not any(secret in shown for secret in SECRETS), text
        # The same blocks in the same order, and the same words of ours outside of them.
        assert len(fences(shown)) == len(fences(usual)) == 3, (text, shown)
        assert LINE in fences(shown)[2] and _frame(shown) == _frame(usual), (text, shown)
        if place in ("title", "wiki", "remark"):
            assert "<!--" not in shown, text
        if place == "description":
            assert shown == usual, "it is not shown at all"
        if hidden_characters(text):
            assert "no reader sees" in notes, (text, notes)
        if "<!--" in text and set(places) & {"title", "description", "wiki", "remark"}:
            assert re.search("HTML comments|no reader sees", notes), (text, notes)
        if control_tokens(text) and set(places) & {"title", "description", "code"}:
            assert "end of a turn" in notes, (text, notes)


def _frame(shown: str) -> list[str]:
    """Our own lines: the first words of each line that stands in no block."""
    outside: list[str] = []
    open_with = ""
    for line in shown.split("\n"):
        if open_with:
            open_with = "" if line == open_with else open_with
        elif re.fullmatch("`{3,}", line):
            open_with = line
        else:
            outside.append(re.split(r"(?<=: )|(?<=^- )|(?<=^  )|:\d+-\d+", line)[0])
    return [line for line in outside if line.startswith(OURS)]


@pytest.mark.long
@pytest.mark.parametrize("name", ["request", "github", "gitlab", "markdown"])
def test_a_model_that_does_as_it_is_told_gets_nothing_out(name: str) -> None:
    """It says each attack as the problem, and offers it as the code that should stand there."""
    for number, text in enumerate(ALL):
        reviewed = read(ScriptedEngine(row(LINE, better=text, problem=f"{text} {number}")))
        out = render(name, reviewed, Change("main", "#7", "b" * 40, HEAD, "A title", "", ()), Path("/repo"))
        assert not any(secret in out for secret in SECRETS)
        if name == "request":
            request = read_request(out.encode())
            assert request.event == "COMMENT"
            bodies: Sequence[str] = [request.body, *(remark.body for remark in request.remarks)]
        else:
            bodies = [out] if name == "markdown" else _bodies(json.loads(out))
        for body in bodies:
            ours = re.sub(r"^## .*|\A# .*", "", body, flags=re.M) if name == "markdown" else body
            said = re.sub(r"^(`{3,})suggestion.*?^\1$", "", ours, flags=re.M | re.S)
            assert active(said) == [] and hidden_characters(ours) == 0, ours
            for offered in re.findall(r"^(`{3,})suggestion[^\n]*\n(.*?)^\1$", ours, flags=re.M | re.S):
                assert why_code_acts(offered[1]) == "", offered


def _bodies(value: Any) -> list[str]:
    if isinstance(value, list):
        return [body for each in value for body in _bodies(each)]
    if not isinstance(value, dict):
        return []
    assert value.get("event", "COMMENT") == "COMMENT"
    own = [value["body"]] if isinstance(value.get("body"), str) else []
    return own + [body for each in value.values() for body in _bodies(each)]
