"""Who may wait for the engine of this process: the caller with the most waiting is refused, nobody for another's."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack

import pytest

from inhouse_retrieval import Cancelled
from inhouse_server.admission import Admission, Place
from inhouse_server.engines.failures import Overloaded


class Asking:
    """Answers under way, each by a name."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._open: dict[str, AbstractContextManager[Place]] = {}
        self.places: dict[str, Place] = {}

    def come(self, name: str) -> Place:
        """``eager 3`` is the third of the caller ``eager``."""
        entered = self._admission.enter(name.split()[0])
        self.places[name] = entered.__enter__()
        self._open[name] = entered
        return self.places[name]

    def go(self, name: str) -> None:
        self._open.pop(name).__exit__(None, None, None)

    @property
    def lost(self) -> list[str]:
        return [name for name, place in self.places.items() if place.lost.is_set()]


def asking(at_once: int, waiting: int) -> Asking:
    return Asking(Admission(lambda: at_once, waiting))


def test_whoever_has_the_most_waiting_gives_its_newest_place_up() -> None:
    room = asking(at_once=1, waiting=4)
    room.come("eager 1").begin()
    for number in range(2, 6):
        room.come(f"eager {number}")
    room.come("modest 1")
    assert room.lost == ["eager 5"]
    room.come("other 1")
    assert room.lost == ["eager 4", "eager 5"]
    with pytest.raises(Overloaded, match="5 answers are being made or wait already"):
        room.come("eager 6")
    with pytest.raises(Overloaded):
        room.come("modest 2")  # would have as many as the eager one then: it comes too late
    assert room.lost == ["eager 4", "eager 5"]


def test_an_answer_that_has_begun_is_never_given_up() -> None:
    room = asking(at_once=3, waiting=0)
    for number in range(3):
        room.come(f"eager {number}").begin()
    with pytest.raises(Overloaded):
        room.come("modest 1")
    assert room.lost == []
    room.go("eager 1")
    room.come("modest 1")


def test_a_full_room_of_callers_with_one_each_refuses_who_comes() -> None:
    room = asking(at_once=1, waiting=2)
    for name in ("one 1", "two 1", "three 1"):
        room.come(name)
    with pytest.raises(Overloaded):
        room.come("four 1")
    assert room.lost == []


def test_a_place_that_was_lost_is_not_counted_again_when_its_answer_ends() -> None:
    room = asking(at_once=1, waiting=1)
    for name in ("eager 1", "eager 2", "modest 1"):
        room.come(name)
    assert room.lost == ["eager 2"]
    room.go("eager 2")
    with pytest.raises(Overloaded):
        room.come("other 1")
    room.go("modest 1")
    room.come("other 1")


def test_whose_place_was_lost_is_told_when_to_try_again_in_place_of_cancelled() -> None:
    admission, cancelled = Admission(lambda: 1, 1), Cancelled("The question was cancelled.", "Ask it again.")
    with ExitStack() as others:
        others.enter_context(admission.enter("eager"))
        with (
            pytest.raises(Overloaded, match="most of the questions that wait are yours") as told,
            admission.enter("eager") as place,
        ):
            others.enter_context(admission.enter("modest"))
            assert place.lost.is_set()
            raise cancelled
        assert told.value.status == 429
    with pytest.raises(Cancelled), admission.enter("modest"):
        raise cancelled


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def retry_s(admission: Admission) -> float:
    """What a question is told that finds no room."""
    with admission.enter(), admission.enter(), pytest.raises(Overloaded) as told, admission.enter():
        raise AssertionError("there is no room")
    assert told.value.status == 429
    return told.value.retry_s


def test_the_time_to_wait_is_that_between_two_ends(clock: Clock) -> None:
    admission = Admission(lambda: 1, 1, clock)
    for _ in range(30):
        with admission.enter() as place:
            place.begin()
            clock.now += 3
    assert retry_s(admission) == pytest.approx(3, rel=0.1)
    for _ in range(30):
        with admission.enter() as place:
            clock.now += 0.01  # who leaves before its turn tells nothing of how fast answers end
    assert retry_s(admission) == pytest.approx(3, rel=0.1)
    with admission.enter():
        pass


def test_an_answer_begins_or_loses_its_place_and_never_both() -> None:
    house = asking(1, 2)
    begun, _, newest = (house.come(f"eager {number}") for number in (1, 2, 3))
    begun.begin()
    house.come("modest 1")  # takes the place of the newest that waits
    newest.begin()  # the engine had just turned to it
    assert house.lost == ["eager 3"] and newest.waits and not begun.waits


def test_an_engine_elsewhere_refuses_by_itself() -> None:
    admission = Admission(lambda: None, 0)
    with admission.enter(), admission.enter():
        pass
