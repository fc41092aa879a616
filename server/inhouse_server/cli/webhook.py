"""`inhouse webhook serve|work|status`: a pull request that is opened or pushed to gets its review."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inhouse_retrieval.errors import Busy, InhouseError
from inhouse_server.cli.backend import locate
from inhouse_server.cli.forge import forget_token, open_forge, require_forge_and_token
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json, start_logging

if TYPE_CHECKING:
    import socket

    from starlette.applications import Starlette

app = typer.Typer(no_args_is_help=True, help="Review pull requests when the forge tells of them.")

_LOCK = "webhook-work.lock"
_LOOK_S = 5.0
"""Between two looks at the queue; a receiver that started the worker wakes it at once."""
_THEREFORE = "so there is nothing to receive from"


@app.command("serve")
def serve(
    repo: RepoOption = HERE,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="0 takes a free port.")] = None,
    worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Start 'inhouse webhook work' as well, which has the token.")
    ] = True,
) -> None:
    """Receive the forge's webhook and queue reviews. Holds no token of the forge."""
    from inhouse_server.owner import bind
    from inhouse_server.state_dir import prepare_state_dir
    from inhouse_server.webhook.queue import Queue
    from inhouse_server.webhook.receiver import ROUTE, make_receiver
    from inhouse_server.webhook.signature import Signature

    root, settings, state_dir = locate(repo)
    own, kind = settings.webhook, settings.forge.kind
    if kind == "none":
        open_forge(settings.forge, _THEREFORE)
        return
    signature = Signature(kind, os.environ.pop(own.secret_env, "").strip(), f"${own.secret_env}")
    if worker:
        require_forge_and_token(settings.forge)
    prepare_state_dir(state_dir)
    start_logging(state_dir, "webhook")
    queue = Queue(state_dir, own.room)
    listener = bind(host or own.host, own.port if port is None else port)
    with _working(root, worker) as process:
        # The worker has its copy. What reads requests from outside has none.
        forget_token(settings.forge)
        listener.listen(128)  # whoever reads the address may send at once
        address, number = listener.getsockname()[:2]
        typer.echo(f"Receiving at http://{f'[{address}]' if ':' in address else address}:{number}{ROUTE}", err=True)
        assert settings.forge.project, "load_settings checks it"
        receiver = make_receiver(kind, settings.forge.project, signature, queue, lambda: _wake(process))
        with suppress(KeyboardInterrupt):  # SIGINT and SIGTERM are how a service is stopped
            _listen(receiver, listener, lambda: process is not None and process.poll() is not None)
            if process is not None and process.poll() is not None:
                raise InhouseError(
                    "The worker that reviews has ended, so nothing is received any more.",
                    "Look at .inhouse/logs/webhook-work.log, then start it again; what waits is kept.",
                )


def _listen(receiver: Starlette, listener: socket.socket, ended: Callable[[], bool]) -> None:
    import asyncio

    import uvicorn

    config = uvicorn.Config(
        receiver, log_config=None, access_log=False, server_header=False, limit_concurrency=64,
        h11_max_incomplete_event_size=64 * 2**10, timeout_graceful_shutdown=10, lifespan="off",
    )  # fmt: skip
    server = uvicorn.Server(config)

    async def until_ended() -> None:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not serving.done():
            await asyncio.wait([serving], timeout=1)
            if ended():
                server.should_exit = True
        await serving

    asyncio.run(until_ended())


@contextmanager
def _working(root: Path, wanted: bool) -> Iterator[subprocess.Popen[bytes] | None]:
    """`inhouse webhook work`, which ends when this process does, however it does."""
    if not wanted:
        yield None
        return
    command = [sys.executable, "-P", "-m", "inhouse_server.cli", "webhook", "work", "--repo", str(root)]
    # os.environ, from which the secret was taken, not what this process began with.
    process = subprocess.Popen([*command, "--until-input-ends"], stdin=subprocess.PIPE, env=dict(os.environ))
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _wake(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.stdin is None:
        return
    with suppress(OSError):  # full: it is awake; gone: the receiver sees that by itself
        os.write(process.stdin.fileno(), b"\n")


@app.command("work")
def work(
    repo: RepoOption = HERE,
    once: Annotated[bool, typer.Option("--once", help="End when nothing waits that is due.")] = False,
    until_input_ends: Annotated[bool, typer.Option("--until-input-ends", hidden=True)] = False,
) -> None:
    """Review and post what waits. Listens to nobody."""
    from filelock import FileLock, Timeout

    from inhouse_server.state_dir import prepare_state_dir
    from inhouse_server.webhook.queue import Queue
    from inhouse_server.webhook.worker import Worker

    root, settings, state_dir = locate(repo)
    require_forge_and_token(settings.forge)
    forge = open_forge(settings.forge, _THEREFORE)
    forget_token(settings.forge)
    os.environ.pop(settings.webhook.secret_env, None)
    prepare_state_dir(state_dir)
    start_logging(state_dir, "webhook-work")
    try:
        # Ended by a signal, the job at hand stays in the queue.
        with FileLock(state_dir / _LOCK, timeout=0), suppress(KeyboardInterrupt):
            worker = Worker(root, forge, Queue(state_dir, settings.webhook.room), settings.forge.token_env)
            while True:
                if not worker.work():
                    if once:
                        return
                    if _told_to_end(until_input_ends):
                        return
    except Timeout:
        raise Busy("Another 'inhouse webhook work' is at work here.", "One is enough; stop the other first.") from None


def _told_to_end(until_input_ends: bool) -> bool:
    """Wait a while, or until something is queued; whether the receiver that started this process is gone."""
    watched = [sys.stdin.buffer] if until_input_ends else []
    ready, _, _ = select.select(watched, [], [], _LOOK_S)
    return bool(ready) and os.read(sys.stdin.fileno(), 4096) == b""


@app.command("status")
def status(repo: RepoOption = HERE, json: JsonOption = False) -> None:
    """Show what waits, and what became of the last reviews."""
    from inhouse_server.webhook.queue import FILE_NAME, Queue

    _, settings, state_dir = locate(repo)
    if not (state_dir / FILE_NAME).exists():
        raise InhouseError("Nothing was received here yet.", "Start 'inhouse webhook serve'.")
    queue = Queue(state_dir, settings.webhook.room)
    waiting, outcomes = queue.waiting(), queue.outcomes()
    if json:
        rows = [{"number": each.number, "head": each.head, "command": each.command} for each in waiting]
        ended = [{"number": number, "outcome": outcome} for number, outcome in outcomes]
        print_json({"waiting": rows, "outcomes": ended})
        return
    typer.echo(f"{len(waiting)} waiting{': ' if waiting else ''}{', '.join(f'#{each.number}' for each in waiting)}")
    for number, outcome in outcomes:
        typer.echo(f"  #{number}: {outcome}")
