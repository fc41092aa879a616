"""Convention breaks that are planted into lines of past changes, and how many of them a score finds."""

from __future__ import annotations

import numpy as np
import pytest

from inhouse_server.review.change import Change, Hunk, ReviewedFile
from inhouse_server.review.planted import HouseNames, PlantedBreak, found_shares, planted_breaks
from inhouse_server.review.wanting import JudgedChange

HOUSE = [
    ("house/http.py", "class HouseError(Exception): ...\n\n\ndef fetch_json(path): ...\n"),
    *(
        (
            f"house/client{number}.py",
            f"from house.http import fetch_json\n\n\ndef load_thing_{number}(some_key):\n"
            f"    if not some_key:\n        raise HouseError('no')\n    return fetch_json(some_key)\n"
            + "".join(f"\n\ndef thing_{number}_{part}():\n    pass\n" for part in "abcdefgh"),
        )
        for number in range(6)
    ),
]
NEW = (
    "from house.http import fetch_json\nfrom other import thing\n\n\ndef load_basket(basket_key):\n"
    "    if not basket_key:\n        raise HouseError('no')\n    return fetch_json(basket_key)\n"
)


def judged(text: str, path: str = "house/new.py") -> JudgedChange:
    numbers = tuple(number for number, line in enumerate(text.splitlines(), start=1) if line.strip())
    hunk = Hunk(1, text.count("\n"), numbers, ())
    change = Change("", "", "", "", "", "", (ReviewedFile(path, path, "added", (hunk,), text),))
    return JudgedChange("", 1, change, False, {path: numbers}, {path: frozenset()})


def test_each_kind_of_break_replaces_what_is_a_habit_and_nothing_else() -> None:
    house = HouseNames(HOUSE)
    found: dict[str, PlantedBreak] = {each.kind: each for each in planted_breaks(judged(NEW), house)}
    assert {kind: each.lines[each.number - 1].strip() for kind, each in found.items()} == {
        "helper": "return getattr(basket_key)",
        "import path": "from utils.http import fetch_json",
        "naming": "def loadBasket(basket_key):",
        "error type": "raise Exception('no')",
    }
    for each in found.values():
        assert each.was == NEW.splitlines()[each.number - 1]
        others = [line for number, line in enumerate(each.lines, start=1) if number != each.number]
        assert others == [line for number, line in enumerate(NEW.splitlines(), start=1) if number != each.number]
    assert planted_breaks(judged("raise ValueError('x')\nprint(other_thing())\n"), house) == []
    assert planted_breaks(judged(NEW, "words.md"), house) == []


def test_found_at_one_false_alarm_in_two_hundred_lines_beside_the_reference() -> None:
    random = np.random.default_rng(2)
    requests, of_break = np.repeat(np.arange(40), 50), np.repeat(np.arange(40), 2)
    untouched = {"base": random.random(2_000), "good": random.random(2_000)}
    planted = {"base": random.random(80), "good": np.where(np.arange(80) % 4 > 0, 2.0, 0.0)}
    base, good = found_shares(untouched, requests, planted, of_break, "base")
    limit = np.sort(untouched["base"])[::-1][10]
    assert base.share.mean == pytest.approx((planted["base"] > limit).mean())
    assert base.gain.mean == base.gain.low == base.gain.high == 0
    assert good.share.mean == 0.75
    assert 0.6 < good.gain.low < good.gain.mean
