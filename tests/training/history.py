"""Small git repositories with a history, made by git itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from inhouse_retrieval import Repository

NOUNS = ("invoice", "payment", "refund", "customer", "basket", "product", "voucher", "delivery", "address")

README = "# Shop\n\nEvery handler validates, loads, acts, and records an audit entry, in this order.\n"


def handler(noun: str) -> str:
    """One handler in the house style."""
    title = noun.capitalize()
    return f'''

@handles("{noun}.update")
async def update_{noun}(request: HouseRequest, ledger: AuditLedger) -> HouseReply:
    """Update one {noun}, as every handler here does."""
    changes = require_valid({title}Changes, request)
    async with unit_of_work(request.tenant) as work:
        {noun} = await work.repository({title}).must_find(changes.identifier)
        {noun}.apply(changes)
        await ledger.record(request.actor, "{noun}.update", {noun}.identifier)
    return HouseReply.accepted({noun})
'''


MOMENT = "2026-11-02T09:00:00+00:00"
"""When all of it is committed: the same history has the same commit ids, and is cut and shuffled the same way."""


def git(root: Path, *args: str) -> str:
    """Run git in ``root`` with a fixed author and, where the environment names no other, at a fixed moment."""
    settings = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    moment = {"GIT_AUTHOR_DATE": MOMENT, "GIT_COMMITTER_DATE": MOMENT}
    done = subprocess.run(
        ["git", *settings, *args], cwd=root, capture_output=True, text=True, check=True, env={**moment, **os.environ}
    )
    return done.stdout.strip()


def commit(root: Path, message: str, **files: str | bytes) -> str:
    """Write files (``__`` in a name stands for a slash, a trailing ``_py`` for ``.py``) and commit them."""
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_py", ".py").replace("_md", ".md")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", message)
    return git(root, "rev-parse", "HEAD")


def make_history(root: Path, commits: int) -> Repository:
    """A repository whose every commit after the first adds one handler to one of four files."""
    root.mkdir(parents=True)
    git(root, "init", "--quiet", "--initial-branch", "main")
    commit(root, "Set the house up", README_md=README)
    texts = [""] * 4
    for number in range(commits - 1):
        noun = NOUNS[number % len(NOUNS)] + ("" if number < len(NOUNS) else str(number))
        place = number % 4
        texts[place] += handler(noun)
        commit(root, f"Let clerks update a {noun}", **{f"handlers__area{place}_py": texts[place]})
    return Repository.open(root)
