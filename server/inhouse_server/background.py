"""Blocking work beside an event loop.

Threads here are daemons: a process that is told to stop does not wait for a model that is loading.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from threading import Event
from typing import Any, TypeVar

from inhouse_retrieval.errors import Cancelled
from inhouse_retrieval.progress import Progress

T = TypeVar("T")


async def run_in_thread(call: Callable[[], T]) -> T:
    """The result of ``call``, made in a thread of its own. Cancelling the wait lets it finish unseen."""
    async for result in iterate_in_thread(lambda: iter((call(),))):
        return result
    raise AssertionError("a call has one result")


async def cancellable(produce: Callable[[Event], Iterator[T]]) -> AsyncGenerator[T, None]:
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


def job_events(
    work: Callable[[Progress, Event], dict[str, Any]], cancel: Event, cancelled: Cancelled
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Turn a job's progress callback into a stream: ``progress`` with stage, done and total, then ``finished``.

    Args:
        work: gets the progress callback and ``cancel``.
        cancelled: what the job's next report of progress raises once ``cancel`` is set.

    Raises:
        Exception: whatever ``work`` raised.
    """
    events: queue.SimpleQueue[tuple[str, dict[str, Any]] | Exception | None] = queue.SimpleQueue()

    def report(stage: str, done: int, total: int | None) -> None:
        if cancel.is_set():
            raise cancelled
        events.put(("progress", {"stage": stage, "done": done, "total": total}))

    def run() -> None:
        try:
            events.put(("finished", work(report, cancel)))
        except Exception as error:
            events.put(error)
        finally:
            events.put(None)

    threading.Thread(target=run, name="inhouse-job", daemon=True).start()
    while (event := events.get()) is not None:
        if isinstance(event, Exception):
            raise event
        yield event


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
