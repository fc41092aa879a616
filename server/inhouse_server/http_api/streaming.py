"""Run a blocking stream (an answer, an index run) in a thread and hand its events to the event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from threading import Event
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(produce: Callable[[Event], Iterator[T]]) -> AsyncIterator[T]:
    """Yield what ``produce(cancel)`` yields. Leaving the loop early, or a lost client, sets ``cancel``.

    Raises:
        Exception: whatever ``produce`` raised.
    """
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    cancel = Event()

    def hand_over(kind: str, value: object) -> None:
        # The loop is closed when the owner stops in the middle of an answer; nobody listens then.
        if not loop.is_closed():
            loop.call_soon_threadsafe(events.put_nowait, (kind, value))

    def work() -> None:
        try:
            for value in produce(cancel):
                hand_over("value", value)
        except BaseException as error:  # handed to the waiting coroutine, which raises it again
            hand_over("error", error)
        else:
            hand_over("end", None)

    task = loop.run_in_executor(None, work)
    try:
        while True:
            kind, value = await events.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        cancel.set()
        await asyncio.shield(task)


def server_sent(data: object, event: str | None = None) -> bytes:
    """One server-sent event (WHATWG HTML, section 9.2)."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {event}\n" if event else "").encode() + f"data: {text}\n\n".encode()
