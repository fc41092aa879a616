"""`inhouse --version`: which inhouse this is, and which Python runs it."""

from __future__ import annotations

import platform

import typer

from inhouse_server.version import VERSION


def show_version(asked: bool) -> None:
    """Print one line, and end."""
    if asked:
        typer.echo(f"inhouse {VERSION}, Python {platform.python_version()}")
        raise typer.Exit()
