"""Work-done progress around a job, for clients that show it; for others the job runs all the same."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams

if TYPE_CHECKING:
    from inhouse_server.language_server.server import InhouseServer

_CREATE_TIMEOUT_S = 5.0
_REPORT_INTERVAL_S = 0.2


class Work:
    """A job under way.

    Attributes:
        cancel: set when the user cancels it, when its request is cancelled, and when it ends.
    """

    def __init__(self, ls: InhouseServer, token: types.ProgressToken | None) -> None:
        self.cancel = threading.Event()
        self._ls = ls
        self._token = token
        self._last_report = 0.0

    def report(self, message: str) -> None:
        """Show ``message``; calls that follow the last one too closely to be read are left out."""
        now = time.monotonic()
        if self._token is not None and now - self._last_report >= _REPORT_INTERVAL_S:
            self._last_report = now
            self._ls.work_done_progress.report(self._token, types.WorkDoneProgressReport(message=message))


@asynccontextmanager
async def work(
    ls: InhouseServer, title: str, token: types.ProgressToken | None = None, cancellable: bool = True
) -> AsyncIterator[Work]:
    """Show progress under the client's ``token``, or under one of ours if the client can show it.

    Raises:
        JsonRpcInvalidParams: ``token``, which pygls takes as it comes, is none.
    """
    if token is not None and not isinstance(token, int | str):
        raise JsonRpcInvalidParams("workDoneToken is neither a number nor a string.")
    if token is None:
        token = await _create_token(ls)
    job = Work(ls, token)
    if token is not None:
        begin = types.WorkDoneProgressBegin(title=title, cancellable=cancellable)
        ls.work_done_progress.begin(token, begin)
        ls.work_done_progress.tokens[token].add_done_callback(_canceller(job))
    try:
        yield job
    finally:
        job.cancel.set()
        if token is not None:
            ls.work_done_progress.tokens.pop(token, None)
            ls.work_done_progress.end(token, types.WorkDoneProgressEnd())


def _canceller(job: Work) -> Any:
    def on_done(future: Future[Any]) -> None:
        job.cancel.set()

    return on_done


async def _create_token(ls: InhouseServer) -> types.ProgressToken | None:
    window = ls.client_capabilities.window
    if window is None or not window.work_done_progress:
        return None
    token = str(uuid.uuid4())
    try:
        await asyncio.wait_for(ls.work_done_progress.create_async(token), _CREATE_TIMEOUT_S)
    except (JsonRpcException, TimeoutError):
        return None  # The client would not show it; the job does not depend on that.
    return token
