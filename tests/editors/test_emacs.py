"""The Emacs client in a real Emacs without a display, against the real server and model; run by `make test-editors`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.server.house import INHOUSE, make_repository, owner
from tests.server.speaker import saying, speaking

pytestmark = pytest.mark.editors
HERE = Path(__file__).parent
TESTS = f'(progn (load "{HERE}/inhouse-tests.el") (ert-run-tests-batch-and-exit (quote {{}})))'
"""Runs the tests of a kind."""
CLIENT = HERE.parents[1] / "editor-clients" / "emacs" / "inhouse.el"


def emacs(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    assert shutil.which("emacs"), "emacs is needed for this test: install emacs-nox, or run `make test` alone"
    environment = {**os.environ, "PATH": f"{INHOUSE.parent}{os.pathsep}{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    command = ["emacs", "--batch", "-Q", "-L", CLIENT.parent, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=400, check=False)


def test_it_compiles_without_a_warning(tmp_path: Path) -> None:
    copy = shutil.copy(CLIENT, tmp_path)
    done = emacs("--eval", "(setq byte-compile-error-on-warn t)", "-f", "batch-byte-compile", copy, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_it_asks_stops_and_reviews(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "a shop")
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for number in range(6):
        (root / f"c{number}.py").write_text("from house.http import get_json\n\nget_json()\n")
    for arguments in (["branch", "-M", "main"], ["add", "-A"], ["commit", "-qm", "Clients"]):
        subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True)
    (root / "new.py").write_text("import os\nfrom requests import get_json\n\nget_json(os)\n")
    with owner(root):
        done = emacs("--eval", TESTS.format("(not (tag scripted))"), cwd=root)
    assert done.returncode == 0, done.stderr


def test_the_model_changes_lines_where_its_change_is_one(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "shop")
    (root / "till.py").write_text("def first():\n    return 1\n\n\ndef second():\n    return 2\n")
    with speaking() as speaker, saying(root, speaker):
        speaker.reply = "Here it is:\n\n```python\ndef second():\n    return 'größer 🛒'\n```\n"
        done = emacs("--eval", TESTS.format("(tag scripted)"), cwd=root)
    assert done.returncode == 0, done.stderr
