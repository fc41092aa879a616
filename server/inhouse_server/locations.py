"""Where a passage lies, as every surface links to it."""

from __future__ import annotations

import os
from pathlib import Path


def file_uri(root: Path, path: str) -> str:
    """``file:`` address of ``path``, relative to ``root``; a wiki page outside the repository begins with
    ``..``, and so does a pull request where the state directory lies outside."""
    return Path(os.path.normpath(root / path)).as_uri()
