"""The owner process: the one process that holds a repository's model and index, on one port.

It leaves ``owner.json`` (where it listens) and ``token`` (mode 0600) in the state directory; whoever can read the token
may ask. The relay and the command line find it through these two files.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import os
import re
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from inhouse_retrieval.errors import Busy, InhouseError, StateUnwritable
from inhouse_server.holder import Holder, read_holder
from inhouse_server.state_dir import plain_disk_errors, prepare_state_dir, write_whole
from inhouse_server.tls import Protected, check_certificate, check_listener, trusting_only

if TYPE_CHECKING:
    from inhouse_retrieval import IndexReport
    from inhouse_server.holding import Holding
    from inhouse_server.workspace import Workspace

log = logging.getLogger(__name__)

ADDRESS_FILE = "owner.json"
TOKEN_FILE = "token"
OWNER_LOCK = "owner.lock"
SERVE = "serve"
_HEALTH_BYTES = 1 << 16
LOOK_S = 2.0
"""How often it is looked whether another version is current."""
IDLE_EXIT_S = 900.0
"""A detached owner without an editor or a request for this long exits."""
COMES_BACK_S = 10.0
"""An owner at a port of its own that was killed is given so long to be started again, as services are. Whoever took its
place at once would hold the repository at another port, and the service could not start."""
_FAILED_STARTS = 2
"""So many owners that ended with an error one after the other say that a further one would."""
_HELD = re.compile(r" holds | is served already")
"""In the error of an owner that met another one, or somebody who only looked whether there is one: see :func:`busy`."""
TRY_AGAIN_S = 10.0
"""How often a repository is tried that could not be held."""


@dataclass(frozen=True, slots=True)
class OwnerAddress:
    """Where an owner listens, the token that it wants, and the certificate that it shows over TLS.

    Attributes:
        repository: what it calls the repository, where it holds several.
    """

    url: str
    token: str
    certificate: Path | None = None
    repository: str = ""

    def verify(self) -> ssl.SSLContext | bool:
        """What clients on this machine pass as ``verify``: they trust that certificate alone."""
        return trusting_only(self.certificate) if self.certificate else True


def read_token(state_dir: Path) -> str | None:
    """The token of this state directory, if one was written."""
    try:
        return (state_dir / TOKEN_FILE).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def ensure_token(state_dir: Path) -> str:
    """The token of this state directory; written with mode 0600 when there is none."""
    if token := read_token(state_dir):
        return token
    token = secrets.token_urlsafe(32)
    write_whole(state_dir / TOKEN_FILE, token)
    return token


def find_owner(state_dir: Path) -> OwnerAddress | None:
    """The running owner of this state directory, or ``None``; a stale address is not an owner."""
    found, status = _proven(state_dir)
    return found if status == "ok" else None


def is_stopping(state_dir: Path) -> bool:
    """Whether the owner of this state directory was told to stop and lets its last answers end."""
    return _proven(state_dir)[1] == "stopping"


def _was_killed_at_its_port(state_dir: Path) -> bool:
    """Whether the last owner, which answers no more, had a fixed port and did not end by itself."""
    try:
        return json.loads((state_dir / ADDRESS_FILE).read_text(encoding="utf-8")).get("fixed_port") is True
    except (OSError, ValueError, AttributeError):
        return False


def _proven(state_dir: Path) -> tuple[OwnerAddress | None, str]:
    """The owner that proves to be one, and what it says of itself."""
    token = read_token(state_dir)
    try:
        written = json.loads((state_dir / ADDRESS_FILE).read_text(encoding="utf-8"))
        url, pid = str(written["url"]), int(written["pid"])
        certificate = Path(written["certificate"]) if written.get("certificate") else None
        repository = str(written.get("repository") or "")
    except (OSError, ValueError, KeyError, TypeError):
        return None, ""
    if token is None:
        return None, ""
    found = OwnerAddress(url, token, certificate, repository)
    nonce = secrets.token_hex(16)
    health = _health(found, nonce, repository)
    try:
        proven = health["pid"] == pid and hmac.compare_digest(health["proof"], proof(token, nonce))
        return (found, str(health["status"])) if proven else (None, "")
    except (KeyError, TypeError):
        return None, ""


def _health(found: OwnerAddress, nonce: str, repository: str) -> Any:
    """What ``/healthz`` says to who means that repository; ``None`` without a readable answer.

    Editors wait for this, and httpx imports slowly.
    """
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    try:
        parts = urlsplit(found.url)
        place = (parts.hostname or "", parts.port)
        if found.certificate:
            trust = trusting_only(found.certificate)
            connection: HTTPConnection = HTTPSConnection(*place, timeout=5, context=trust)
        else:
            connection = HTTPConnection(*place, timeout=5)
        with contextlib.closing(connection):
            named = f"&repository={quote(repository)}" if repository else ""
            connection.request("GET", f"/healthz?nonce={nonce}{named}")
            return json.loads(connection.getresponse().read(_HEALTH_BYTES))
    except (OSError, HTTPException, InhouseError, ValueError):
        return None


def proof(token: str, nonce: str) -> str:
    """What only a holder of ``token`` can answer to ``nonce``: HMAC-SHA-256, in hex.

    Whoever asks chooses the nonce, so what is signed begins with what it is for: a browser's cookie is made from the
    same token, and nobody may have one signed here.
    """
    return hmac.new(token.encode(), f"alive:{nonce}".encode(), "sha256").hexdigest()


def ensure_owner(root: Path, timeout_s: float = 30) -> OwnerAddress:
    """The running owner of the repository at ``root``; starts a detached one when none runs.

    One that listened at a port which its clients know, and was killed, is waited for first: see :data:`COMES_BACK_S`.

    Raises:
        InhouseError: the owner did not come up within ``timeout_s`` seconds.
    """
    from inhouse_server.settings import load_settings

    state_dir = load_settings(root).state_path(root)
    if found := find_owner(state_dir):
        return found
    prepare_state_dir(state_dir)
    log_path = state_dir / "logs" / "owner.log"
    log_path.parent.mkdir(exist_ok=True)
    process: subprocess.Popen[bytes] | None = None
    deadline = time.monotonic() + timeout_s
    alone_from = time.monotonic() + (COMES_BACK_S if _was_killed_at_its_port(state_dir) else 0)
    began, failed = _size(log_path), 0
    while time.monotonic() < deadline:
        if found := find_owner(state_dir):
            return found
        # While the repository is held, by an owner that starts or stops or by a command, another one could not start.
        may_start = time.monotonic() >= alone_from and (process is None or process.poll() is not None)
        if may_start and not is_held(state_dir):
            reason = _last_error(log_path, began) if process is not None else ""
            failed = failed + 1 if reason and not _HELD.search(reason) else 0
            if failed == _FAILED_STARTS:
                raise InhouseError(f"The owner process cannot start: {reason}", f"Its log is {log_path}.")
            process = _start_detached(root, log_path)
        time.sleep(0.05)
    if is_held(state_dir) and (process is None or process.poll() is not None):
        raise busy(root, state_dir)
    raise InhouseError(f"The owner process did not start within {timeout_s:.0f} seconds.", f"Its log is {log_path}.")


def wait_for_owner(state_dir: Path, timeout_s: float = 30) -> OwnerAddress | None:
    """The owner that holds this state directory, once it listens; ``None`` when what holds it is no owner."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and is_held(state_dir) and read_holder(state_dir).command in ("", SERVE):
        if found := find_owner(state_dir):
            return found
        time.sleep(0.05)
    return find_owner(state_dir)


def busy(root: Path, state_dir: Path) -> Busy:
    """The error that says who holds the repository, and what to do about it."""
    holder = read_holder(state_dir)
    if holder.command == SERVE:
        pid = holder.pid
        if found := find_owner(state_dir):
            return Busy(f"{root} is served already, at {found.url} (process {pid}).", "Use that, or stop it first.")
        return Busy(
            f"The owner process ({pid}) holds {root} and does not answer yet.",
            "Try again in a moment, or stop it with 'inhouse serve --stop'.",
        )
    doing = f": {holder.how_far}" if holder.how_far else ""
    return Busy(f"{holder.name} holds {root}{doing}.", "Let it finish, or stop it with Ctrl-C or SIGTERM.")


def holder_of(state_dir: Path) -> Holder | None:
    """The process that holds this state directory; ``None`` when none does. Nothing is written."""
    holder = read_holder(state_dir)
    if not holder.pid or not (state_dir / OWNER_LOCK).exists():
        return None
    return holder if is_held(state_dir) else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _last_error(log_path: Path, since: int) -> str:
    """What an owner that ended said last after byte ``since``; empty when it said nothing."""
    with log_path.open("rb") as stream:
        stream.seek(since)
        said = stream.read().decode("utf-8", "replace").rpartition("\nerror: ")
    return said[2].strip().split("\n")[0] if said[1] or said[2].startswith("error: ") else ""


def _start_detached(root: Path, log_path: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "inhouse_server.cli", "serve", "--repo", str(root), "--port", "0"]
    with log_path.open("ab") as sink:
        return subprocess.Popen(
            [*command, "--exit-when-idle"],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            cwd=root,
        )


def is_held(state_dir: Path) -> bool:
    """Whether some process holds this state directory."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(state_dir / OWNER_LOCK, timeout=0):
            return False
    except Timeout:
        return True


def stop_owner(state_dir: Path, timeout_s: float = 60, patience_s: float = 10) -> bool:
    """Ask the running owner to stop, and wait until it has let go of the repository.

    Args:
        patience_s: how long one that does not answer may take to.

    Returns:
        Whether there was one.

    Raises:
        InhouseError: it did not let go within ``timeout_s`` seconds.
    """
    import httpx

    holder = holder_of(state_dir)
    found = wait_for_owner(state_dir, patience_s)  # one that has just been started does not answer yet
    if found is None:
        if holder is None or holder.command != SERVE:
            return False
        if is_held(state_dir) and not is_stopping(state_dir):
            pid = holder.pid
            raise InhouseError(f"The owner process ({pid}) runs and does not answer.", f"End it with: kill -9 {pid}")
    else:
        headers = {"Authorization": f"Bearer {found.token}"}
        address = f"{found.url}/inhouse/shutdown"
        with contextlib.suppress(httpx.HTTPError):  # it may be gone already, which the lock tells
            httpx.post(address, headers=headers, timeout=10, trust_env=False, verify=found.verify())
    deadline = time.monotonic() + timeout_s
    while is_held(state_dir):
        if time.monotonic() > deadline:
            raise InhouseError(
                f"The owner process did not stop within {timeout_s:.0f} seconds.", "End it with SIGKILL."
            )
        time.sleep(0.05)
    return True


def bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket.

    Raises:
        InhouseError: the address is in use or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise InhouseError(
            f"Cannot listen on {host}:{port}: {error.strerror}.",
            "Choose another port with --port, or 0 for any free one.",
        ) from error
    return bound


def serve(
    root: Path,
    host: str | None = None,
    port: int | None = None,
    exit_when_idle: bool = False,
    told: Callable[[str], None] | None = None,
    protected: Protected | None = None,
) -> None:
    """Hold the repository, and those that its ``[server.repositories]`` names, and serve until a signal comes.

    Args:
        told: called with the address once the owner listens.
        protected: how clients reach it; without it, as settings say.

    Raises:
        InhouseError: the repository is held already, the port cannot be had, the certificate cannot be used, or tokens
            would cross a network in the clear.
    """
    from inhouse_server.holding import Holding

    with Holding(root) as holding:
        workspace = holding.workspaces[0]
        server = workspace.settings.server
        protected = protected or Protected.of(server, workspace.root)
        check_listener(host or server.host, protected.certificate is not None, protected.behind_proxy)
        if protected.certificate is not None and protected.key is not None:
            check_certificate(protected.certificate, protected.key)
        wanted = server.port if port is None else port
        listener = bind(host or server.host, wanted)
        try:
            asyncio.run(_serve(holding, listener, exit_when_idle, told, protected, fixed_port=wanted != 0))
        except KeyboardInterrupt:
            # SIGINT and SIGTERM are how a service is stopped: the answers in flight have ended by now.
            log.info("stopped by a signal")
        finally:
            listener.close()
            for each in holding.workspaces:
                (each.state_dir / ADDRESS_FILE).unlink(missing_ok=True)


async def _serve(
    holding: Holding,
    listener: socket.socket,
    exit_when_idle: bool,
    told: Callable[[str], None] | None,
    protected: Protected,
    fixed_port: bool,
) -> None:
    from inhouse_server.http_api import build_app
    from inhouse_server.listening import owner_server

    host, port = listener.getsockname()[:2]
    workspace, *beside = holding.workspaces
    with plain_disk_errors(workspace.state_dir):
        token = ensure_token(workspace.state_dir)
        tokens = [(each, ensure_token(each.state_dir)) for each in beside]
    scheme = "http" if protected.certificate is None else "https"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    secure = scheme == "https" or protected.behind_proxy
    app = build_app(workspace, token, host, port, secure, tokens, holding.failed)
    drain_s = workspace.settings.server.drain_seconds
    server = owner_server(app, app.state.activity, drain_s, protected.certificate, protected.key)
    app.state.stop = server.drain
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    try:
        for each in holding.workspaces:
            with plain_disk_errors(each.state_dir):
                _write_address(each, url, protected.certificate, fixed_port)
    except StateUnwritable:  # nobody could find it
        server.should_exit = True
        await serving
        raise
    log.info("listening on %s", url)
    if told is not None:
        told(url)
    stopping = threading.Event()
    for each in holding.workspaces:
        _begin(each, stopping)

    def late(workspace: Workspace) -> None:
        app.state.take_in(workspace, ensure_token(workspace.state_dir))
        _write_address(workspace, url, protected.certificate, fixed_port)
        _begin(workspace, stopping)

    trying = asyncio.create_task(_hold_later(holding, late))
    if exit_when_idle:
        while not serving.done() and not app.state.activity.idle_for(IDLE_EXIT_S):
            await asyncio.sleep(1)
        server.should_exit = True
    await serving
    trying.cancel()
    stopping.set()


async def _hold_later(holding: Holding, late: Callable[[Workspace], None]) -> None:
    """Try again what could not be held, until all is; ``late`` is called with each that is held then, and again where
    it met a full disk or the like: that keeps nobody from the others."""
    from inhouse_server.background import run_in_thread

    waiting: list[Workspace] = []
    while holding.failed or waiting:
        await asyncio.sleep(TRY_AGAIN_S)
        waiting += await run_in_thread(holding.try_again)
        waiting = [workspace for workspace in waiting if not _served(workspace, late)]


def _served(workspace: Workspace, late: Callable[[Workspace], None]) -> bool:
    try:
        late(workspace)
    except OSError as error:
        log.error("the repository %s is held and cannot be served yet: %s", workspace.name, error)
        return False
    return True


def _begin(workspace: Workspace, stopping: threading.Event) -> None:
    """What goes on beside the answers; daemons: an owner that is told to stop waits neither for a model that is loading
    nor for a refresh."""
    threading.Thread(target=_follow, args=(workspace, stopping), name="follow", daemon=True).start()
    threading.Thread(target=_keep_loaded, args=(workspace, stopping), name="load", daemon=True).start()


def _keep_loaded(workspace: Workspace, stopping: threading.Event) -> None:
    """Load the model, and make what answers with each version that is promoted later ready before it is asked."""
    while True:
        serving = workspace.serving()
        workspace.load()
        while workspace.serving() == serving:
            if stopping.wait(LOOK_S):
                return


def _follow(workspace: Workspace, stopping: threading.Event) -> None:
    """Bring the index up to date, and keep it so: after a pull, a checkout, or a file that no editor saved."""
    from inhouse_retrieval import watch

    def refreshed(report: IndexReport) -> None:
        log.info("the index holds %d files at %s", report.files, report.commit)

    try:
        watch(workspace.index, stopping, refreshed)
    except InhouseError as error:
        # The first question meets the same problem and tells the user; here it goes to the log.
        log.error("the index is not kept up to date: %s", error)


def _write_address(workspace: Workspace, url: str, certificate: Path | None, fixed_port: bool) -> None:
    state_dir = workspace.state_dir
    shown = str(certificate) if certificate else None
    address = {
        "url": url,
        "pid": os.getpid(),
        "started": time.time(),
        "certificate": shown,
        "repository": workspace.name,
        "fixed_port": fixed_port,
    }
    write_whole(state_dir / ADDRESS_FILE, json.dumps(address))
