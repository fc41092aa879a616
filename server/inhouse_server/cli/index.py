"""`inhouse index`: bring the index up to the work tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from inhouse_retrieval.errors import InhouseError
from inhouse_server.cli.backend import locate, open_backend
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json, progress_bar

_LISTED = 20
"""Lines shown of each list; --json has all of them."""


def index(
    repo: RepoOption = HERE,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and refresh after every change.")] = False,
    json: JsonOption = False,
) -> None:
    """Bring the index up to the work tree."""
    with open_backend(repo, "index") as (_, backend), progress_bar() as progress:
        report = backend.index(progress)
    _show(report, json)
    if watch:
        _watch(repo, json)


def _show(report: dict[str, object], json: bool) -> None:
    if json:
        print_json(report)
        return
    skipped = report["skipped"]
    assert isinstance(skipped, list)
    typer.echo(
        f"{report['files']} files, {report['chunks']} chunks: {report['embedded']} embedded, "
        f"{report['reused']} reused, in {report['seconds']} s at {str(report['commit'])[:12]}"
    )
    if report["former_encoder"]:
        typer.echo(f"  the encoder was {report['former_encoder']}")
        typer.echo(
            f"  and is now {report['encoder']}: everything was embedded again, apart from what it had embedded before"
        )
    without = report["without_syntax"]
    assert isinstance(without, dict)
    if without:
        kinds = ", ".join(f"{suffix or 'no suffix'} {count}" for suffix, count in sorted(without.items()))
        typer.echo(f"  cut by indentation, for want of a grammar: {kinds}")
    _list([f"skipped {entry['path']!r}: {entry['reason']}" for entry in skipped])
    redactions = report["redactions"]
    assert isinstance(redactions, list)
    _list([f"redacted in {entry['path']!r}, line {entry['line']}: {entry['kind']}" for entry in redactions])


def _list(entries: Sequence[str]) -> None:
    for entry in entries[:_LISTED]:
        typer.echo(f"  {entry}")
    if len(entries) > _LISTED:
        typer.echo(f"  … and {len(entries) - _LISTED} more; --json lists them all")


def _watch(repo: RepoOption, json: bool) -> None:
    from threading import Event

    from inhouse_retrieval import watch
    from inhouse_server.json_contracts import index_json
    from inhouse_server.owner import find_owner
    from inhouse_server.workspace import Workspace

    root, _, state_dir = locate(repo)
    if find_owner(state_dir):
        raise InhouseError("The owner process watches this repository already.", "Nothing more is needed.")
    with Workspace.open(root, "index --watch") as workspace:
        typer.echo("Watching for changes; Ctrl-C ends it.", err=True)
        watch(workspace.index, Event(), lambda report: _show(index_json(report), json))
