"""The memory of a model, lent: answers end first, none begins meanwhile, and a lease that is not renewed ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from inhouse_server.lending import AlreadyLent, Lending, SteppedAside

PATIENCE_S = 30.0


class Model:
    """Loaded or not."""

    def __init__(self, lending: Lending) -> None:
        self.loaded = True
        self.loads = 0
        lending.holds(self.unload, self.load)
        self._lending = lending

    def unload(self) -> None:
        self.loaded = False

    def load(self) -> None:
        try:
            with self._lending.use():
                self.loaded = True
                self.loads += 1
        except SteppedAside:
            pass


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_aside(lending: Lending) -> bool:
    status = lending.status()
    return status is not None and status["aside"]


def test_answers_under_way_end_before_the_model_goes() -> None:
    lending = Lending()
    model, ending = Model(lending), threading.Event()

    def answer() -> None:
        with lending.use():
            ending.wait(PATIENCE_S)

    answering = threading.Thread(target=answer)
    answering.start()
    until(lambda: lending._uses == 1)
    told = lending.lend("mine-1234", 42, 60)
    assert (told["pid"], told["answering"], told["aside"]) == (42, 1, False) and model.loaded
    with pytest.raises(SteppedAside, match="process 42") as refused, lending.use():
        pass
    assert (refused.value.status, refused.value.retry_s) == (503, 30)
    ending.set()
    until(lambda: is_aside(lending))
    assert not model.loaded
    lending.take_back("mine-1234")
    until(lambda: model.loaded)
    with lending.use():
        assert lending.status() is None
    answering.join()


def test_who_changes_the_model_waits_for_its_users_and_keeps_the_next_ones_waiting() -> None:
    lending, told, ending = Lending(), list[str](), threading.Event()

    def use(name: str, until: threading.Event | None = None) -> None:
        with lending.use():
            told.append(f"{name} begins")
            if until is not None:
                until.wait(PATIENCE_S)
            told.append(f"{name} ends")

    def change() -> None:
        with lending.alone():
            told.append("changed")

    threads = [threading.Thread(target=use, args=("first", ending)), threading.Thread(target=change)]
    threads[0].start()
    until(lambda: told == ["first begins"])
    threads[1].start()
    until(lambda: lending._changing)
    threads.append(threading.Thread(target=use, args=("second",)))
    threads[2].start()
    time.sleep(0.05)
    assert told == ["first begins"]
    ending.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert told == ["first begins", "first ends", "changed", "second begins", "second ends"]


def test_a_lease_that_is_not_renewed_ends_by_itself() -> None:
    lending = Lending()
    model = Model(lending)
    lending.lend("mine-1234", 42, 0.4)
    until(lambda: is_aside(lending))
    for _ in range(4):
        time.sleep(0.2)
        assert lending.lend("mine-1234", 42, 0.4)["aside"]
    assert model.loads == 0
    until(lambda: model.loaded)
    with lending.use():
        pass


def test_a_lease_that_ended_before_the_last_answer_takes_nothing() -> None:
    lending = Lending()
    model = Model(lending)
    with lending.use():
        lending.lend("mine-1234", 42, 0.05)
        until(lambda: lending.status() is None)
        assert model.loaded
    until(lambda: model.loads == 1)
    assert model.loaded


def test_one_retraining_has_it_and_another_waits() -> None:
    lending = Lending()
    model = Model(lending)
    lending.lend("mine-1234", 42, 60)
    with pytest.raises(AlreadyLent, match="process 42"):
        lending.lend("other-123", 43, 60)
    lending.take_back("other-123")
    until(lambda: is_aside(lending))
    lending.take_back("mine-1234")
    lending.lend("other-123", 43, 60)  # at once, while the first one's model may be on its way back
    until(lambda: is_aside(lending) and not model.loaded)
    lending.take_back("other-123")
    until(lambda: model.loaded)
