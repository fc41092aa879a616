"""Server-sent events, and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar, cast

from starlette.requests import Request

from inhouse_server.engines.failures import Overloaded

REFUSAL_S = 2.0
"""How long a stream's status waits for a first token or a refusal; whoever reads the prompt longer than this has not
refused it."""

T = TypeVar("T")


async def unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of ``work``, which is cancelled when the client goes away; then ``None``.

    The request's body must have been read.
    """

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def refused_at_once(events: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """``events``, after a moment in which a refusal can still become the status of the answer.

    Raises:
        Overloaded: the engine takes nothing more; any other error comes with the events.
    """
    first = asyncio.ensure_future(anext(events))
    try:
        await asyncio.wait({first}, timeout=REFUSAL_S)
    except asyncio.CancelledError:
        first.cancel()
        raise
    if first.done() and isinstance(first.exception(), Overloaded):
        raise cast(Overloaded, first.exception())
    return _after(first, events)


async def _after(first: asyncio.Future[T], events: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    try:
        with contextlib.suppress(StopAsyncIteration):
            yield await first
            async for event in events:
                yield event
    finally:
        first.cancel()
        await events.aclose()


def server_sent(data: object, event: str | None = None) -> bytes:
    """One server-sent event (WHATWG HTML, section 9.2)."""
    # In ASCII: some clients take U+2028 and its like for the end of a line.
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {event}\n" if event else "").encode() + f"data: {text}\n\n".encode()
