"""`inhouse index`: bring the index up to the work tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from inhouse_server.cli.backend import locate, open_backend
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json, progress_bar, tell

_EXAMPLES = 3
"""Shown of what was skipped or redacted for one reason; --verbose shows all."""
_SEVERAL = {
    "lock file": "lock files",
    "submodule or nested repository": "submodules or nested repositories",
    "symbolic link": "symbolic links",
}
"""Reasons that name what a file is."""


def index(
    repo: RepoOption = HERE,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and refresh after every change.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="List all that was skipped or redacted.")] = False,
    json: JsonOption = False,
) -> None:
    """Bring the index up to the work tree."""
    with open_backend(repo, "index") as (_, backend), progress_bar() as progress:
        report = backend.index(progress)
    _show(report, json, verbose)
    if watch:
        _watch(repo, json, verbose)


def _show(report: dict[str, Any], json: bool, verbose: bool) -> None:
    if json:
        print_json(report)
        return
    typer.echo(
        f"{report['files']} files, {report['chunks']} chunks: {report['embedded']} embedded, "
        f"{report['reused']} reused, in {report['seconds']} s at {str(report['commit'])[:12]}"
    )
    if report["former_encoder"]:
        typer.echo(f"  the encoder was {report['former_encoder']}")
        typer.echo(
            f"  and is now {report['encoder']}: everything was embedded again, apart from what it had embedded before"
        )
    if (without := report["without_syntax"]) and (report["embedded"] or verbose):
        kinds = ", ".join(f"{suffix or 'no suffix'} {count}" for suffix, count in sorted(without.items()))
        typer.echo(f"  cut by indentation, for want of a grammar: {kinds}")
    skipped = [(entry["reason"], repr(entry["path"])) for entry in report["skipped"]]
    _by_kind("1 file was not indexed", "{} files were not indexed", skipped, verbose)
    redactions = [(entry["kind"], f"{entry['path']!r}:{entry['line']}") for entry in report["redactions"]]
    _by_kind("1 secret was redacted", "{} secrets were redacted", redactions, verbose)


def _by_kind(one: str, several: str, entries: Sequence[tuple[str, str]], verbose: bool) -> None:
    """A line for each kind of ``(kind, place)``, the most frequent first, with a few places, or with all of them."""
    if not entries:
        return
    more = False
    typer.echo(f"  {one if len(entries) == 1 else several.format(len(entries))}:")
    for kind, count in Counter(kind for kind, _ in entries).most_common():
        places = [place for each, place in entries if each == kind]
        shown = _SEVERAL.get(kind, kind) if count > 1 else kind
        if verbose:
            typer.echo(f"    {count} {shown}:")
            for place in places:
                typer.echo(f"      {place}")
        else:
            more = more or count > _EXAMPLES
            typer.echo(f"    {count} {shown}: {', '.join(places[:_EXAMPLES])}{', …' if count > _EXAMPLES else ''}")
    if more:
        typer.echo("    --verbose lists them all")


def _watch(repo: RepoOption, json: bool, verbose: bool) -> None:
    from threading import Event

    from inhouse_retrieval import watch
    from inhouse_server.json_contracts import index_json
    from inhouse_server.owner import find_owner
    from inhouse_server.workspace import Workspace

    root, _, state_dir = locate(repo)
    if find_owner(state_dir):
        tell("The owner process watches this repository already; nothing more is needed.")
        return
    with Workspace.open(root, "index --watch") as workspace:
        typer.echo("Watching for changes; Ctrl-C ends it.", err=True)
        watch(workspace.index, Event(), lambda report: _show(index_json(report), json, verbose))
