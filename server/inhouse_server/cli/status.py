"""`inhouse status`: adapter, index, retraining, owner; what else the owner serves."""

from __future__ import annotations

from typing import Any

import typer

from inhouse_server.cli.backend import open_backend
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json


def status(repo: RepoOption = HERE, json: JsonOption = False) -> None:
    """Show the current adapter, the index, the last and the next retraining, and the owner with all that it serves."""
    with open_backend(repo, "status") as (_, backend):
        held = backend.status()
    if json:
        print_json(held)
        return
    if last := held["last_retrain"]:
        held["last_retrain"] = f"{last['decision']}, candidate {last['candidate']}, finished {last['finished']}"
    held["adapters_loaded"] = ", ".join(held["adapters_loaded"]) or None
    servers, repositories = held.pop("servers", []), held.pop("repositories", {})
    for key, value in held.items():
        typer.echo(f"{key}: {value if value is not None else 'none'}")
    for server in servers:
        state = f"ready for {', '.join(server['ready']) or 'the base model'}" if server["up"] else server["problem"]
        typer.echo(f"server {server['url']}: {state}")
        for version, reason in server["failed"].items():
            typer.echo(f"  {version}: {reason}")
        for version in server["not_telling"]:
            typer.echo(f"  {version}: checked, but it is too close to the base model to tell whether it was left out")
    for name, each in repositories.items():
        typer.echo(f"repository {name}: {_in_short(each)}")


def _in_short(held: dict[str, Any]) -> str:
    if "problem" in held:
        return f"not served: {held['problem']}"
    adapter, commit = held["adapter"] or "no adapter", held["index_commit"][:12] or "no commit yet"
    return f"{held['root']}, {adapter}, {held['files']} files at {commit}, {held['pending']} pending"
