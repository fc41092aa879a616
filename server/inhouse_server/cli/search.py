"""`inhouse search`: passages of the repository, best first; or where a name is defined and used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inhouse_retrieval.errors import InhouseError
from inhouse_server.cli.backend import open_backend
from inhouse_server.cli.found_passage import show_passage, show_uses
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json

_PASSAGES = 10
_USES = 200


def search(
    query: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    repo: RepoOption = HERE,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, max=1000, help="Passages, or users, at most.", show_default="10, or 200"),
    ] = None,
    lines: Annotated[int, typer.Option("--lines", min=1, max=500, help="Lines shown of each passage.")] = 6,
    queries: Annotated[
        Path | None, typer.Option("--queries", help="A file with one query a line.", dir_okay=False)
    ] = None,
    users: Annotated[
        str | None, typer.Option("--users", metavar="NAME", help="Instead, where NAME is defined and all that use it.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Find passages of the repository, or the users of a name."""
    if [query, queries, users].count(None) != 2:
        raise typer.BadParameter("give a query, --queries FILE or --users NAME")
    if query is not None and not query.strip():
        raise typer.BadParameter("the query is empty")
    with open_backend(repo, "search", reading=True) as (root, backend):
        if users is not None:
            found = backend.uses(users, limit or _USES)
            print_json(found) if json else show_uses(root, users, found)
            return
        for text in [query] if query is not None else _lines(queries):
            found = backend.search(text, limit or _PASSAGES)
            if json:
                print_json(found)
                continue
            for passage in (*found["results"], *found["beside"]):
                show_passage(root, text, passage, lines)
            state = f"index {str(found['index_commit'])[:12]}, {found['pending']} changed file(s) pending"
            if found["unembedded"]:
                state += f", {found['unembedded']} chunk(s) without a vector so far"
            if found["to_rerank"]:
                state += f", {found['reranked']} of {found['to_rerank']} best passages reranked in time"
            typer.echo(state)


def _lines(queries: Path | None) -> list[str]:
    assert queries is not None
    try:
        lines = queries.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InhouseError(f"{queries} cannot be read: {error}.", "Give a UTF-8 text file.") from error
    if empty := [number for number, line in enumerate(lines, start=1) if not line.strip()]:
        raise InhouseError(f"{queries}:{empty[0]} holds no query.", "Write one query in each line.")
    return lines
