"""Those who wait are taken in turn by caller: the queue itself, and the engine's lock. Batches: test_batching.py."""

from __future__ import annotations

import threading
import time
from collections import Counter
from threading import Event

from hypothesis import given
from hypothesis import strategies as st

from inhouse_training.decoding import FairLock
from inhouse_training.fair_queue import FairQueue


def take(queue: FairQueue[tuple[str, int]]) -> tuple[str, int]:
    first = queue.first()
    assert first is not None
    queue.take(first[0], first)
    return first


def push(queue: FairQueue[tuple[str, int]], caller: str, *numbers: int) -> None:
    for number in numbers:
        queue.push(caller, (caller, number))


def test_one_question_waits_for_no_second_one_of_another_caller() -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    push(queue, "eager", *range(40))
    assert take(queue) == ("eager", 0)
    push(queue, "modest", 0)
    push(queue, "other", 0)
    assert [take(queue) for _ in range(4)] == [("modest", 0), ("other", 0), ("eager", 1), ("eager", 2)]


def test_who_comes_again_and_again_keeps_nobody_waiting_for_ever() -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    push(queue, "eager", *range(40))
    modest = [f"modest {number}" for number in range(4)]
    served: Counter[str] = Counter()
    for number in range(50):
        for caller in modest:
            if not any(item[0] == caller for item in queue):
                push(queue, caller, number)
        served[take(queue)[0]] += 1
    assert set(served.values()) == {10}, "five callers have a fifth each, whoever has more waiting"


def test_what_leaves_without_its_turn_costs_its_caller_none() -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    push(queue, "eager", *range(40))
    take(queue)
    for item in list(queue):
        queue.remove("eager", item)
    assert len(queue) == 0 and queue.first() is None
    push(queue, "modest", 0, 1)
    push(queue, "eager", 40)
    assert [take(queue)[0] for _ in range(3)] == ["modest", "eager", "modest"]


@given(st.lists(st.sampled_from(["a", "b", "c", "next"]), max_size=80))
def test_whoever_waits_meanwhile_gets_as_many_turns_as_any_other(events: list[str]) -> None:
    """Between callers that have something waiting all the time, turns differ by one at most; each caller's are in the
    order in which they came."""
    queue: FairQueue[tuple[str, int]] = FairQueue()
    taken: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    together: dict[frozenset[str], Counter[str]] = {}
    for number, event in enumerate(events):
        if event != "next":
            push(queue, event, number)
            continue
        if queue.first() is None:
            continue
        waiting = {item[0] for item in queue}
        caller, came = take(queue)
        assert taken[caller][-1:] < [came]
        taken[caller].append(came)
        for pair in (frozenset(two) for two in (("a", "b"), ("b", "c"), ("a", "c"))):
            if not pair <= waiting:
                together.pop(pair, None)
            elif caller in pair:
                turns = together.setdefault(pair, Counter(dict.fromkeys(pair, 0)))
                turns[caller] += 1
                assert max(turns.values()) - min(turns.values()) <= 1


def test_the_lock_is_given_to_callers_in_turn_and_who_gave_up_is_passed_over() -> None:
    lock, order = FairLock(), list[str]()
    gone = Event()
    asked = [("eager", Event()), ("eager", gone), ("eager", Event()), ("modest", Event())]

    def wait(name: str, cancel: Event) -> None:
        with lock.hold(cancel, caller=name) as held:
            if held:
                order.append(name)

    threads = [threading.Thread(target=wait, args=each) for each in asked]
    with lock.hold(Event(), caller="eager") as held:
        assert held
        for at, thread in enumerate(threads, start=1):
            thread.start()
            while len(lock._queue) < at:
                time.sleep(0.001)
        gone.set()
        threads[1].join(10)
        assert len(lock._queue) == 3, "a place is free at once"
    for thread in threads:
        thread.join(10)
    assert order == ["modest", "eager", "eager"] and not lock.wanted
