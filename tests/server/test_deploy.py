"""What lies in `server/deploy` for a team: the options exist, and systemd takes the unit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from packaging.specifiers import SpecifierSet
from pydantic import BaseModel

from inhouse_server.cli.app import app
from inhouse_server.http_api.guard import MAX_BODY_BYTES
from inhouse_server.settings import NOT_SETTINGS, EngineSettings, ServerSettings, Settings, _environment_names

DEPLOY = Path(__file__).parents[2] / "server" / "deploy"
UNIT = DEPLOY / "systemd" / "inhouse.service"
VLLM = DEPLOY / "vllm"
CONTAINER = DEPLOY / "container" / "Containerfile"
PROXY = DEPLOY / "proxy" / "nginx.conf"
TEXTS = {str(path.relative_to(DEPLOY)): path.read_text() for path in DEPLOY.rglob("*") if path.is_file()}
PROSE = {"and", "for", "in", "into", "is", "picks", "on", "at", "from", "posts"}
"""What follows the product's name in a sentence."""
VLLM_VARIABLES = {"VLLM_API_KEY", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "HF_HUB_OFFLINE"}
"""Of vLLM 0.33.0's `envs.py`, and of the hub's client."""
SERVICE_KEYS = {"image", "restart", "ipc", "environment", "volumes", "command", "ports", "deploy"}
"""Of the Compose Specification, as far as they are used; the whole file was held against its schema once."""
CHART = {
    "routerSpec": {"enableRouter": bool},
    "sharedPvcStorage": {"enabled": bool, "size": str, "accessModes": list},
    "servingEngineSpec": {"runtimeClassName": str, "strategy": dict, "vllmApiKey": dict, "modelSpec": list},
}
CHART_MODEL = {
    "name": str, "repository": str, "tag": str, "modelURL": str, "enableLoRA": bool, "replicaCount": int,
    "requestCPU": int, "requestMemory": str, "requestGPU": int, "env": list, "vllmConfig": dict,
}  # fmt: skip
CHART_VLLM = {"enablePrefixCaching": bool, "maxModelLen": int, "maxLoras": int, "extraArgs": list}
"""Values of vllm-project/production-stack's chart (`helm/values.schema.json` at a6c01db0), as far as they are used."""


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


def instructions(name: str) -> list[str]:
    """What follows ``name`` in the container file, lines that go on joined."""
    whole = CONTAINER.read_text().replace("\\\n", " ")
    return [line.partition(" ")[2].strip() for line in whole.splitlines() if line.partition(" ")[0] == name]


def test_the_container_file_is_well_formed_and_speaks_of_this_product() -> None:
    known = {
        "FROM",
        "ARG",
        "RUN",
        "WORKDIR",
        "COPY",
        "USER",
        "ENV",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
    }
    whole = CONTAINER.read_text().replace("\\\n", " ")
    lines = [line for line in whole.splitlines() if line and not line.startswith("#")]
    assert {line.split()[0] for line in lines} <= known and lines[0].startswith("FROM ")
    project = tomllib.loads((DEPLOY.parents[1] / "pyproject.toml").read_text())["project"]
    (image,) = instructions("FROM")
    python = re.fullmatch(r"docker\.io/library/python:(\d+\.\d+)-slim-bookworm", image)
    assert python and SpecifierSet(project["requires-python"]).contains(python[1])
    assert instructions("EXPOSE") == [str(ServerSettings().port)]
    (start,), (check,) = (json.loads(text) for text in instructions("ENTRYPOINT")), instructions("HEALTHCHECK")
    assert start[:2] == ["inhouse", "serve"]
    look = json.loads(check.partition("CMD ")[2])
    assert look[0] == "inhouse" and set(look) & {"--repo"} <= options_of(look[1])
    assert instructions("STOPSIGNAL") == ["SIGTERM"] and instructions("USER") == ["inhouse"]


def test_the_ports_are_those_that_inhouse_listens_on() -> None:
    port = str(ServerSettings().port)
    assert re.findall(r"proxy_pass http://127\.0\.0\.1:(\d+);", TEXTS["proxy/nginx.conf"]) == [port]
    assert re.findall(r"-p (\d+):(\d+)", TEXTS["container/Containerfile"]) == [(port, port)]
    limit = re.findall(r"client_max_body_size (\d+)m;", PROXY.read_text())
    assert [int(each) * 2**20 for each in limit] == [MAX_BODY_BYTES]


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_commands_options_variables_and_settings_exist(name: str) -> None:
    """Those of inhouse that a file names, its comments included."""
    text = TEXTS[name].replace("\\\n", " ")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for command, rest in re.findall(r"\binhouse (?!inhouse)([a-z][a-z-]*)\b([^\n|;'`]*)", text):
        if command not in commands:
            assert command in PROSE, f"{name}: there is no command {command!r}"
            continue
        found = commands[command]
        inner = getattr(found, "commands", {})  # where none of them is named, `inhouse review` means "change"
        found = inner.get(next(iter(rest.split()), ""), inner.get("change", found))
        known = {option for parameter in found.params for option in parameter.opts}
        given = set(re.findall(r"(?<=\s)--[a-z][a-z-]*", rest.partition(" #")[0]))
        assert given <= known, f"{name}: inhouse {command} has no {sorted(given - known)}"
    settings = set(_environment_names()) | NOT_SETTINGS
    ours = set(re.findall(r"\bINHOUSE_[A-Z_]+", text)) - {"INHOUSE_STATE"}  # compose's own, which its head explains
    assert ours <= settings, name
    section = ""
    for line in text.splitlines():
        bare = line.strip().removeprefix("#").strip()
        if header := re.fullmatch(r"\[([a-z_]+)\]", bare):
            section = header[1]
        elif (key := re.match(r"([a-z_]+) = ", bare)) and section in Settings.model_fields:
            model = Settings.model_fields[section].annotation
            assert isinstance(model, type) and issubclass(model, BaseModel) and key[1] in model.model_fields, bare


def test_the_compose_file_takes_what_compose_takes_and_reaches_no_further_than_loopback() -> None:
    compose = yaml.safe_load(TEXTS["vllm/compose.yaml"])
    assert {key for key in compose if not key.startswith("x-")} == {"services"}
    head = TEXTS["vllm/compose.yaml"].partition("x-vllm:")[0]
    ports = []
    for service in compose["services"].values():
        assert service.keys() <= SERVICE_KEYS
        assert re.fullmatch(r"docker\.io/vllm/vllm-openai:v0\.33\.0", service["image"]), "pinned, never latest"
        assert service["environment"].keys() <= VLLM_VARIABLES
        for bound in service["ports"]:
            host, outside, inside = bound.split(":")
            assert (host, inside) == ("127.0.0.1", "8000"), "vLLM's own port, and loopback alone"
            ports.append(f"http://127.0.0.1:{outside}")
        for volume in service["volumes"]:
            assert volume.endswith(":ro")
    assert f"servers = {json.dumps(ports)}" in head, "what inhouse.toml is told"
    asked = set(re.findall(r"\$\{(\w+):\?", TEXTS["vllm/compose.yaml"]))
    assert asked == {"VLLM_KEY", "BASE_MODEL", "INHOUSE_STATE"} and all(f"{each}=" in head for each in asked)


def test_the_chart_s_values_are_values_of_the_chart() -> None:
    values = yaml.safe_load(TEXTS["vllm/production-stack.values.yaml"])
    assert values.keys() == CHART.keys()
    models = values["servingEngineSpec"]["modelSpec"]
    checked = [(values[name], kinds) for name, kinds in CHART.items()]
    checked += [(each, CHART_MODEL) for each in models] + [(each["vllmConfig"], CHART_VLLM) for each in models]
    for given, kinds in checked:
        assert given.keys() <= kinds.keys()
        assert all(type(value) is kinds[key] for key, value in given.items())
    for each in models:
        assert {variable["name"] for variable in each["env"]} <= VLLM_VARIABLES
        assert (each["repository"], each["tag"]) == ("vllm/vllm-openai", "v0.33.0"), "the same as in the compose file"
        # The chart names a service for each entry so, and mounts the shared volume there.
        assert f"http://house-{each['name']}-engine-service" in TEXTS["vllm/production-stack.values.yaml"]
        assert each["modelURL"].startswith("/data/shared-pvc-storage/")
