"""What a test that sends a million messages watches: nothing is logged as an error, and nothing is kept."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inhouse_server.workspace import Workspace

from .conftest import make_repository
from .soak import held
from .speaker import speaking

ALL = int(os.environ.get("FUZZ_MUTATED", "1000000"))
"""Messages in all tests together that have ``counts``."""
FEW = 3000
WAIT_S = 60.0
"""For what must end by itself; longer is a hang."""
OBJECTS = 0.02
"""By which the objects of the interpreter may grow from half of the messages to all of them."""
GROWTH = 0.05
SLACK = 16 * 2**20

counts = pytest.mark.parametrize("messages", [FEW, pytest.param(ALL, marks=pytest.mark.long)])


@contextmanager
def scripted_house(root: Path) -> Iterator[Workspace]:
    """A repository at ``root`` held by this process, indexed; its model is a script."""
    make_repository(root)
    with speaking() as speaker:
        url = f"http://127.0.0.1:{speaker.server_port}/v1"
        (root / "inhouse.toml").write_text(f'[engine]\nkind = "openai"\nurl = "{url}"\nmodel = "speaker"\n')
        with Workspace.open(root, "test") as workspace:
            workspace.refresh()
            yield workspace


class Watched:
    """What was logged as an error, and how many objects there were at half of the messages."""

    def __init__(self, messages: int, caplog: pytest.LogCaptureFixture) -> None:
        self._half = messages // 2
        self._caplog = caplog
        self._objects = 0
        self._memory = 0
        caplog.set_level(logging.ERROR)

    def after(self, sent: int, last: object) -> None:
        """So many were sent; ``last`` is what went out since this was asked.

        Raises:
            AssertionError: something was logged as an error, or half was reached and more is held since then.
        """
        problems = [record for record in self._caplog.records if record.levelno >= logging.ERROR]
        assert not problems, (problems[0].getMessage(), problems[0].exc_text, last)
        self._caplog.clear()
        if sent >= self._half and not self._objects:
            self._objects, self._memory = self._count(), held(os.getpid()).anonymous

    def _count(self) -> int:
        gc.collect()
        return len(gc.get_objects())

    def end(self) -> None:
        now, memory = self._count(), held(os.getpid()).anonymous
        print(f"\n{self._objects} objects at half, {now} at the end; {self._memory} and {memory} bytes")  # noqa: T201
        assert now < self._objects * (1 + OBJECTS) + 2000
        assert memory < self._memory * (1 + GROWTH) + SLACK
