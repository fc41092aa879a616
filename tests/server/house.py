"""A small repository and its owner process, for tests that go through a real server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INHOUSE = Path(sys.executable).with_name("inhouse")
PRICES = 'def price_with_tax(amount):\n    """Add the value-added tax."""\n    return amount * 1.19\n'
NAME = "src files/größe.py"


LONG = 96
"""Tokens of an answer that a test stops before its end, also where a machine makes a hundred a second."""


def make_repository(root: Path, answer_tokens: int = 24) -> Path:
    """One commit with a file whose path holds a space and a letter outside ASCII. Answers are short there."""
    (root / NAME).parent.mkdir(parents=True)
    (root / NAME).write_text(PRICES, encoding="utf-8")
    (root / "README.md").write_text("# Shop\n\nPrices are in euro. Tax is added last.\n", encoding="utf-8")
    (root / "inhouse.toml").write_text(f"[answer]\nmax_tokens = {answer_tokens}\n", encoding="utf-8")
    git = ["git", "-C", str(root), "-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Start the shop"]):
        subprocess.run([*git, *arguments], check=True)
    return root.resolve()


@contextmanager
def owner(root: Path) -> Iterator[int]:
    """`inhouse serve` on a free port; its process id."""
    killed = owner_pid(root)
    process = subprocess.Popen(
        [INHOUSE, "serve", "--repo", root, "--port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_owner(root, killed)
        yield process.pid
    finally:
        # Not asked to stop: it would first finish loading the model. It may be killed at any point.
        process.kill()
        process.wait(30)


def owner_pid(root: Path) -> int | None:
    """Process id that the state directory names."""
    try:
        return int(json.loads((root / ".inhouse" / "owner.json").read_text())["pid"])
    except (OSError, ValueError):
        return None


def wait_for_owner(root: Path, other_than: int | None = None, timeout: float = 60) -> int:
    """The process id of an owner that listens."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if (pid := owner_pid(root)) not in (None, other_than):
            return pid
        time.sleep(0.05)
    raise AssertionError("no owner came up")


def stop_owner(root: Path) -> None:
    """End whatever owner a relay started."""
    if (pid := owner_pid(root)) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
