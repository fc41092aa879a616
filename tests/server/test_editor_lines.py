"""Lines as git counts them, where an editor shows them: for git only a line feed ends a line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inhouse_server.language_server.editor_lines import EditorLines, git_lines
from inhouse_server.language_server.line_edit import line_edit
from inhouse_server.position_encodings import ENCODINGS
from inhouse_server.review.proof import applied
from inhouse_server.text_sync import Edit, Position, apply_edits, offset_at
from inhouse_server.workspace import Workspace
from tests.server.conftest import git
from tests.server.direct import Client
from tests.server.house import make_repository

TEXTS = st.lists(st.sampled_from(["\r", "\n", "\r\n", "a", "é🙂", "\u2028", "\f"]), max_size=12).map("".join)


@given(TEXTS)
@example("one\rtwo\r\nthree\r")
@example("one\r\r\ntwo")
def test_a_line_begins_where_git_begins_it(text: str) -> None:
    lines, start = EditorLines(text), 0
    for number, line in enumerate(git_lines(text), start=1):
        span = lines.range(number, number)
        assert span.start.character == span.end.character == 0
        assert offset_at(text, Position(span.start.line, 0)) == start
        start += len(line)
        if line.endswith("\n"):
            assert offset_at(text, Position(span.end.line, 0)) == start
        assert EditorLines(None).range(number, number).start.line == number - 1


@given(TEXTS.filter(bool), st.data(), st.sampled_from(ENCODINGS))
def test_an_edit_makes_of_a_text_what_git_makes_of_it(text: str, data: st.DataObject, encoding: str) -> None:
    count = len(git_lines(text))
    first = data.draw(st.integers(1, count))
    last = data.draw(st.integers(first, count))
    replacement = data.draw(st.sampled_from(["", "new\n", "new\r\n", "one\ntwo\n"]))
    edit = line_edit(text, first, last, replacement, encoding)
    if edit is not None:
        start, end = (Position(at.line, at.character) for at in (edit.range.start, edit.range.end))
        assert apply_edits(text, [Edit(edit.new_text, start, end)], encoding) == applied(text, first, last, replacement)


@pytest.mark.parametrize(
    ("head", "line"),
    [("# one\r# two\r# three\n", 3), ("# one\r\n# two\r\n", 2), ("# one\r# two\r\n\r\n", 3), ("\ufeff# é\r\n", 1)],
)
async def test_a_review_stands_at_its_line_in_a_file_that_mixes_line_ends(tmp_path: Path, head: str, line: int) -> None:
    root = make_repository(tmp_path / "house")
    git(root, "branch", "-M", "main")
    for number in range(6):
        (root / f"c{number}.py").write_text("from house.http import get_json\n\nget_json()\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "Clients")
    git(root, "checkout", "-qb", "change")
    new, text = root / "new.py", f"{head}from requests import get_json\n\nget_json()\n"
    new.write_bytes(text.encode())
    with Workspace.open(root, "test") as house:
        resolving = {"dataSupport": True, "resolveSupport": {"properties": ["edit", "command"]}}
        client = Client(house, capabilities={"textDocument": {"codeAction": resolving}})
        client.open(new.as_uri(), text)
        running = client.start("workspace/executeCommand", {"command": "inhouse.review"})
        published = (await client.told("textDocument/publishDiagnostics"))["params"]
        assert (await client.answer(running))["result"]["findings"] == 1
        [diagnostic] = published["diagnostics"]
        assert diagnostic["range"] == {
            "start": {"line": line, "character": 0}, "end": {"line": line + 1, "character": 0}
        }  # fmt: skip
        asked = {
            "textDocument": {"uri": new.as_uri()}, "range": diagnostic["range"],
            "context": {"diagnostics": [diagnostic], "only": ["quickfix"]},
        }  # fmt: skip
        [action] = await client.request("textDocument/codeAction", asked)
        [edit] = (await client.request("codeAction/resolve", action))["edit"]["changes"][new.as_uri()]
        start, end = (
            Position(edit["range"][side]["line"], edit["range"][side]["character"]) for side in ("start", "end")
        )
        assert apply_edits(text, [Edit(edit["newText"], start, end)]) == text.replace("requests", "house.http")
        await client.close()
