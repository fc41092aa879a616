"""Convention breaks that are planted into lines of past changes, and how many of them a score finds."""

from __future__ import annotations

import numpy as np
import pytest

from inhouse_server.review.change import Change, Hunk, ReviewedFile
from inhouse_server.review.house import spelling_findings
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


@pytest.mark.parametrize(
    ("path", "house", "text", "broken"),
    [
        (
            "q/b.go", [(f"p{n}/a.go", 'package a\n\nimport (\n\t"fmt"\n\tlog "x/logrus"\n)\n') for n in range(6)],
            'package b\n\nimport log "x/logrus"\n',
            {"import path": 'import log "example.com/utils/logrus"'},
        ),
        (
            "src/b.php", [(f"src/a{n}.php", "<?php\nnamespace A;\nuse Psr\\Log\\Logger;\n") for n in range(6)],
            "<?php\nnamespace A;\nuse Psr\\Log\\Logger;\n$log = new Logger();\n",
            {"import path": "use Utils\\Log\\Logger;", "import form": "$log = new \\Psr\\Log\\Logger();"},
        ),
        (
            "a.cs", [(f"a{n}.cs", "using Json = House.Json;\n") for n in range(6)], "using Json = House.Json;\n",
            {"import path": "using Json = Utils.Json;"},
        ),
        (
            "a.cc", [(f"a{n}.cc", "#include <gtest/gtest.h>\n") for n in range(6)], "#include <gtest/gtest.h>\n",
            {"import form": '#include "gtest/gtest.h"'},
        ),
        (
            "lib/d/e.rb",
            [("lib/c.rb", "a\n"), *((f"lib/a{n}/b.rb", "require_relative '../c'\n") for n in range(6))],
            "require_relative '../c'\n", {"import form": "require 'c'"},
        ),
        (
            "Tests/DTests.swift", [(f"Tests/A{n}Tests.swift", "@testable import App\n") for n in range(6)],
            "@testable import App\n", {"import form": "import App"},
        ),
    ],
)  # fmt: skip
def test_imports_are_broken_in_each_language_that_has_forms_of_them(
    path: str, house: list[tuple[str, str]], text: str, broken: dict[str, str]
) -> None:
    names = HouseNames(house)
    planted = planted_breaks(judged(text, path), names)
    assert {each.kind: each.lines[each.number - 1] for each in planted} == broken
    for each in planted:
        hunk = Hunk(1, len(each.lines), (each.number,), ())
        file = ReviewedFile(path, path, "modified", (hunk,), "".join(f"{line}\n" for line in each.lines))
        found, _ = spelling_findings(Change("", "", "", "", "", "", (file,)), names.conventions)
        assert [finding.start_line for finding in found] == [each.number], each.kind


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
