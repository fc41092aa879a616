"""What of a model's middle is shown at the cursor."""

from __future__ import annotations

import pytest

from inhouse_server.completions import MOST_LINES, Gap, fitting

FILE = """def charge(customer, pennies):
    if pennies < 0:
        raise ValueError("negative")
    return customer
"""


def gap(text: str, path: str = "billing.py") -> Gap:
    """``text`` with the cursor at ``|``."""
    before, after = text.split("|")
    return Gap(path, before, after)


@pytest.mark.parametrize(
    ("text", "middle", "shown"),
    [
        # The rest of a line, and nothing below it.
        ("total = price(|)\n", "customer, pennies", "customer, pennies"),
        ("total = price(|)\n", "customer)\nprint(total", "customer"),
        # A bracket that closes what the middle opened is not the one that is there already.
        ("total = price(|)\n", "tax(pennies)", "tax(pennies)"),
        ("total = price(|)\n", "tax(pennies))", "tax(pennies)"),
        # A block ends where it is left, at an empty line, and where the text below begins.
        ("def f(x):\n    if x:\n        |\n    return 2\n", "return 1\n    return 2\n", "return 1"),
        ("def f(x):\n    |\n", "y = x\n    return y\ndef g():\n    pass", "y = x\n    return y"),
        ("def f(x):\n    |\n", "y = x\n    return y\n\n    z = 1", "y = x\n    return y"),
        ("def f(x):\n    |\n\n\ndef g(): ...\n", "return x\n", "return x"),
        # Nothing: no text, what stands below anyway, what does not parse, half a character.
        ("def f(x):\n    |\n", "  \n", ""),
        ("def f(x):\n|\n    return x\n", "    return x", ""),
        ("def f(x):\n    |\n", "return (x", ""),
        ("total = price(|)\n", "a b c", ""),
        ("def f(x):\n    |\n", "return '\ufffd'", ""),
    ],
)
def test_a_middle_ends_at_a_sensible_place_and_parses(text: str, middle: str, shown: str) -> None:
    assert fitting(gap(text), middle, "stop") == shown


def test_a_file_that_is_being_written_may_have_errors_but_no_more_than_before() -> None:
    assert fitting(gap("def f(x:\n    |\n"), "return x", "stop") == "return x"


def test_a_line_that_was_cut_at_the_longest_length_is_left_out_unless_it_is_the_only_one() -> None:
    assert fitting(gap("def f(x):\n    |\n"), "y = x\n    return y.na", "length") == "y = x"
    assert fitting(gap("def f(x):\n    |\n"), "return y.na", "length") == "return y.na"


def test_no_more_lines_than_can_be_read_while_typing() -> None:
    many = "\n    ".join(f"x{number} = {number}" for number in range(20))
    assert len(fitting(gap("def f():\n    |\n"), many, "length").split("\n")) == MOST_LINES


def test_where_there_is_no_grammar_the_end_that_is_there_already_is_left_out() -> None:
    assert fitting(gap("Couriers come |.\n", "notes.unknown"), "at noon.", "stop") == "at noon"
    assert fitting(gap("Couriers come | and leave\n", "notes.unknown"), "at noon and", "stop") == "at noon"
