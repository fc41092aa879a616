"""Which added lines of a past pull request were changed soon after: real repositories, with dates set."""

from __future__ import annotations

from pathlib import Path

import pytest

from inhouse_retrieval import InhouseError, Repository
from inhouse_server.review.wanting import after_for, judged_changes

from .dated import Dated

FIRST = "def first():\n    return compute_the_first_value()\n\n\ndef second():\n    return compute_the_second_value()\n"


@pytest.fixture
def dated(tmp_path: Path) -> Dated:
    return Dated(tmp_path / "shop")


def test_what_a_squashed_pull_request_added_is_wanting_when_thirty_days_change_it(dated: Dated) -> None:
    dated.commit(1, "Add both (#1)", {"a b/größe.py": FIRST})
    dated.commit(20, "Second, better (#2)", {"a b/größe.py": FIRST.replace("the_second", "another")})
    dated.commit(40, "First, too late (#3)", {"a b/größe.py": FIRST.replace("the_first", "a_late")})
    dated.commit(90, "Much later", {"notes.md": "x\n"})
    judged = dated.judged()
    assert judged[1].lines == {"a b/größe.py": (1, 2, 5, 6)}, "blank lines are not judged"
    assert judged[1].wanting == {"a b/größe.py": frozenset([6])}
    assert judged[1].has_both
    assert judged[2].wanting == {"a b/größe.py": frozenset([6])}
    assert not judged[1].several


def test_lines_moved_reformatted_renamed_or_removed(dated: Dated) -> None:
    first, second = FIRST[: FIRST.index("\n\n") + 1], FIRST[FIRST.index("def second") :]
    dated.commit(
        1,
        "Add them (#1)",
        {"moved.py": FIRST, "indented.py": first, "named.py": FIRST, "gone.py": first, "back.py": first},
    )
    dated.commit(2, "Move (#2)", {"moved.py": f"{second}\n\n{first}"})
    dated.commit(
        3, "Indent (#3)", {"indented.py": "if True:\n" + first.replace("def", "    def").replace("    r", "        r")}
    )
    dated.git("mv", "named.py", "renamed.py")
    dated.commit(4, "Rename and change (#4)", {"renamed.py": FIRST.replace("the_first", "another")})
    dated.commit(5, "Remove (#5)", {"gone.py": None, "back.py": first.replace("first()", "third()")})
    dated.commit(6, "Put back (#6)", {"back.py": first})
    dated.commit(90, "Much later", {"notes.md": "x\n"})
    change = dated.judged()[1]
    assert change.wanting == {
        "moved.py": frozenset(), "indented.py": frozenset(), "named.py": frozenset([2]), "gone.py": frozenset([1, 2]),
        "back.py": frozenset(),
    }  # fmt: skip
    assert change.moved == 5, "two moved, two indented, one put back"


def test_the_first_of_several_commits_is_judged_by_the_later_ones_and_by_thirty_days(dated: Dated) -> None:
    dated.commit(0, "Other code", {"shared.py": "".join(f"line_{n} = {n}\n" for n in range(12))})
    dated.start = dated.git("rev-parse", "HEAD")
    dated.git("checkout", "--quiet", "-b", "work")
    dated.commit(1, "First go", {"a.py": FIRST, "shared.py": (dated.root / "shared.py").read_text() + "mine = 1\n"})
    dated.git("checkout", "--quiet", "main")
    dated.commit(
        2, "Main goes on (#1)", {"shared.py": "header = 0\n" + "".join(f"line_{n} = {n}\n" for n in range(12))}
    )
    dated.git("checkout", "--quiet", "work")
    dated.git("merge", "--quiet", "--no-edit", "main", day=3)
    dated.commit(4, "Review remarks", {"a.py": FIRST.replace("the_first", "another")})
    dated.merge(5, "work", 7, "Add both")
    dated.commit(20, "Fix (#8)", {"a.py": FIRST.replace("the_first", "another").replace("second()", "the_second()")})
    dated.commit(90, "Much later", {"notes.md": "x\n"})
    change = dated.judged()[7]
    assert change.several
    assert change.change.files[0].new_text == FIRST
    assert change.wanting == {"a.py": frozenset([2, 5]), "shared.py": frozenset()}, "main's own work is nobody's fault"


def test_a_merge_of_one_commit_is_judged_with_the_line_numbers_of_the_merge(dated: Dated) -> None:
    lines = [f"line_{n} = {n}\n" for n in range(30)]
    dated.commit(0, "Other code", {"a.py": "".join(lines)})
    dated.start = dated.git("rev-parse", "HEAD")
    dated.git("checkout", "--quiet", "-b", "work")
    dated.commit(1, "Mine", {"a.py": "".join([*lines, "kept = compute_kept()\n", "bad = compute_bad()\n"])})
    dated.git("checkout", "--quiet", "main")
    dated.commit(2, "Above (#1)", {"a.py": "".join(["above = 0\n", "more = 1\n", *lines])})
    dated.merge(3, "work", 2, "Two lines")
    dated.commit(4, "Fix (#3)", {"a.py": (dated.root / "a.py").read_text().replace("compute_bad", "compute_good")})
    dated.commit(90, "Much later", {"notes.md": "x\n"})
    change = dated.judged()[2]
    assert not change.several
    assert change.lines == {"a.py": (33, 34)}
    assert change.wanting == {"a.py": frozenset([34])}


def test_what_cannot_be_judged_is_counted_by_reason(dated: Dated) -> None:
    dated.commit(1, "Bump left-pad from 1.0 to 1.1 (#1)", {"a.py": "a = 1\n"})
    dated.commit(2, "Words (#2)", {"words.md": "x\n"})
    dated.commit(3, "No request", {"b.py": "b = 1\n"})
    dated.commit(4, "Everything (#4)", {f"many/{n}.py": "c = 1\n" for n in range(31)})
    dated.commit(5, "Good (#5)", {"d.py": "d = 1\n"})
    dated.commit(30, "Young (#6)", {"e.py": "e = 1\n"})
    dated.commit(40, "Tip", {"notes.md": "y\n"})
    found = judged_changes(Repository.open(dated.root), dated.start, 50)
    assert [change.number for change in found.changes] == [5]
    assert found.left_out == {
        "a bump, a release or a revert": 1, "no line of code added": 1, "no pull request": 1,
        "more than 30 files": 1, "younger than 30 days": 2,
    }  # fmt: skip
    assert after_for(Repository.open(dated.root), 1) == dated.git("rev-parse", "HEAD~3")
    with pytest.raises(InhouseError, match="Only 1 pull requests"):
        after_for(Repository.open(dated.root), 2)
