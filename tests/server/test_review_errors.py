"""Errors that a change raises where the house raises ones that say what went wrong."""

from __future__ import annotations

import pytest

from inhouse_server.review.change import Change, Hunk, ReviewedFile
from inhouse_server.review.conventions import RAISED, Conventions
from inhouse_server.review.finding import Finding
from inhouse_server.review.house import spelling_findings
from inhouse_server.review.raised import raised_errors

PYTHON = (
    "raise Exception('x')\nraise click.UsageError('y') from e\nraise\nraise ValueError\nraise error\nraise make()\n"
)
SCRIPT = "throw new Error('x');\nthrow new http.NotFound(1);\nthrow e;\nthrow Error('y');\nthrow Boom.bad();\n"
JAVA = 'class A { void f() {\nthrow new RuntimeException("x");\nthrow new a.b.Foo<>(1);\nthrow e;\n} }\n'
C_SHARP = 'class A { void F() {\nthrow new Exception("x");\nvar a = b ?? throw new N.Bar();\nthrow;\n} }\n'
PHP = "<?php\nthrow new \\Exception('x');\nthrow new Foo\\Bar(1);\nthrow $e;\n$a = $b ?? throw new Baz();\n"
RUBY = "raise 'x'\nraise StandardError, 'y'\nraise Foo::Bar.new(1)\nraise\nfail Gone if b\nx.raise Foo\nraise e\n"


@pytest.mark.parametrize(
    ("path", "text", "raised"),
    [
        ("a.py", PYTHON, [(1, "Exception", True), (2, "UsageError", False), (4, "ValueError", False)]),
        ("a.tsx", SCRIPT, [(1, "Error", True), (2, "NotFound", False), (4, "Error", True)]),
        ("A.java", JAVA, [(2, "RuntimeException", True), (3, "Foo", False)]),
        ("A.cs", C_SHARP, [(2, "Exception", True), (3, "Bar", False)]),
        ("a.php", PHP, [(2, "Exception", True), (3, "Bar", False), (5, "Baz", False)]),
        ("a.rb", RUBY, [(1, "RuntimeError", True), (2, "StandardError", True), (3, "Bar", False), (5, "Gone", False)]),
        ("a.go", "package a\nfunc f() { panic(1) }\n", []),
        ("a.py", "# raise Exception()\ntext = 'raise Exception()'\nraise (", []),
    ],
)  # fmt: skip
def test_what_is_raised_by_name(path: str, text: str, raised: list[tuple[int, str, bool]]) -> None:
    assert [(each.line, each.name, each.is_general) for each in raised_errors(path, text)] == raised


def remarks(path: str, house: list[tuple[str, str]], text: str, added: tuple[int, ...]) -> list[Finding]:
    file = ReviewedFile(path, path, "modified", (Hunk(1, text.count("\n"), added, ()),), text)
    return spelling_findings(Change("", "", "", "", "", "", (file,)), Conventions(house))[0]


OWN = "class HouseError(Exception):\n    pass\n\n\nraise HouseError()\n"
HOUSE = [("errors.py", OWN), *((f"a{number}.py", "raise ValueError()\n") for number in range(RAISED - 1))]
NEW = "def f():\n    raise Exception('no')\n\n\ndef g():\n    raise Exception('neither')\n    raise KeyError()\n"


def test_a_general_error_is_remarked_on_where_the_house_raises_others() -> None:
    (found,) = remarks("b.py", HOUSE, NEW, (2, 7))
    assert (found.start_line, found.rule, found.severity, found.replacement) == (2, "error-type", "info", None)
    assert f"`Exception` does not say what went wrong: {RAISED} of {RAISED} errors" in found.message
    assert "such as `HouseError`." in found.message, "of its own, though another is raised more"
    assert [(each.path, each.start_line) for each in found.precedents] == [("errors.py", 5)]
    assert len(remarks("b.py", HOUSE, NEW, (2, 6))) == 2


def test_nothing_is_said_without_such_a_habit_nor_of_tests() -> None:
    assert remarks("tests/test_b.py", HOUSE, NEW, (2,)) == []
    assert remarks("b.py", HOUSE[1:], NEW, (2,)) == [], "too few to tell"
    assert remarks("b.ts", HOUSE, "throw new Error('no');\n", (1,)) == [], "another language"
    often = [("c.py", "raise Exception()\n" * 2)]
    assert remarks("b.py", [*HOUSE, *often], NEW, (2,)) == [], "2 of 32"
    in_tests = [("tests/test_c.py", "raise Exception()\n" * 9)]
    assert len(remarks("b.py", [*HOUSE, *in_tests], NEW, (2,))) == 1
