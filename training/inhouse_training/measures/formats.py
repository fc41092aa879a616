"""Whether an adapter still does as it is told: general requests for an answer of a given form.

Only the form is checked, never whether the answer is true. The requests have nothing to do with any repository, so they
are asked without passages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FormatCheck:
    """A request, and whether an answer has the form that it asks for."""

    request: str
    follows: Callable[[str], bool]


def _is(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.S | re.I)
    return lambda answer: compiled.fullmatch(answer.strip()) is not None


def _json(answer: str) -> object:
    try:
        return json.loads(answer)
    except ValueError:
        return None


def _is_person(answer: str) -> bool:
    found = _json(answer)
    return isinstance(found, dict) and set(found) == {"name", "age"}


def _is_three_numbers(answer: str) -> bool:
    found = _json(answer)
    return isinstance(found, list) and len(found) == 3 and all(type(each) in (int, float) for each in found)


def _is_table(answer: str) -> bool:
    lines = answer.strip().split("\n")
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    return len(rows) == 4 and rows[0] == ["Name", "Age"] and all(len(row) == 2 for row in rows)


def _is_capitals(answer: str) -> bool:
    return answer == answer.upper() and any(letter.isalpha() for letter in answer)


FORMAT_CHECKS = (
    FormatCheck("What is the capital of France? Answer with one word only.", _is(r"\w+\.?")),
    FormatCheck("Is 7 larger than 3? Answer with yes or no only.", _is(r"(yes|no)\.?")),
    FormatCheck("How many days has a week? Answer with a number only.", _is(r"\d+\.?")),
    FormatCheck('Write a JSON object with the keys "name" and "age", and nothing else.', _is_person),
    FormatCheck("Write a JSON list of three numbers, and nothing else.", _is_three_numbers),
    FormatCheck('List three fruits, each on a line that begins with "- ", and nothing else.', _is(r"(- [^\n]+\n?){3}")),
    FormatCheck(
        "Write a Python function that adds two numbers, in one fenced code block, and nothing else.",
        _is(r"```\w*\n(?:(?!```).)*def (?:(?!```).)*\n```"),
    ),
    FormatCheck("Write one sentence about the sea, all in capital letters.", _is_capitals),
    FormatCheck("Write about bread in at most ten words.", lambda answer: 1 <= len(answer.split()) <= 10),
    FormatCheck("Name two colours, with a comma between them, and nothing else.", _is(r"\w+, ?\w+\.?")),
    FormatCheck("Describe a tree in one sentence, and end with the word DONE.", _is(r".+\bDONE\.?")),
    FormatCheck("Repeat exactly: The cat sat on the mat.", _is(r"\W?The cat sat on the mat\.\W?")),
    FormatCheck(
        "Write a title for a story about rain between <title> and </title>, and nothing else.",
        _is(r"<title>[^<]+</title>"),
    ),
    FormatCheck("On what date does the year 2030 begin? Answer as YYYY-MM-DD only.", _is(r"\d{4}-\d\d-\d\d\.?")),
    FormatCheck("Write a Markdown table with the columns Name and Age and two rows, and nothing else.", _is_table),
    FormatCheck(
        "Name three animals as a numbered list, and write nothing else.", _is(r"1\. [^\n]+\n2\. [^\n]+\n3\. [^\n]+")
    ),
)  # fmt: skip
