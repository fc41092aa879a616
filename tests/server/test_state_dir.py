"""The state directory when something is wrong with it: a full disk, no right to write, things of another kind."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from inhouse_retrieval import Repository
from inhouse_server.holder import read_holder
from inhouse_server.owner import stop_owner
from inhouse_server.workspace import Workspace
from inhouse_training import BaseModel

from .command_line import inhouse
from .conftest import make_repository

COMMAND = f"{shlex.quote(sys.executable)} -m inhouse_server.cli"


def in_a_namespace(script: str) -> str:
    """What ``script`` says where it may mount: a disk that is full or read-only for everybody, root too."""
    run = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    return subprocess.run(run, capture_output=True, text=True, timeout=120).stdout


def said_on_a_disk_of(size: str, root: Path, command: str) -> str:
    return in_a_namespace(
        f"mount -t tmpfs -o size={size} tmpfs {root}/.inhouse && head -c 20000 /dev/zero > {root}/.inhouse/filler 2>&-;"
        f"{COMMAND} {command} --repo {root} 2>&1; echo ended with $?; ls -s {root}/.inhouse"
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_repository(tmp_path_factory.mktemp("state") / "shop")
    (root / ".inhouse").mkdir()
    return root


@pytest.mark.parametrize(("command", "size"), [("index", "16k"), ("index", "200k"), ("serve --port 0", "16k")])
def test_a_full_disk_is_one_plain_error(root: Path, command: str, size: str) -> None:
    told = said_on_a_disk_of(size, root, command)
    assert "ended with 1\n" in told and "error: The " in told and " cannot be written: " in told, told
    assert "Traceback" not in told and "does not know" not in told and "Logging error" not in told, told
    assert ".json." not in told and "token." not in told, "no half-written file stays"


def test_what_only_reads_works_on_a_read_only_disk(root: Path, tmp_path: Path) -> None:
    shop = make_repository(tmp_path / "shop")
    assert inhouse("index", "--repo", str(shop)).returncode == 0
    commands = ("status", "adapters list", "review", "doctor", "index")
    each = "".join(f"echo '## {name}'; {COMMAND} {name} --repo {shop} 2>&1; echo ended with $?;" for name in commands)
    mounted = f"mount --bind {shop} {shop} && mount -o remount,ro,bind {shop}"
    told = in_a_namespace(f"{mounted} && {{ {each} }}")
    status, adapters, review, doctor, index = told.split("## ")[1:]
    assert "ended with 0" in status and "2 files in" in status and "ended with 0" in adapters, told
    assert "ended with 0" in review and "No findings" in review, told
    assert "ended with 1" in doctor and f"FAIL  data folder: {shop}/.inhouse cannot be written" in doctor, told
    assert "ended with 1" in index and "cannot be written: Read-only file system" in index, told
    assert "Traceback" not in told and "does not know" not in told


def test_a_gitignore_that_a_full_disk_left_empty_is_mended(tmp_path: Path) -> None:
    shop = make_repository(tmp_path / "shop")
    assert inhouse("index", "--repo", str(shop)).returncode == 0
    ignore = shop / ".inhouse/.gitignore"
    ignore.write_text("")
    (shop / ".inhouse/token").write_text("a secret of the owner")
    files = {file.path for file in Repository.open(shop).work_tree().files}
    assert files == {"billing.py", "shipping.py"}, "whatever git thinks of the folder"
    apart = Repository.open(shop).apart_from(shop / "kept")
    assert apart.reason_by_name("kept/token") == "kept by inhouse" and apart.reason_by_name("keep/token") is None
    assert inhouse("index", "--repo", str(shop)).returncode == 0
    assert ignore.read_text() == "*\n"


def test_what_is_of_another_kind_is_set_aside_and_made_again(tmp_path: Path) -> None:
    shop = make_repository(tmp_path / "shop")
    state = shop / ".inhouse"
    for name in ("logs", "vectors", "pull-requests"):
        state.mkdir(exist_ok=True)
        (state / name).write_text("a file")
    (state / "catalog.sqlite").mkdir()
    (state / "token").mkdir()
    done = inhouse("search", "when do couriers come", "--repo", str(shop))
    assert done.returncode == 0 and "its meaning, its words" in done.stdout, done.stderr
    assert f"{state}/vectors was not what inhouse keeps there" in done.stderr
    assert (state / "vectors").is_dir() and (state / "catalog.sqlite").is_file()
    assert [path.read_text() for path in state.glob("logs.set-aside-*/logs")] == ["a file"]
    beside = tmp_path / "file"
    beside.write_text("")
    told = inhouse("index", "--repo", str(shop), INHOUSE_STATE_DIR=str(beside))
    assert told.returncode == 1 and f"{beside} is a file." in told.stderr


def test_an_owner_that_does_not_answer_is_told_with_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_repository(tmp_path / "shop")
    monkeypatch.setattr("inhouse_server.cli.status._PATIENCE_S", 0.1)
    monkeypatch.setattr("inhouse_server.owner.stop_owner", lambda state_dir: stop_owner(state_dir, 60, 0.1))
    assert "No owner runs here" in inhouse("serve", "--stop", "--repo", str(shop)).stdout
    with Workspace.open(shop, "serve"):  # it holds the repository, and never listens
        assert read_holder(shop / ".inhouse").pid == os.getpid()
        told = inhouse("serve", "--stop", "--repo", str(shop))
        assert told.returncode == 1 and f"The owner process ({os.getpid()}) runs and does not answer." in told.stderr
        status = inhouse("status", "--repo", str(shop)).stdout
        monkeypatch.setattr("inhouse_server.owner.is_stopping", lambda state_dir: True)
        stopping = inhouse("status", "--repo", str(shop)).stdout
    assert f"process {os.getpid()} does not answer; end it with: kill -9" in status
    assert "is stopping: its last answers" in stopping and "kill" not in stopping


def test_a_current_adapter_that_is_gone_is_told_with_a_way_out(tmp_path: Path, base_model: BaseModel) -> None:
    shop = make_repository(tmp_path / "shop")
    (shop / ".inhouse/adapters").mkdir(parents=True)
    (shop / ".inhouse/adapters/current").write_text("deadbeef\n")
    told = inhouse("ask", "Who books couriers?", "--repo", str(shop))
    assert told.returncode == 1 and "The current adapter deadbeef is missing." in told.stderr
    assert inhouse("ask", "Who books couriers?", "--adapter", "base", "--repo", str(shop)).returncode == 0


def test_output_that_cannot_be_written_or_encoded(tmp_path: Path) -> None:
    shop = make_repository(tmp_path / "shop")
    (shop / "umbrella.py").write_text("# ☂ for the rain\n")
    ask = [sys.executable, "-m", "inhouse_server.cli", "search", "umbrella for the rain", "--repo", str(shop)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(ask, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "The output cannot be written: No space left on device." in done.stderr
    assert "Exception ignored" not in done.stderr and "Traceback" not in done.stderr
    closed = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *ask], stderr=subprocess.PIPE, text=True)
    assert "does not know" not in closed.stderr and "Traceback" not in closed.stderr
    latin = subprocess.run(ask, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert latin.returncode == 0 and "\\u2602 for the rain" in latin.stdout
