"""Making git repositories with git itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


def git(root: Path, *args: str, date: str = "2025-03-01T12:00:00Z", check: bool = True) -> str:
    """Standard output of git, run with a fixed author and without the user's configuration."""
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
        "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_DATE": date,
    }
    done = subprocess.run(["git", *args], cwd=root, env=environment, capture_output=True, text=True, check=check)
    return done.stdout.strip()


def write(root: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files, making their folders."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def commit_all(root: Path, message: str, date: str = "2025-03-01T12:00:00Z") -> str:
    """Commit everything that is there; returns the commit."""
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", message, date=date)
    return git(root, "rev-parse", "HEAD")
