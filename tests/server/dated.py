"""A repository whose commits are made on days of our choosing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from inhouse_retrieval import Repository
from inhouse_server.review.wanting import JudgedChange, judged_changes

from .conftest import GIT_ENVIRONMENT


class Dated:
    """Begins on day 0 with one commit, ``start``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.start = self.commit(0, "Begin", {"readme.md": "# Begin\n"})

    def git(self, *arguments: str, day: int = 0) -> str:
        date = f"{1_700_000_000 + day * 86_400} +0000"
        dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        asked = ["git", "-C", str(self.root), *arguments]
        environment = {**os.environ, **GIT_ENVIRONMENT, **dates}
        return subprocess.run(asked, check=True, capture_output=True, text=True, env=environment).stdout.strip()

    def commit(self, day: int, message: str, files: dict[str, str | None]) -> str:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.unlink()
            else:
                path.write_text(text, encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message, day=day)
        return self.git("rev-parse", "HEAD")

    def merge(self, day: int, branch: str, number: int, title: str) -> None:
        self.git("checkout", "--quiet", "main")
        message = f"Merge pull request #{number} from us/{branch}\n\n{title}"
        self.git("merge", "--quiet", "--no-ff", "--message", message, branch, day=day)

    def judged(self) -> dict[int | None, JudgedChange]:
        found = judged_changes(Repository.open(self.root), self.start, 50)
        return {change.number: change for change in found.changes}
