"""Which code of the house stands above the added lines of a file when they are scored."""

from __future__ import annotations

from collections.abc import Sequence

from inhouse_retrieval import Passage
from inhouse_server.review.precedents import RUN_LINES, RUNS, precedents


class Search:
    """Finds what it was given, and remembers what it was asked."""

    def __init__(self, *found: Sequence[tuple[str, int]]) -> None:
        self.asked: list[str] = []
        self._found = list(found)

    def __call__(self, query: str, limit: int) -> list[Passage]:
        self.asked.append(query)
        places = self._found[len(self.asked) - 1][:limit] if len(self.asked) <= len(self._found) else []
        return [Passage(path, line, line, "x", "code", "", "", 1.0, ("lexical",)) for path, line in places]


def test_each_run_of_added_lines_is_asked_for_and_the_best_of_each_comes_first() -> None:
    search = Search([("b.py", 1), ("c.py", 1)], [("a.py", 9), ("c.py", 1), ("d.py", 5)])
    lines = ["one", "two", "three", "four", "five"]
    found = precedents(search, "a.py", lines, [1, 2, 5])
    assert search.asked == ["one\ntwo", "five"]
    assert [passage.path for passage in found] == ["b.py", "c.py", "d.py"], "not of the file itself, and none twice"


def test_a_file_of_many_added_lines_asks_a_few_questions() -> None:
    search = Search()
    precedents(search, "a.py", [str(number) for number in range(1_000)], range(1, 1_001))
    assert len(search.asked) == RUNS
    assert all(len(query.split()) == RUN_LINES for query in search.asked)
