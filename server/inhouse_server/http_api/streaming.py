"""Blocking streams (an answer, an index run) as server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from threading import Event
from typing import TypeVar

from inhouse_server.background import iterate_in_thread

T = TypeVar("T")


async def cancellable(produce: Callable[[Event], Iterator[T]]) -> AsyncIterator[T]:
    """Yield what ``produce(cancel)`` yields in its thread. Leaving early, or a lost client, sets ``cancel``.

    Raises:
        Exception: whatever ``produce`` raised.
    """
    cancel = Event()
    try:
        async for value in iterate_in_thread(lambda: produce(cancel)):
            yield value
    finally:
        cancel.set()


def server_sent(data: object, event: str | None = None) -> bytes:
    """One server-sent event (WHATWG HTML, section 9.2)."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {event}\n" if event else "").encode() + f"data: {text}\n\n".encode()
