"""Edits count as the protocol says, in every position encoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inhouse_server.text_sync import Edit, Position, apply_edits, edits_from_json, offset_at, split_lines


def insert(line: int, character: int, text: str) -> Edit:
    return Edit(text, Position(line, character), Position(line, character))


def test_characters_count_in_the_agreed_units() -> None:
    text = "a😀é|b"
    assert apply_edits(text, [insert(0, 4, "^")], "utf-16") == "a😀é^|b"
    assert apply_edits(text, [insert(0, 7, "^")], "utf-8") == "a😀é^|b"
    assert apply_edits(text, [insert(0, 3, "^")], "utf-32") == "a😀é^|b"


@pytest.mark.parametrize("separator", ["\f", "\v", "\x1c", "\x85", "\u2028"])
def test_only_the_protocols_line_ends_end_a_line(separator: str) -> None:
    text = f"one{separator}still one\r\ntwo\rthree\n"
    assert split_lines(text) == [f"one{separator}still one", "two", "three", ""]
    assert apply_edits(text, [insert(2, 0, "^")]) == f"one{separator}still one\r\ntwo\r^three\n"


def test_a_position_past_the_end_is_the_end() -> None:
    assert offset_at("ab\ncd", Position(0, 99)) == 2
    assert offset_at("ab\ncd", Position(99, 0)) == 5
    assert offset_at("ab\n", Position(1, 0)) == 3
    assert offset_at("", Position(0, 0)) == 0


def test_edits_follow_one_another() -> None:
    edits = edits_from_json(
        [
            {"text": "new\n"},
            {
                "range": {"start": {"line": 0, "character": 3}, "end": {"line": 1, "character": 0}},
                "text": "er",
            },
        ]
    )
    assert apply_edits("old", edits) == "newer"


@pytest.mark.parametrize("changes", [None, [1], [{}], [{"text": 3}], [{"text": "", "range": {"start": 1}}]])
def test_what_is_not_a_list_of_changes_is_refused(changes: object) -> None:
    with pytest.raises(ValueError):
        edits_from_json(changes)


@given(st.text(alphabet="ab\n\r\f😀é"), st.data())
def test_an_edit_replaces_exactly_its_range(text: str, data: st.DataObject) -> None:
    lines = split_lines(text)
    ends = []
    for _ in range(2):
        line = data.draw(st.integers(0, len(lines) - 1))
        column = data.draw(st.integers(0, len(lines[line])))
        ends.append((line, column))
    (first, start), (last, end) = sorted(ends)

    def units(line: int, column: int) -> int:
        return len(lines[line][:column].encode("utf-16-le")) // 2

    edit = Edit("X", Position(first, units(first, start)), Position(last, units(last, end)))
    changed = apply_edits(text, [edit])
    assert changed.startswith("".join(text[: offset_at(text, Position(first, units(first, start)))]))
    assert len(changed) - 1 <= len(text)
    assert split_lines(changed)[first].startswith(lines[first][:start] + "X")
    assert split_lines(changed)[-1].endswith(lines[-1][end:] if last == len(lines) - 1 else lines[-1])
