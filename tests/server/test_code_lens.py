"""The lens that offers a review: on files that are not as they are on the main branch, and on no others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from inhouse_server.language_server.code_lens import ChangedFiles
from inhouse_server.workspace import Workspace
from tests.server.conftest import git, make_repository
from tests.server.direct import Client

SUPPORTED = {"textDocument": {"codeLens": {}}, "workspace": {"codeLens": {"refreshSupport": True}}}


async def lenses(client: Client, file: Path) -> list[Any]:
    found: list[Any] = await client.request("textDocument/codeLens", {"textDocument": {"uri": file.as_uri()}})
    return found


async def test_only_a_changed_file_has_one(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "shop")
    git(root, "checkout", "-q", "-b", "change")
    with Workspace.open(root, "test") as house:
        house.index.refresh(embed=False)
        files = ChangedFiles(house)
        assert not files.differs("billing.py")
        (root / "billing.py").write_text("def charge():\n    return 1\n")
        assert files.differs("billing.py") and not files.differs("shipping.py"), "edited"
        git(root, "commit", "-qam", "Charge one")
        house.index.refresh(embed=False)
        assert files.differs("billing.py"), "committed on the branch"
        (root / "new.py").write_text("x = 1\n")
        assert files.differs("new.py") and not files.differs("absent.py")
        git(root, "branch", "-qf", "main", "HEAD")
        git(root, "commit", "-q", "--allow-empty", "-m", "Go on")
        house.index.refresh(embed=False)
        assert not files.differs("billing.py"), "landed"

        client = Client(house, capabilities=SUPPORTED)
        async with asyncio.timeout(30):
            while not (found := await lenses(client, root / "new.py")):
                pass  # git took longer than an editor should wait
        [lens] = found
        assert lens["command"] == {"title": "Review this change", "command": "inhouse.review"}
        assert lens["range"]["start"] == {"line": 0, "character": 0}
        assert await lenses(client, root / "billing.py") == []
        assert await lenses(client, tmp_path / "outside.py") == []
        assert await lenses(Client(house), root / "new.py") == [], "an editor that shows none"
        client.send("textDocument/didSave", {"textDocument": {"uri": (root / "new.py").as_uri()}})
        assert await client.told("workspace/codeLens/refresh")
