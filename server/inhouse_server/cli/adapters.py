"""`inhouse adapters`: list, show, promote, roll back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inhouse_server.cli.backend import locate
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json, start_logging

if TYPE_CHECKING:
    from inhouse_training import Registry

app = typer.Typer(help="The versions that training made.", no_args_is_help=True)

VersionArgument = Annotated[str, typer.Argument(help="An adapter version.")]


def _registry(repo: Path) -> Registry:
    from inhouse_training import Registry

    state_dir = locate(repo)[2]
    start_logging(state_dir, "adapters")
    return Registry(state_dir / "adapters")


@app.command("list")
def list_versions(repo: RepoOption = HERE, json: JsonOption = False) -> None:
    """List the versions, newest first."""
    from inhouse_server.json_contracts import adapter_json

    registry = _registry(repo)
    current = registry.current()
    rows = [adapter_json(version, current) for version in registry.list()]
    if json:
        print_json(rows)
        return
    if not rows:
        typer.echo("No adapter yet. 'inhouse retrain' makes one.")
    for row in rows:
        mark = "*" if row["current"] else " "
        typer.echo(f"{mark} {row['version']}  {row['created']}  {row['base_model']}  {row['snapshot'][:12]}")


@app.command("show")
def show(version: VersionArgument, repo: RepoOption = HERE, json: JsonOption = False) -> None:
    """Show one version's manifest."""
    manifest = asdict(_registry(repo).get(version).manifest)
    if json:
        print_json(manifest)
        return
    for key, value in manifest.items():
        typer.echo(f"{key}: {value}")


@app.command("promote")
def promote(version: VersionArgument, repo: RepoOption = HERE, json: JsonOption = False) -> None:
    """Make a version the current one, by hand."""
    promoted = _registry(repo).promote(version, "by hand").version
    _say({"current": promoted}, f"{promoted} is current.", json)


@app.command("rollback")
def rollback(repo: RepoOption = HERE, json: JsonOption = False) -> None:
    """Go back to the version before the current one."""
    current = _registry(repo).rollback("by hand")
    _say({"current": current}, f"{current or 'The base model'} is current.", json)


def _say(value: dict[str, str | None], sentence: str, json: bool) -> None:
    if json:
        print_json(value)
    else:
        typer.echo(sentence)
