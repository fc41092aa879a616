"""What lies in `server/deploy` for a team: the options exist, and systemd takes the unit."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from inhouse_server.cli.app import app

DEPLOY = Path(__file__).parents[2] / "server" / "deploy"
UNIT = DEPLOY / "systemd" / "inhouse.service"
CONTAINER = DEPLOY / "container" / "Containerfile"


def options_of(command: str) -> set[str]:
    found = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    return {name for parameter in found.params for name in parameter.opts}


@pytest.mark.parametrize("file", [UNIT, CONTAINER])
def test_the_options_that_are_given_exist(file: Path) -> None:
    (line,) = re.findall(r"^(?:ExecStart|ENTRYPOINT).*", file.read_text(), re.MULTILINE)
    given = set(re.findall(r"--[a-z-]+", line))
    assert "--log-json" in given and given <= options_of("serve")


def test_the_container_s_files_exist() -> None:
    text = CONTAINER.read_text()
    assert "constraints.txt" in text and (DEPLOY.parents[1] / "constraints.txt").is_file()
    ignored = (DEPLOY.parents[1] / ".dockerignore").read_text().split()
    assert {".git", ".inhouse", ".venv"} <= set(ignored)


@pytest.mark.editors  # needs systemd-analyze
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    there = UNIT.read_text().replace("/srv/inhouse/venv/bin/inhouse", sys.executable)
    unit = tmp_path / "inhouse.service"
    unit.write_text(re.sub(r"^(User|Group|Documentation)=.*\n", "", there, flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "inhouse.service" in line]
    assert done.returncode == 0 and not ours, done.stderr
