"""`inhouse status`: adapter, index, retraining, owner."""

from __future__ import annotations

import typer

from inhouse_server.cli.backend import open_backend
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json


def status(repo: RepoOption = HERE, json: JsonOption = False) -> None:
    """Show the current adapter, the index, the last and the next retraining, and the owner."""
    with open_backend(repo, "status") as (_, backend):
        held = backend.status()
    if json:
        print_json(held)
        return
    if last := held["last_retrain"]:
        held["last_retrain"] = f"{last['decision']}, candidate {last['candidate']}, finished {last['finished']}"
    held["adapters_loaded"] = ", ".join(held["adapters_loaded"]) or None
    servers = held.pop("servers", [])
    for key, value in held.items():
        typer.echo(f"{key}: {value if value is not None else 'none'}")
    for server in servers:
        state = f"ready for {', '.join(server['ready']) or 'the base model'}" if server["up"] else server["problem"]
        typer.echo(f"server {server['url']}: {state}")
        for version, reason in server["failed"].items():
            typer.echo(f"  {version}: {reason}")
        for version in server["not_telling"]:
            typer.echo(f"  {version}: checked, but it is too close to the base model to tell whether it was left out")
