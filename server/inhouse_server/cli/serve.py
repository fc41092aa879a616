"""`inhouse serve`: the owner process."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from inhouse_server.cli.backend import locate
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json, start_logging


def serve(
    repo: RepoOption = HERE,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="0 takes a free port.")] = None,
    exit_when_idle: Annotated[
        bool, typer.Option("--exit-when-idle", help="End when nobody has asked for a quarter of an hour.")
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="Listen with TLS: the certificate chain, in PEM.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key, in PEM, without a password.")] = None,
    behind_proxy: Annotated[
        bool | None,
        typer.Option("--behind-proxy", help="A reverse proxy ends TLS in front.", show_default=False),
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Write logs as one JSON object a line.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the running owner.")] = False,
    json: JsonOption = False,
) -> None:
    """Hold the model and the index, and answer over HTTP and LSP."""
    from inhouse_server import owner
    from inhouse_server.state_dir import prepare_state_dir
    from inhouse_server.tls import Protected

    root, settings, state_dir = locate(repo)
    if stop:
        _stop(state_dir, json)
        return
    said = Protected.of(settings.server, root)
    protected = Protected(
        tls_cert.absolute() if tls_cert else said.certificate,
        tls_key.absolute() if tls_key else said.key,
        said.behind_proxy if behind_proxy is None else behind_proxy,
    )
    prepare_state_dir(state_dir)
    start_logging(state_dir, "owner", log_json)

    def told(url: str) -> None:
        token_file = state_dir / owner.TOKEN_FILE
        if json:
            print_json({"url": url, "token_file": str(token_file), "root": str(root)})
        else:
            typer.echo(f"Serving {root} at {url}. The token lies in {token_file}.", err=True)
            if sys.stderr.isatty():  # for a person's eyes: no log or journal is to hold the token
                token = quote(owner.read_token(state_dir) or "", safe="")
                typer.echo(f"In a browser: {url}/?token={token}", err=True)

    owner.serve(root, host, port, exit_when_idle, told, protected)
    _end_at_once()


def _end_at_once() -> None:
    """Leave without tearing the interpreter down under a model that still loads: its native code may abort."""
    if any(thread.daemon and thread.is_alive() for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _stop(state_dir: Path, json: bool) -> None:
    from inhouse_server.owner import stop_owner

    stopped = stop_owner(state_dir)
    if json:
        print_json({"stopped": stopped})
    else:
        typer.echo("Stopped." if stopped else "No owner runs here.")
