"""Who holds a repository, what that process does, and how far it is: `holder.json` in the state directory.

The lock says whether the repository is held; this file only says by whom.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inhouse_retrieval.progress import Progress
from inhouse_server.state_dir import write_whole

HOLDER_FILE = "holder.json"
NOTED_EACH_S = 0.5


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a repository.

    Attributes:
        pid: 0 when nobody noted who holds it.
        command: the `inhouse` command that it runs.
        stage, done, total: how far it is; ``stage`` is empty where it told nothing, ``total`` ``None`` while unknown.
    """

    pid: int = 0
    command: str = ""
    stage: str = ""
    done: int = 0
    total: int | None = None

    @property
    def name(self) -> str:
        """It, as the beginning of a sentence."""
        return f"'inhouse {self.command}' (process {self.pid})" if self.pid else "Another inhouse process"

    @property
    def how_far(self) -> str:
        """``"embedding, 1,204 of 5,210"``; empty where it told nothing."""
        if not self.stage or (not self.done and self.total is None):
            return self.stage
        return f"{self.stage}, {self.done:,}" + (f" of {self.total:,}" if self.total is not None else "")

    @property
    def doing(self) -> str:
        """What it does, and how far it is."""
        return f"{self.name} is at work" + (f" ({self.how_far})" if self.how_far else "")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_holder(state_dir: Path) -> Holder:
    """Who noted that it holds this state directory, which it may have let go of since."""
    try:
        written = json.loads((state_dir / HOLDER_FILE).read_text(encoding="utf-8"))
        total = written.get("total")
        return Holder(
            int(written["pid"]),
            str(written["command"]),
            str(written.get("stage", "")),
            int(written.get("done", 0)),
            None if total is None else int(total),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Holder()


def note_holder(state_dir: Path, holder: Holder) -> None:
    """Leave word of who holds this state directory.

    Raises:
        OSError: it cannot be written.
    """
    write_whole(state_dir / HOLDER_FILE, json.dumps(holder.to_json()), sync=False)


def noting(state_dir: Path, command: str, progress: Progress, now: Callable[[], float] = time.monotonic) -> Progress:
    """``progress``, of which other processes are told as well, at most once each :data:`NOTED_EACH_S`."""
    last = ("", -NOTED_EACH_S)

    def update(stage: str, done: int, total: int | None) -> None:
        nonlocal last
        if stage != last[0] or now() - last[1] >= NOTED_EACH_S:
            last = (stage, now())
            with suppress(OSError):  # whatever fills the disk is met, and told, by the work itself
                note_holder(state_dir, Holder(os.getpid(), command, stage, done, total))
        progress(stage, done, total)

    return update
