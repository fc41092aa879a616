"""`inhouse status`: adapter, index, owner."""

from __future__ import annotations

import typer

from inhouse_server.cli.backend import locate
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json


def status(repo: RepoOption = HERE, json: JsonOption = False) -> None:
    """Show the current adapter, the index and the owner."""
    import httpx

    from inhouse_server.owner import find_owner
    from inhouse_server.workspace import Workspace

    root, _, state_dir = locate(repo)
    if found := find_owner(state_dir):
        answer = httpx.get(
            f"{found.url}/inhouse/status",
            headers={"Authorization": f"Bearer {found.token}"},
            timeout=60,
            trust_env=False,
        )
        held = {**answer.json(), "owner": found.url}
    else:
        with Workspace.open(root) as workspace:
            held = {**workspace.status(), "owner": None}
    if json:
        print_json(held)
        return
    for key, value in held.items():
        typer.echo(f"{key}: {value if value is not None else 'none'}")
