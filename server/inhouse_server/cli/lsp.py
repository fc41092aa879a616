"""`inhouse lsp`: what an editor starts; relays its messages to the owner."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inhouse_server.cli.options import HERE, RepoOption
from inhouse_server.cli.start_lsp import TOKEN_VARIABLE, start


def lsp(
    repo: RepoOption = HERE,
    server: Annotated[
        str | None, typer.Option("--server", help=f"A team's server; its token is in {TOKEN_VARIABLE}.")
    ] = None,
    authority: Annotated[
        Path | None, typer.Option("--ca", help="Certificates to trust for --server instead of the system's, in PEM.")
    ] = None,
    repository: Annotated[
        str | None,
        typer.Option("--repository", help="Which repository of --server, where the token opens several."),
    ] = None,
) -> int:
    """Speak LSP on standard input and output, for an editor."""
    return start(str(repo), server, str(authority) if authority else None, repository)
