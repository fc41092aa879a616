"""Answers made together in 8 bits are those made one at a time in 8 bits, whatever happens around them."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

import pytest
import torch

from inhouse_retrieval import InhouseError
from inhouse_training import (
    BASE,
    BaseModel,
    Message,
    ScoredRow,
    TextDelta,
)
from inhouse_training.batching.pool import Places
from inhouse_training.batching.scheduler import Asked
from inhouse_training.batching.steps import Reading, Writing
from inhouse_training.decoding import Drafts
from inhouse_training.eight_bits import decoder as decoders
from inhouse_training.eight_bits import versions
from inhouse_training.eight_bits.engine import EightBitEngine
from inhouse_training.eight_bits.model import BLOCK, Model
from inhouse_training.engine_choice import load_engine

from .adapters import random_adapter
from .answers import alone, request, text_of, together, unknown


@pytest.fixture(scope="module")
def folders(grouped: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("adapters")
    return {name: random_adapter(grouped, made / name, r=rank) for name, rank in (("one", 8), ("two", 4), ("three", 2))}


@pytest.fixture(scope="module")
def serial(grouped: BaseModel, folders: dict[str, Path]) -> EightBitEngine:
    return EightBitEngine(grouped, lambda name: unknown(folders, name), streams=1)


@pytest.fixture(scope="module")
def several(grouped: BaseModel, folders: dict[str, Path]) -> EightBitEngine:
    return EightBitEngine(grouped, lambda name: unknown(folders, name), streams=4)


@pytest.mark.parametrize("pause_s", [0.0, 0.01])
def test_requests_that_arrive_at_any_time_get_what_they_get_alone(
    serial: EightBitEngine, several: EightBitEngine, pause_s: float
) -> None:
    named = [BASE, "one", "two", "one", BASE, "two", "one", BASE, "one", "two", BASE, "one"]
    asked = [request(n, name, 8 + 5 * (n % 4), 10 + 40 * (n % 3)) for n, name in enumerate(named)]
    expected = [alone(serial, each) for each in asked]
    assert len({text for text, _ in expected}) == len(asked)
    assert together(several, asked, pause_s) == expected


def test_prompts_are_read_in_smaller_pieces_while_somebody_is_answered(
    serial: EightBitEngine, several: EightBitEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[int]] = []
    plain = decoders.PagedDecoder.read

    def counting(decoder: Any, readings: list[Reading]) -> torch.Tensor:
        read.append([len(each.ids) for each in readings])
        return plain(decoder, readings)

    monkeypatch.setattr(decoders.PagedDecoder, "read", counting)
    long, written = request(0, words=700), request(40, "one", tokens=200, words=20)
    expected = [alone(serial, each) for each in (written, long)]
    assert max(map(sum, read)) == 512
    read.clear()
    several.forget()
    stream = several.stream(written, Event())
    first = next(stream)
    read.clear()
    assert text_of(several.stream(long, Event())) == expected[1]
    assert max(map(sum, read)) == 128 and sum(map(sum, read)) == expected[1][1].prompt_tokens
    assert isinstance(first, TextDelta)
    rest, finished = text_of(stream)
    assert (first.text + rest, finished) == expected[0]


def test_a_beginning_that_was_read_before_is_copied(
    serial: EightBitEngine, several: EightBitEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = request(50, "one", words=120)
    again = replace(first, messages=(*first.messages, Message("assistant", "yes"), Message("user", "why?")))
    changed = replace(first, messages=(Message("user", first.messages[0].content[:-40] + " and not that"),))
    expected = [alone(serial, each) for each in (first, again, changed, again)]
    several.forget()
    copied: list[int] = []
    for at, each in enumerate((first, again, changed, again)):
        before = several._scheduler.tokens_copied
        assert text_of(several.stream(each, Event())) == expected[at]
        copied.append(several._scheduler.tokens_copied - before)
    prompt = expected[0][1].prompt_tokens
    assert copied[0] == 0 and prompt - 10 < copied[1] < prompt + 10 and prompt - 40 < copied[2] < prompt
    assert any(each % BLOCK for each in copied), "also where a block is half read"
    before = several._scheduler.tokens_copied
    other = replace(first, adapter="two")
    assert text_of(several.stream(other, Event())) == alone(serial, other)
    assert several._scheduler.tokens_copied == before, "another version has keys and values of its own"


class Seer(Drafts):
    """Proposes what will be chosen, and every third time something else after a few tokens of it."""

    will_be: ClassVar[dict[int, list[int]]] = {}
    """Answers, by the length of their prompts."""

    def __init__(self, prompt: list[int]) -> None:
        super().__init__(prompt)
        self._read = len(prompt)

    def propose(self, token: int, most: int) -> list[int]:
        super().propose(token, 0)
        at = len(self._lookup._ids) - self._read
        right = self.will_be[self._read][at : at + min(most, self._length)]
        return [*right[:2], *(each + 1 for each in right[2:])] if at % 3 == 0 else right


def test_what_is_proposed_changes_no_answer_and_saves_steps(
    serial: EightBitEngine, several: EightBitEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [request(n, name, 60 + n, 20 + n) for n, name in enumerate((BASE, "one", BASE, "two"))]
    expected = [alone(serial, each) for each in asked]
    made: dict[int, list[int]] = {}
    monkeypatch.setattr(Seer, "will_be", made)
    give = Asked.give
    with monkeypatch.context() as patched:
        patched.setattr(
            Asked, "give", lambda each, token: (made.setdefault(len(each.prompt), []).append(token), give(each, token))
        )
        together(several, asked)
    assert sorted(map(len, made.values())) == [60, 61, 62, 63]
    steps: list[Writing] = []
    plain = decoders.PagedDecoder.write

    def counting(decoder: Any, rows: list[Writing]) -> Any:
        steps.extend(rows)
        return plain(decoder, rows)

    monkeypatch.setattr(decoders.PagedDecoder, "write", counting)
    monkeypatch.setattr("inhouse_training.batching.scheduler.Drafts", Seer)
    several.forget()
    assert together(several, asked) == expected
    assert len(steps) < 246 / 2
    assert {2, 8} < {len(each.draft) for each in steps}
    follow_up = replace(asked[1], messages=(*asked[1].messages, Message("assistant", "yes"), Message("user", "why?")))
    monkeypatch.setattr("inhouse_training.batching.scheduler.Drafts", Drafts)
    assert together(several, [follow_up]) == [alone(serial, follow_up)], "what was refused is not taken for read"
    steps.clear()
    together(several, [replace(asked[0], temperature=0.5, seed=1)])
    assert not any(each.draft for each in steps), "what is sampled is not copied"


def test_an_end_within_a_copy_ends_the_answer() -> None:
    prompt = [1, 2, 3, 4, 5, 6, 1]
    asked = Asked(prompt, BASE, 9, frozenset({4}), None, Event(), "", lambda: None, Drafts(prompt))
    assert asked.drafts is not None
    asked.give(2)
    assert asked.drafts.propose(2, 3) == [3, 4, 5]
    asked.take([3, 4, 5], torch.empty(4, 0), [3, 4, 5, 9])
    assert asked.made == [2, 3, 4] and asked.over
    assert list(asked.tokens()) == [2, 3, 4]


def test_an_answer_that_nobody_waits_for_makes_room(serial: EightBitEngine, several: EightBitEngine) -> None:
    cancels = [Event() for _ in range(4)]
    streams = [several.stream(request(20 + n, tokens=1500), cancels[n]) for n in range(4)]
    for stream in streams:
        next(stream)
    asked, got = request(1, "one"), list[Any]()
    waiting = threading.Thread(target=lambda: got.append(text_of(several.stream(asked, Event()))))
    waiting.start()
    time.sleep(0.2)
    assert not got and several._scheduler.under_way == 4
    cancels[0].set()
    waiting.join(60)
    assert got == [alone(serial, asked)]
    assert text_of(streams[0])[1].reason == "cancelled"
    for stream in streams[1:]:
        stream.close()  # type: ignore[attr-defined]


def test_versions_in_use_stay_in_memory_and_one_more_waits(
    serial: EightBitEngine, grouped: BaseModel, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "KEPT_BYTES", 0)
    engine = EightBitEngine(grouped, lambda name: unknown(folders, name), streams=4)
    asked = [request(n, name, tokens=150) for n, name in enumerate(("one", "two", "three", BASE, "one"))]
    expected = [alone(serial, each) for each in asked]
    assert together(engine, asked, 0.02) == expected
    assert len(engine._models.versions) <= 3, "two, and what was made before it was asked"
    stream = engine.stream(request(0, "one", tokens=1500), Event())
    next(stream)
    row = [ScoredRow(tuple(range(100, 140)), tuple(range(100, 140)))]
    assert engine.score(row, "three") == serial.score(row, "three")
    assert "one" in engine.loaded_adapters, "an answer is made with it"
    stream.close()  # type: ignore[attr-defined]


def test_making_a_version_holds_nobody_up(
    serial: EightBitEngine, grouped: BaseModel, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = EightBitEngine(grouped, lambda name: unknown(folders, name), streams=4)
    old, new = request(1, "one", tokens=30), request(2, "two", tokens=30)
    assert text_of(engine.stream(old, Event())) == alone(serial, old)
    begun, go_on = Event(), Event()
    plain = engine._models._make

    def slow(version: str) -> Model:
        begun.set()
        assert go_on.wait(60)
        return plain(version)

    monkeypatch.setattr(engine._models, "_make", slow)
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.append(text_of(engine.stream(new, Event()))))
    waiting.start()
    assert begun.wait(60)
    assert text_of(engine.stream(old, Event())) == alone(serial, old)
    assert not got
    go_on.set()
    waiting.join(60)
    assert got == [alone(serial, new)]


def test_scores_and_filling_in_go_between_two_steps(serial: EightBitEngine, several: EightBitEngine) -> None:
    asked = [request(n, "one", tokens=60) for n in range(3)]
    expected = [alone(serial, each) for each in asked]
    row = [ScoredRow(tuple(range(100, 140)), tuple(range(100, 140)))]
    streams = [several.stream(each, Event()) for each in asked]
    first = [next(stream) for stream in streams]
    assert [several.score(row, name) for name in ("two", BASE)] == [serial.score(row, name) for name in ("two", BASE)]
    prompt = list(range(100, 160))
    patient = several._generate(prompt, request(0), 12, Event(), frozenset(), True)
    whole = [(one.text + text, last) for one, (text, last) in zip(first, map(text_of, streams), strict=True)]  # type: ignore[union-attr]
    assert whole == expected
    assert text_of(patient) == text_of(serial._generate(prompt, request(0), 12, Event(), frozenset(), True))


def test_an_unknown_adapter_and_a_schema_that_is_none_fail_their_own_request_only(
    serial: EightBitEngine, several: EightBitEngine
) -> None:
    asked = [request(0, "one"), request(1, "nowhere"), replace(request(2), schema='{"type": "nonsense"}'), request(3)]
    good, unheard, senseless, other = together(several, asked)
    assert (good, other) == (alone(serial, asked[0]), alone(serial, asked[3]))
    assert isinstance(unheard, InhouseError) and "nowhere" in str(unheard)
    assert isinstance(senseless, InhouseError) and "cannot be followed" in str(senseless)


def test_a_failure_of_openvino_reaches_everybody_and_the_next_one_is_answered(
    serial: EightBitEngine, several: EightBitEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def infer(self, *given: Any, **how: Any) -> None:
            raise RuntimeError("Exception from somewhere:\nno memory, say\n")

    several.prepare(BASE)
    several._activate(BASE)
    with monkeypatch.context() as patched:
        patched.setattr(several._models[BASE], "_request", Broken())
        for error in together(several, [request(0), request(1)]):
            assert isinstance(error, InhouseError) and "OpenVINO does not compute this model" in str(error)
            assert "no memory, say" in str(error)
    assert together(several, [request(0)]) == [alone(serial, request(0))]


def test_more_requests_than_the_pool_holds_take_turns(
    grouped: BaseModel, serial: EightBitEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inhouse_training.eight_bits.engine.ROOM", 0)
    engine = EightBitEngine(grouped, Path, streams=8)
    asked = [request(n, tokens=150, words=500) for n in range(3)]  # two of them fill the pool
    assert together(engine, asked) == [alone(serial, each) for each in asked]


def test_the_setting_says_how_many_answers_are_made_at_once(grouped: BaseModel) -> None:
    for batched, streams in (("auto", 8), ("on", 8), ("off", 1)):
        engine = load_engine(grouped, Path, batched, "8bit")  # type: ignore[arg-type]
        assert isinstance(engine, EightBitEngine) and engine.streams == streams


def test_places_begin_with_a_block_and_few_are_kept() -> None:
    places = Places(96, block=32, kept=1)
    one, two = places.take(40, "a"), places.take(20, "a")
    assert one is not None and two is not None and (one.start, two.start) == (0, 64)
    places.give_back(one, range(33))
    three = places.take(1, "a")
    assert three is None or three.start % 32 == 0
    assert three is not None and places.same_beginning(list(range(50)), three) == (0, 0), "it has made room"
    places.give_back(three, range(20))
    places.give_back(two, range(100, 120))
    four = places.take(32, "a")
    assert four is not None and places.same_beginning(list(range(20)), four) == (0, 0), "only the last one is kept"
    assert places.same_beginning(list(range(100, 130)), four) == (64, 20)
    places.forget()
    assert places.same_beginning(list(range(100, 130)), four) == (0, 0)
