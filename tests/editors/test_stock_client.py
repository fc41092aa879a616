"""VS Code's own protocol library as a stock client. Needs npm; run by `make test-editors`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.server.house import INHOUSE, NAME, make_repository, owner

pytestmark = pytest.mark.editors
HERE = Path(__file__).parent / "stock_client"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client with its library, installed by npm."""
    for program in ("node", "npm"):
        assert shutil.which(program), f"{program} is needed for this test: install it, or run `make test` alone"
    folder = Path(shutil.copytree(HERE, tmp_path_factory.mktemp("npm") / "stock_client"))
    command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "client.mjs"


def test_code_actions_and_commands_work_in_a_client_that_knows_nothing_of_inhouse(client: Path, tmp_path: Path) -> None:
    root = make_repository(tmp_path / "a shop")
    with owner(root):
        done = subprocess.run(
            ["node", client, INHOUSE, root, NAME], capture_output=True, text=True, timeout=200, check=False
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["titles"] == ["Explain", "How do we usually do this here?"]
    assert told["shown"] == [told["result"]["uri"]]
    assert told["bars"][0] == "begin" and told["bars"][-1] == "end"
    assert "Answered by SmolLM2-135M-Instruct" in told["answer"]
    assert told["code"] == 0
    assert told["capabilities"]["executeCommandProvider"]["commands"] == [
        "inhouse.ask",
        "inhouse.change",
        "inhouse.review",
        "inhouse.why",
    ]
