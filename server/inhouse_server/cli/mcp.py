"""`inhouse mcp`: what an MCP client starts; serves the tools on stdio and asks the owner."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Lock
from typing import Any

from inhouse_retrieval.errors import InhouseError
from inhouse_retrieval.progress import Progress
from inhouse_server.access import Work
from inhouse_server.background import run_in_thread
from inhouse_server.cli.backend import OwnerBackend, locate
from inhouse_server.cli.options import HERE, RepoOption
from inhouse_server.cli.terminal import start_logging
from inhouse_server.owner import ensure_owner


def mcp(repo: RepoOption = HERE) -> None:
    """Serve search, read_passage, ask and review as MCP tools on standard input and output."""
    from inhouse_server.state_dir import prepare_state_dir

    root, _, state_dir = locate(repo)
    prepare_state_dir(state_dir)
    start_logging(state_dir, "mcp")
    # A signal ends this process at once: the SDK's thread that reads standard input cannot be woken, nothing here needs
    # saving, and the owner stops what it does for a connection that is lost.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.SIG_DFL)
    asyncio.run(_serve(root))


async def _serve(root: Path) -> None:
    from mcp.server.stdio import stdio_server

    from inhouse_server.mcp.tools import build_server

    backend = _AnyOwner(root)
    early = asyncio.create_task(run_in_thread(backend.wake))
    server = build_server(backend)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())
    early.cancel()


class _AnyOwner:
    """The tools' backend over the owner that runs now; each call finds it, or starts one, so it may come and go."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._starting = Lock()

    def wake(self) -> None:
        """Start the owner before the first question; what is wrong with it is told to whoever asks."""
        with contextlib.suppress(InhouseError):
            self._owner()

    def search(self, query: str, limit: int) -> dict[str, Any]:
        return self._owner().search(query, limit)

    def read_passage(self, path: str, start_line: int, end_line: int) -> dict[str, Any]:
        return self._owner().read_passage(path, start_line, end_line)

    def ask(
        self, question: str, cancel: Event, worked: Callable[[Work], None], caller: str
    ) -> Iterator[str | dict[str, Any]]:
        return self._owner().ask(question, cancel=cancel)

    def review(
        self, revisions: str | None, staged: bool, progress: Progress, cancel: Event, caller: str
    ) -> dict[str, Any]:
        return self._owner().review(revisions, staged, progress, cancel)

    def _owner(self) -> OwnerBackend:
        with self._starting:  # one owner is started, however many ask
            return OwnerBackend(ensure_owner(self._root))
