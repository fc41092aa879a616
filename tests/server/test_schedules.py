"""The files of `inhouse retrain install`: what each scheduler reads, and that the command inside runs."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from inhouse_retrieval import InhouseError
from inhouse_server.cli.schedules import Job, schedule

from ..training.history import git, make_history
from .command_line import inhouse

HARD_NAME = "shop's 100% $HOME $(x)"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone, whose branch can be pulled, in a folder with the characters that schedulers treat as their own."""
    folder = tmp_path_factory.mktemp("schedules")
    make_history(folder / "origin", commits=16)
    git(folder, "clone", "--quiet", "origin", HARD_NAME)
    return folder / HARD_NAME


def job(root: Path, **changed: Any) -> Job:
    usual: dict[str, Any] = {"options": ("--every", "7d"), "pull": True, "hour": 2, "minute": 5, "hourly": False}
    return Job(root=root, image="registry.example.org/inhouse:1", **{**usual, **changed})


def unit(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def words_of_systemd(line: str) -> list[str]:
    """A command line as systemd.service(5) reads it: quotes, then %% and $$ stand for themselves."""
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line)]


def plan_of(command: str) -> dict[str, Any]:
    """What the shell command comes to with ``--dry-run --json`` behind the retraining."""
    dry = re.sub(r" \|\| \[ \$\? -eq 3 \]", r" --dry-run --json\g<0>", command)
    assert dry != command
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["/bin/sh", "-c", dry], capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stderr
    plan: dict[str, Any] = json.loads(done.stdout)
    return plan


def test_systemd_units(shop: Path, tmp_path: Path) -> None:
    made = json.loads(
        inhouse("retrain", "install", "--timer", "systemd", "--every", "7d", "--repo", str(shop), "--json").stdout
    )
    service, timer = (unit(text) for text in made["files"].values())
    assert timer["Timer"]["OnCalendar"] == "*-*-* 02:00:00" and timer["Install"]["WantedBy"] == "timers.target"
    assert service["Service"]["Type"] == "oneshot" and service["Service"]["SuccessExitStatus"] == "3"
    pulling = service["Service"]["ExecStartPre"]
    assert pulling.startswith("-"), "offline, it trains on what is there"
    assert words_of_systemd(pulling[1:])[:3] == ["git", "-C", str(shop)]
    command = words_of_systemd(service["Service"]["ExecStart"])
    assert command == made["command"] and command[-2:] == ["--every", "7d"]
    assert plan_of(f"{shlex.join(command)} || [ $? -eq 3 ]")["decision"] == "train"
    if shutil.which("systemd-analyze"):  # beyond what is checked above: systemd's own reading
        for name, text in made["files"].items():
            (tmp_path / name).write_text(text)
        verdict = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in made["files"])],
            capture_output=True,
            text=True,
        )
        assert "inhouse-retrain" not in verdict.stderr, verdict.stderr


def test_a_cron_line(shop: Path) -> None:
    written = shop.parent / "line"
    done = inhouse(
        "retrain", "install", "--timer", "cron", "--at", "23:45", "--repo", str(shop), "--output", str(written)
    )
    assert done.returncode == 0 and "crontab" in done.stderr
    *remarks, line = written.read_text().splitlines()
    assert all(remark.startswith("#") for remark in remarks) and "Exit code 3" in remarks[0]
    fields = re.fullmatch(r"(\d+) (\d+) (\*) (\*) (\*) (.+)", line)
    assert fields is not None and fields.group(1, 2) == ("45", "23")
    # cron ends a command at a bare % and removes the backslash before one.
    assert not re.search(r"(?<!\\)%", fields[6])
    assert plan_of(fields[6].replace(r"\%", "%"))["decision"] == "train"
    again = inhouse("retrain", "install", "--timer", "cron", "--repo", str(shop), "--output", str(written))
    assert (again.returncode, "exists already" in again.stderr) == (1, True)


@pytest.mark.long  # 13 s; systemd and cron run the same command
def test_a_github_workflow(shop: Path) -> None:
    (text,) = schedule("github", job(shop)).files.values()
    workflow = yaml.safe_load(text)
    assert workflow[True]["schedule"] == [{"cron": "5 2 * * *"}], "YAML 1.1 reads the key `on` as true"
    retraining = workflow["jobs"]["retrain"]
    assert retraining["runs-on"] == "self-hosted"
    assert plan_of(retraining["steps"][0]["run"])["decision"] == "train"


@pytest.mark.long  # 15 s; systemd and cron run the same command
def test_a_kubernetes_cron_job(shop: Path) -> None:
    (text,) = schedule("kubernetes", job(shop)).files.values()
    manifest = yaml.safe_load(text)
    assert (manifest["kind"], manifest["spec"]["schedule"]) == ("CronJob", "5 2 * * *")
    assert manifest["spec"]["concurrencyPolicy"] == "Forbid"
    pod = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["/bin/sh", "-c"]
    assert container["volumeMounts"][0]["mountPath"] == pod["volumes"][0]["hostPath"]["path"] == str(shop)
    assert plan_of(container["args"][0].replace("$$(", "$("))["decision"] == "train"


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_rejected_candidate_is_no_failure_and_anything_else_is(tmp_path: Path, code: int) -> None:
    (text,) = schedule("github", job(tmp_path, pull=False)).files.values()
    run = yaml.safe_load(text)["jobs"]["retrain"]["steps"][0]["run"]
    command = re.sub(r"\{ .+? \|\|", f"{{ (exit {code}) ||", run)
    assert subprocess.run(["/bin/sh", "-c", command]).returncode == (1 if code == 1 else 0)


def test_what_follows_no_other_branch_is_not_pulled_and_an_hourly_job_runs_each_hour(tmp_path: Path) -> None:
    (text,) = schedule("cron", job(tmp_path, pull=False, hourly=True)).files.values()
    assert "git" not in text and text.splitlines()[-1].startswith("5 * * * * ")
    service = schedule("systemd", job(tmp_path, pull=False, hourly=True)).files
    assert "ExecStartPre" not in "".join(service.values()) and "OnCalendar=*-*-* *:05:00" in "".join(service.values())


def test_a_path_that_no_file_can_carry_is_refused() -> None:
    for name in ("two\nlines", "${{ secrets.KEY }}"):
        with pytest.raises(InhouseError, match="cannot be written into a schedule"):
            schedule("github", job(Path("/srv") / name))
