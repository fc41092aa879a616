"""The owner's server in a thread: its real sockets and its real guard, without a process to start."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette

from inhouse_server.http_api import build_app
from inhouse_server.listening import OwnerServer, owner_server
from inhouse_server.owner import bind
from inhouse_server.workspace import Workspace

TOKEN = "the-owners-own-token-of-some-letters"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(frozen=True, slots=True)
class Served:
    port: int
    app: Starlette
    server: OwnerServer
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread

    @property
    def url(self) -> str:
        scheme = "https" if self.server.config.is_ssl else "http"
        return f"{scheme}://127.0.0.1:{self.port}"


@contextmanager
def listening(
    workspace: Workspace,
    certificate: Path | None = None,
    key: Path | None = None,
    drain_s: float = 5,
    beside: Sequence[tuple[Workspace, str]] = (),
) -> Iterator[Served]:
    """Serve ``workspace`` on a free port of loopback until the block ends."""
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    app = build_app(workspace, TOKEN, "127.0.0.1", port, secure=certificate is not None, beside=beside)
    server = owner_server(app, app.state.activity, drain_s, certificate, key)
    app.state.stop = server.drain
    started = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        started.set()
        await serving

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield Served(port, app, server, loops[0], thread)
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
