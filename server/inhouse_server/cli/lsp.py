"""`inhouse lsp`: what an editor starts; relays its messages to the owner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from inhouse_retrieval.errors import InhouseError
from inhouse_server.cli.backend import locate
from inhouse_server.cli.options import HERE, RepoOption
from inhouse_server.cli.terminal import start_logging

TOKEN_VARIABLE = "INHOUSE_TOKEN"


def lsp(
    repo: RepoOption = HERE,
    server: Annotated[
        str | None, typer.Option("--server", help=f"A team's server; its token is in {TOKEN_VARIABLE}.")
    ] = None,
    authority: Annotated[
        Path | None, typer.Option("--ca", help="Certificates to trust for --server instead of the system's, in PEM.")
    ] = None,
) -> int:
    """Speak LSP on standard input and output, for an editor."""
    from inhouse_server.relay import run_relay
    from inhouse_server.workspace import prepare_state_dir

    root, settings, state_dir = locate(repo)
    prepare_state_dir(state_dir)
    start_logging(state_dir, "lsp")
    token = os.environ.get(TOKEN_VARIABLE)
    if server and not token:
        raise InhouseError(f"The server {server} wants a token.", f"Set {TOKEN_VARIABLE}.")
    return run_relay(root, state_dir, server, token, authority, not settings.no_inline_completion())
