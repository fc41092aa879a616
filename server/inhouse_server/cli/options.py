"""Options that every command shares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RepoOption = Annotated[
    Path, typer.Option("--repo", help="The repository, or any folder in it.", show_default="this folder")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
HERE = Path()
