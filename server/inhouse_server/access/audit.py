"""The audit log: who asked which route when, what worked for it, and how it ended. Never what was asked or said, and
never a token.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from inhouse_server.access.limits import RequestLimits
from inhouse_server.access.tokens import Caller

log = logging.getLogger(__name__)

FILE_NAME = "audit.jsonl"
MAX_BYTES = 10 * 2**20
KEPT = 5
"""Files before the current one: ``audit.jsonl.1`` is the newest of them."""
STRANGERS_PER_MINUTE = 60
"""Refused requests without a valid token that are written; a flood of them must not push out what matters."""
TOGETHER_S = 60.0
"""Requests that an editor makes by itself while somebody types are noted together for so long, for the same reason."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a model did for a request: which, and how much.

    Attributes:
        adapter: the version; ``None`` for the base model, and for the encoder.
        commit: which one the index held that was searched; ``None`` where nothing was.
        prompt_tokens, completion_tokens: read and written.
        texts: that were embedded.
    """

    kind: Literal["answer", "completion", "embedding"]
    adapter: str | None
    commit: str | None
    prompt_tokens: int
    completion_tokens: int = 0
    texts: int = 0


@dataclass(frozen=True, slots=True)
class Handled:
    """One request, after it ended.

    Attributes:
        caller: ``None`` for a stranger.
        route: as the table of routes names it, never the path as it was sent.
        status: of the answer; 101 when a WebSocket opened, and 0 when it closed or the client left first.
        client: address of the peer, which is the proxy's where there is one.
        scope: which of the caller's the route needed.
        work: ``None`` where no model did any, or the client left before it ended.
        by_itself: an editor asked without being told to; see :data:`TOGETHER_S`.
        repository: the name of what it was about; ``None`` where that has none, or its caller may not use it.
    """

    caller: Caller | None
    method: str
    route: str
    status: int
    seconds: float
    client: str
    scope: str | None = None
    work: Work | None = None
    by_itself: bool = False
    repository: str | None = None


class Audit:
    """Appends lines to ``audit.jsonl`` of the state directory, mode 0600; a full file is set aside."""

    def __init__(self, state_dir: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = state_dir / FILE_NAME
        self._max_bytes = max_bytes
        self._strangers = RequestLimits(STRANGERS_PER_MINUTE, 0)
        self._together: dict[_Alike, _Several] = {}
        self.failures = 0

    def request(self, handled: Handled) -> None:
        """Note a request. A log that cannot be written is said in the other log, and counted in ``failures``.

        What an editor asked by itself is noted a while later, with how often it did; in a running event loop only.
        """
        if handled.caller is None and self._strangers.take(""):
            return
        if not handled.by_itself:
            self._write(_line(handled))
            return
        alike = _alike(handled)
        if (others := self._together.get(alike)) is not None:
            self._together[alike] = others.and_also(handled)
        else:
            self._together[alike] = _Several(handled, _now())
            asyncio.get_running_loop().call_later(TOGETHER_S, self._write_together, alike)

    def lines(self) -> Iterator[dict[str, Any]]:
        """What was noted, oldest first, as far back as the files reach. What cannot be read is passed over."""
        for path in (*self._older(), self._path):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                for line in file:
                    with contextlib.suppress(ValueError):  # cut short by a full disk
                        noted = json.loads(line)
                        if isinstance(noted, dict):
                            yield noted

    def close(self) -> None:
        """Note what waits for more of its like."""
        for alike in tuple(self._together):
            self._write_together(alike)

    def _write_together(self, alike: _Alike) -> None:
        if (several := self._together.pop(alike, None)) is not None:
            self._write({**_line(several.all), "count": several.count, "since": several.since})

    def _write(self, line: dict[str, object]) -> None:
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
        stamped = {"at": _now(), **line}
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
        older = self._older()
        for old, newer in zip(older, [*older[1:], self._path], strict=True):
            if newer.exists():
                newer.replace(old)

    def _older(self) -> list[Path]:
        """Full files, the oldest first."""
        return [self._path.with_name(f"{FILE_NAME}.{number}") for number in range(KEPT, 0, -1)]


_Alike = tuple[object, ...]
"""What requests have in common that are noted together."""


@dataclass(frozen=True, slots=True)
class _Several:
    """Requests of one kind as one: their seconds and tokens are added up."""

    all: Handled
    since: str
    count: int = 1

    def and_also(self, handled: Handled) -> _Several:
        work, more = self.all.work, handled.work
        if work is not None and more is not None:
            read, written = work.prompt_tokens + more.prompt_tokens, work.completion_tokens + more.completion_tokens
            work = replace(work, prompt_tokens=read, completion_tokens=written)
        both = replace(self.all, seconds=self.all.seconds + handled.seconds, work=work)
        return replace(self, all=both, count=self.count + 1)


def _alike(handled: Handled) -> _Alike:
    work = handled.work
    model = (work.adapter, work.commit) if work is not None else None
    return (handled.caller, handled.client, handled.method, handled.route, handled.repository, handled.status, model)


def _line(handled: Handled) -> dict[str, object]:
    caller, work = handled.caller, handled.work
    line: dict[str, object] = {
        "token": caller.id if caller else None,
        "name": caller.name if caller else None,
        "scope": handled.scope,
        "from": handled.client,
        "method": handled.method,
        "repository": handled.repository,
        "route": handled.route,
        "status": handled.status,
        "ms": round(handled.seconds * 1000, 1),
    }
    if work is not None:
        line |= {"adapter": work.adapter, "commit": work.commit, "prompt_tokens": work.prompt_tokens}
        line |= {"texts": work.texts} if work.kind == "embedding" else {"completion_tokens": work.completion_tokens}
    return line


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
