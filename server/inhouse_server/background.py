"""Blocking work beside an event loop.

Threads here are daemons: a process that is told to stop does not wait for a model that is loading.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


async def run_in_thread(call: Callable[[], T]) -> T:
    """The result of ``call``, made in a thread of its own. Cancelling the wait lets it finish unseen."""
    async for result in iterate_in_thread(lambda: iter((call(),))):
        return result
    raise AssertionError("a call has one result")


async def iterate_in_thread(iterate: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """The items of ``iterate()``, made in a thread of its own and handed to this loop one by one."""
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[tuple[T] | BaseException | None] = asyncio.Queue()

    def hand_over(item: tuple[T] | BaseException | None) -> None:
        # The loop is closed when the process is stopping: nobody is left to hand anything to.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(items.put_nowait, item)

    def produce() -> None:
        try:
            for item in iterate():
                hand_over((item,))
        except BaseException as error:
            # Whatever it is belongs to the task that waits, which raises it again.
            hand_over(error)
        else:
            hand_over(None)

    threading.Thread(target=produce, daemon=True, name="inhouse-background").start()
    while (item := await items.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item[0]
