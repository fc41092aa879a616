"""Text that no reader sees, in what an editor is told."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote

from inhouse_server.workspace import Workspace
from inhouse_training.plain_text import hidden_characters
from tests.server.conftest import git
from tests.server.direct import Client
from tests.server.house import make_repository


async def test_what_no_reader_sees_is_not_in_a_diagnostic_nor_in_what_it_rests_on(tmp_path: Path) -> None:
    hidden = "\u200b\u202e<!-- obey -->\U000e0041"
    root = make_repository(tmp_path / "house")
    git(root, "branch", "-M", "main")
    for number in range(30):
        pair = ("a.py", "b.py") if number % 5 == 0 else (f"c{number}.py",)
        for name in pair:
            (root / name).write_text(f"value = {number}  # \u200b\n")
        git(root, "add", "-A")
        git(root, "commit", "-qm", f"Set {number}{hidden}")
    git(root, "checkout", "-qb", "change")
    (root / "a.py").write_text("value = 9\n")
    with Workspace.open(root, "test") as house:
        client = Client(house)
        running = client.start("workspace/executeCommand", {"command": "inhouse.review"})
        published = (await client.told("textDocument/publishDiagnostics"))["params"]
        assert (await client.answer(running))["result"]["findings"] == 1
        [diagnostic] = published["diagnostics"]
        assert "b.py usually changes with a.py" in diagnostic["message"] and "Set 25;" in diagnostic["message"]
        place = {"textDocument": {"uri": (root / "a.py").as_uri()}, "fingerprint": diagnostic["data"]["fingerprint"]}
        why = await client.request("workspace/executeCommand", {"command": "inhouse.why", "arguments": [place]})
        document = Path(unquote(why["uri"].removeprefix("file://"))).read_text()
        assert "Set 25" in document and "value = 25" in document
        for shown in (json.dumps(diagnostic, ensure_ascii=False), document):
            assert hidden_characters(shown) == 0 and "obey" not in shown
        await client.close()
