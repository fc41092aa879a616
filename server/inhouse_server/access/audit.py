"""The audit log: who asked which route when, and how it ended. Never what was asked, and never a token."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from inhouse_server.access.limits import RequestLimits
from inhouse_server.access.tokens import Caller

log = logging.getLogger(__name__)

FILE_NAME = "audit.jsonl"
MAX_BYTES = 10 * 2**20
KEPT = 5
"""Files before the current one: ``audit.jsonl.1`` is the newest of them."""
STRANGERS_PER_MINUTE = 60
"""Refused requests without a valid token that are written; a flood of them must not push out what matters."""


@dataclass(frozen=True, slots=True)
class Handled:
    """One request, after it ended.

    Attributes:
        caller: ``None`` for a stranger.
        route: as the table of routes names it, never the path as it was sent.
        status: of the answer; 101 when a WebSocket opened, and 0 when it closed or the client left first.
        client: address of the peer, which is the proxy's where there is one.
        repository: the name of what it was about; ``None`` where that has none, or its caller may not use it.
    """

    caller: Caller | None
    method: str
    route: str
    status: int
    seconds: float
    client: str
    repository: str | None = None


class Audit:
    """Appends lines to ``audit.jsonl`` of the state directory, mode 0600; a full file is set aside."""

    def __init__(self, state_dir: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = state_dir / FILE_NAME
        self._max_bytes = max_bytes
        self._strangers = RequestLimits(STRANGERS_PER_MINUTE, 0)
        self.failures = 0

    def request(self, handled: Handled) -> None:
        """Note a request. A log that cannot be written is said in the other log, and counted in ``failures``."""
        caller = handled.caller
        if caller is None and self._strangers.take(""):
            return
        line: dict[str, object] = {
            "token": caller.id if caller else None,
            "name": caller.name if caller else None,
            "from": handled.client,
            "method": handled.method,
            "repository": handled.repository,
            "route": handled.route,
            "status": handled.status,
            "ms": round(handled.seconds * 1000, 1),
        }
        try:
            self._append(line)
        except OSError as error:
            self.failures += 1
            log.error("the audit log %s cannot be written: %s", self._path, error.strerror)

    def act(self, what: str, token_id: str, name: str) -> None:
        """Note what an administrator did on the command line; on the disk when this returns.

        Raises:
            OSError: it cannot be written.
        """
        self._append({"act": what, "token": token_id, "name": name, "user": os.getuid()}, sync=True)

    def _append(self, line: dict[str, object], sync: bool = False) -> None:
        stamped = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **line}
        # One write in append mode: lines of two processes cannot mix.
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, (json.dumps(stamped) + "\n").encode())
            if sync:
                os.fsync(descriptor)
            full = os.fstat(descriptor).st_size >= self._max_bytes
        finally:
            os.close(descriptor)
        if full and not sync:  # only the owner turns the page, so two processes never do so at once
            self._set_aside()

    def _set_aside(self) -> None:
        older = [self._path.with_name(f"{FILE_NAME}.{number}") for number in range(KEPT, 0, -1)]
        for old, newer in zip(older, [*older[1:], self._path], strict=True):
            if newer.exists():
                newer.replace(old)
