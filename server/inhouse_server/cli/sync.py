"""`inhouse sync`: read the forge's merged pull requests, and what was said about them, into the state directory."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from inhouse_retrieval.errors import Busy
from inhouse_server.cli.backend import locate
from inhouse_server.cli.forge import open_forge
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json, progress_bar, start_logging

if TYPE_CHECKING:
    from inhouse_retrieval import Forge, SyncReport

SYNC_LOCK = "sync.lock"


def sync(repo: RepoOption = HERE, json: JsonOption = False) -> None:
    """Read the forge's merged pull requests; a killed sync goes on where it was."""
    _, settings, state_dir = locate(repo)
    forge = open_forge(settings.forge, "so there is nothing to sync")
    report = _sync(forge, state_dir, settings.forge.limit)
    if json:
        print_json({"project": forge.project, **asdict(report)})
        return
    typer.echo(
        f"{forge.project}: {report.new} new, {report.changed} changed, {report.unchanged} as they were; "
        f"{report.stored} in all"
    )
    typer.echo(
        f"{report.requests} requests, {report.not_modified} of them answered 'not modified'; "
        f"waited {report.waited:.0f} s for the forge"
    )
    for number, parts in report.missing.items():
        typer.echo(f"  #{number}: the forge does not give its {' and '.join(parts)}")


def _sync(forge: Forge, state_dir: Path, limit: int) -> SyncReport:
    import asyncio

    from filelock import FileLock, Timeout

    from inhouse_retrieval import PullRequestStore, sync_pull_requests
    from inhouse_server.state_dir import prepare_state_dir

    prepare_state_dir(state_dir)
    start_logging(state_dir, "sync")
    lock = FileLock(state_dir / SYNC_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Busy("Another 'inhouse sync' is at work here.", "Wait for it to end.") from None
    try:
        with PullRequestStore.in_state(state_dir) as store, progress_bar() as progress:
            return asyncio.run(sync_pull_requests(forge, store, limit, progress))
    finally:
        lock.release()
