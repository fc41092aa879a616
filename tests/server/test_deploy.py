"""What lies in `server/deploy` for a team: the options exist, and systemd takes the unit."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from inhouse_server.cli.app import app
from inhouse_server.settings import EngineSettings

DEPLOY = Path(__file__).parents[2] / "server" / "deploy"
UNIT = DEPLOY / "systemd" / "inhouse.service"
VLLM = DEPLOY / "vllm"
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


def test_the_vllm_servers_are_started_as_their_settings_say() -> None:
    """The options' names are those of vLLM 0.33.0's LoRA configuration; what stands in the comments are settings."""
    compose = yaml.safe_load((VLLM / "compose.yaml").read_text())
    stack = yaml.safe_load((VLLM / "production-stack.values.yaml").read_text())
    stacked = stack["servingEngineSpec"]["modelSpec"]
    given = [each["command"] for each in compose["services"].values()]
    given += [each["vllmConfig"]["extraArgs"] for each in stacked]
    for options in given:
        assert {"--max-lora-rank=64", "--served-model-name=house", "--max-cpu-loras=4"} <= set(options)
    assert all(each["replicaCount"] == 1 for each in stacked) and [each["name"] for each in stacked] == ["a", "b"]
    for file in ("compose.yaml", "production-stack.values.yaml"):
        commented = [line.removeprefix("#   ") for line in (VLLM / file).read_text().splitlines() if line[:4] == "#   "]
        keys = commented[commented.index("[engine]") + 1 :]
        engine = EngineSettings.model_validate(tomllib.loads("\n".join(keys)))
        assert (engine.kind, engine.model, engine.max_lora_rank, len(engine.servers)) == ("vllm", "house", 64, 2)


def test_the_slack_app_asks_for_what_the_bot_needs_and_no_more() -> None:
    manifest = yaml.safe_load((DEPLOY / "slack" / "manifest.yaml").read_text())
    assert manifest["settings"]["socket_mode_enabled"]
    heard = {event.partition(".")[0] for event in manifest["settings"]["event_subscriptions"]["bot_events"]}
    assert heard == {"app_mention", "message"}, "what connection.py listens to"
    scopes = set(manifest["oauth_config"]["scopes"]["bot"])
    assert scopes == {"app_mentions:read", "channels:history", "groups:history", "im:history", "chat:write"}
