"""Answers made together are those made one at a time: token for token in float32, whatever happens around them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from inhouse_retrieval import InhouseError
from inhouse_training import (
    BASE,
    BaseModel,
    Message,
    ScoredRow,
    TextDelta,
    TransformersEngine,
    load_model,
)
from inhouse_training.batching.engine import BatchedEngine
from inhouse_training.batching.pool import Place, Places
from inhouse_training.batching.scheduler import Asked
from inhouse_training.decoding import FairLock, likeliest
from inhouse_training.engine_choice import load_engine
from inhouse_training.exchanged_attention import why_not_exchanged

from .adapters import random_adapter
from .answers import WORDS, alone, request, text_of, together, unknown


@pytest.fixture(scope="module")
def folders(grouped: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Versions of different ranks, on different layers; "magnitudes" is more than LoRA."""
    made = tmp_path_factory.mktemp("adapters")
    kinds: dict[str, dict[str, Any]] = {
        "one": {},
        "two": {"r": 4, "target_modules": ["q_proj", "down_proj"]},
        "three": {"r": 16, "use_rslora": True},
        "four": {"r": 2},
        "five": {"r": 8, "rank_pattern": {"q_proj": 4}},
        "magnitudes": {"use_dora": True},
    }
    return {name: random_adapter(grouped, made / name, **changed) for name, changed in kinds.items()}


@pytest.fixture(scope="module")
def serial(grouped: BaseModel, folders: dict[str, Path]) -> TransformersEngine:
    return TransformersEngine(grouped, lambda name: unknown(folders, name), device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def batched(grouped: BaseModel, folders: dict[str, Path]) -> BatchedEngine:
    return BatchedEngine(grouped, lambda name: unknown(folders, name), device="cpu", dtype=torch.float32, streams=4)


@pytest.mark.parametrize("pause_s", [0.0, 0.01])
def test_requests_that_arrive_at_any_time_get_what_they_get_alone(
    serial: TransformersEngine, batched: BatchedEngine, pause_s: float
) -> None:
    asked = [request(n, tokens=8 + 5 * (n % 4), words=10 + 40 * (n % 3)) for n in range(12)]
    assert together(batched, asked, pause_s) == [alone(serial, each) for each in asked]


def test_a_prompt_of_several_blocks(serial: TransformersEngine, batched: BatchedEngine) -> None:
    asked = [request(0, words=700), request(1, words=20), request(2, words=600)]
    expected = [alone(serial, each) for each in asked]
    assert expected[0][1].prompt_tokens > 2 * 512
    assert together(batched, asked) == expected


def test_versions_and_the_base_stand_in_one_batch_and_a_swap_needs_no_pause(
    serial: TransformersEngine, batched: BatchedEngine
) -> None:
    versions = [BASE, "one", "two", "one", "three", BASE, "two", "four", "five", "one", "four", "three"]
    asked = [request(n, adapter) for n, adapter in enumerate(versions)]
    expected = [alone(serial, each) for each in asked]
    assert len({text for text, _ in expected}) == len(asked)
    assert together(batched, asked, 0.01) == expected
    assert set(batched.loaded_adapters) >= {"three", "four"}


def test_a_version_promoted_meanwhile_leaves_answers_under_way_as_they_are(
    serial: TransformersEngine, batched: BatchedEngine
) -> None:
    before, after = request(3, "one", tokens=120), request(3, "two", tokens=20)
    expected = alone(serial, before), alone(serial, after)
    stream = batched.stream(before, Event())
    first = next(stream)
    swapped = text_of(batched.stream(after, Event()))  # ends while the one before is still being written
    assert isinstance(first, TextDelta)
    rest, finished = text_of(stream)
    assert ((first.text + rest, finished), swapped) == expected


def test_cancelled_answers_end_at_once_and_disturb_nobody(serial: TransformersEngine, batched: BatchedEngine) -> None:
    asked = [request(n, "one" if n % 2 else BASE, tokens=40) for n in range(6)]
    expected = [alone(serial, each) for each in asked]
    cancels = [Event() for _ in range(4)]
    streams = [batched.stream(replace(request(20 + n), max_tokens=1500), cancels[n]) for n in range(4)]
    for stream in streams:
        next(stream)  # all four places are taken
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.extend(together(batched, asked)))
    waiting.start()
    time.sleep(0.2)
    assert not got and batched._scheduler.under_way == 4 and batched._scheduler.waiting
    for cancel in cancels[:2]:
        cancel.set()
    streams[2].close()  # type: ignore[attr-defined]  # a generator: nobody reads it any more
    for stream in streams[:2]:
        _, finished = text_of(stream)
        assert finished.reason == "cancelled" and finished.completion_tokens < 1500
    waiting.join(60)
    assert got == expected
    deadline = time.monotonic() + 60  # an answer is whole a moment before its place is free
    while batched._scheduler.under_way > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert batched._scheduler.under_way == 1  # the fourth goes on by itself
    streams[3].close()  # type: ignore[attr-defined]


def test_one_that_waits_is_cancelled_without_having_begun(batched: BatchedEngine) -> None:
    streams = [batched.stream(request(n, tokens=1500), Event()) for n in range(4)]
    for stream in streams:
        next(stream)
    cancel = Event()
    threading.Timer(0.1, cancel.set).start()
    text, finished = text_of(batched.stream(request(5), cancel))
    assert (text, finished.reason, finished.completion_tokens) == ("", "cancelled", 0)
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("callers", "order"),
    [(["one"] * 5, [3, 4, 5, 6, 7]), (["eager", "eager", "eager", "modest", "other"], [6, 7, 3, 4, 5])],
)
def test_callers_begin_in_turn_and_those_of_one_in_the_order_of_their_arrival(
    grouped: BaseModel, monkeypatch: pytest.MonkeyPatch, callers: list[str], order: list[int]
) -> None:
    engine = BatchedEngine(grouped, Path, device="cpu", dtype=torch.float32, streams=1)
    blocking = engine.stream(replace(request(0, tokens=1500), caller=callers[0]), Event())
    next(blocking)
    began, told = list[int](), list[int]()
    give = Asked.give

    def recorded(asked: Asked, token: int) -> None:
        if not asked.made:  # in the scheduler's thread: those that asked are woken in any order
            began.append(asked.limit)
        give(asked, token)

    monkeypatch.setattr(Asked, "give", recorded)
    limits = [3, 4, 5, 6, 7]  # tell them apart
    asked = [
        replace(request(limit, tokens=limit), caller=caller, begun=partial(told.append, limit))
        for limit, caller in zip(limits, callers, strict=True)
    ]
    threads = [threading.Thread(target=text_of, args=(engine.stream(each, Event()),)) for each in asked]
    for at, thread in enumerate(threads):
        thread.start()
        while engine._scheduler.waiting <= at:
            time.sleep(0.001)
    blocking.close()  # type: ignore[attr-defined]
    for thread in threads:
        thread.join(60)
    assert began == told == order


def test_sampled_answers_and_schemas_stand_beside_greedy_ones(
    serial: TransformersEngine, batched: BatchedEngine
) -> None:
    schema = '{"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}}, "required": ["name"]}'
    asked = [
        request(0),
        replace(request(1), temperature=1.0, top_p=0.9, seed=3),
        replace(request(2), schema=schema),
        request(3, "one"),
        replace(request(4, "one"), temperature=0.7, seed=4),
    ]
    assert together(batched, asked, 0.005) == [alone(serial, each) for each in asked]
    with pytest.raises(InhouseError, match="schema cannot be followed"):
        list(batched.stream(replace(request(0), schema='{"type": "nonsense"}'), Event()))


def test_stop_strings_and_the_context_end_an_answer(serial: TransformersEngine, batched: BatchedEngine) -> None:
    whole, _ = alone(serial, request(0, tokens=30))
    asked = [replace(request(0, tokens=30), stop=(whole[20:26],)), request(1, words=740, tokens=5000)]
    expected = [alone(serial, each) for each in asked]
    assert [finished.reason for _, finished in expected] == ["stop", "length"]
    assert together(batched, asked) == expected


def test_a_beginning_that_was_read_before_is_copied(
    serial: TransformersEngine, batched: BatchedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, int]] = []
    decoder = batched._ready()[0]
    plain = decoder.read

    def counting(readings: Any) -> torch.Tensor:
        read.extend((each.done, len(each.ids)) for each in readings)
        return plain(readings)

    monkeypatch.setattr(decoder, "read", counting)
    first = request(50, "one", words=120)
    asked = [first, replace(first, messages=(*first.messages, Message("assistant", "yes"), Message("user", "why?")))]
    for each in asked:
        read.clear()
        assert text_of(batched.stream(each, Event())) == alone(serial, each)
    prompt = alone(serial, first)[1].prompt_tokens
    ((shared, rest),) = read
    assert shared > prompt - 10 and rest < 40
    other = replace(first, adapter="three")
    read.clear()
    assert text_of(batched.stream(other, Event())) == alone(serial, other)
    assert read[0][0] < 40  # another adapter has keys and values of its own; others have begun with the same few words


def test_scores_and_fixed_questions_go_between_two_steps(serial: TransformersEngine, batched: BatchedEngine) -> None:
    asked = [request(n, "one", tokens=60) for n in range(3)]
    expected = [alone(serial, each) for each in asked]
    row = [ScoredRow(tuple(range(100, 140)), tuple(range(100, 140)))]
    streams = [batched.stream(each, Event()) for each in asked]
    first = [next(stream) for stream in streams]
    scores = [batched.score(row, adapter) for adapter in ("two", BASE, "one")]
    answers = batched.answer_all([(Message("user", WORDS),)], 8, "two")
    rest = [text_of(stream) for stream in streams]
    assert [scores[n][0].nats for n in range(3)] == pytest.approx(
        [serial.score(row, adapter)[0].nats for adapter in ("two", BASE, "one")], rel=1e-5
    )
    assert answers == serial.answer_all([(Message("user", WORDS),)], 8, "two")
    whole = [(one.text + text, last) for one, (text, last) in zip(first, rest, strict=True)]  # type: ignore[union-attr]
    assert whole == expected


def test_an_adapter_that_is_more_than_lora_is_answered_by_itself(
    serial: TransformersEngine, batched: BatchedEngine
) -> None:
    asked = [request(0, "one"), request(1, "magnitudes"), request(2), request(3, "magnitudes")]
    expected = [alone(serial, each) for each in asked]
    assert together(batched, asked) == expected


def test_an_unknown_adapter_fails_its_own_request_only(serial: TransformersEngine, batched: BatchedEngine) -> None:
    asked = [request(0, "one"), request(1, "nowhere"), request(2)]
    good, bad, other = together(batched, asked)
    assert (good, other) == (alone(serial, asked[0]), alone(serial, asked[2]))
    assert isinstance(bad, InhouseError) and "nowhere" in str(bad)


@pytest.mark.parametrize("after", [0, 5])
def test_a_choice_that_fails_ends_its_own_answer_only(
    after: int, serial: TransformersEngine, batched: BatchedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [request(0, "one"), replace(request(1), temperature=1.0), request(2), request(3)]
    expected = [alone(serial, each) for each in asked]
    left = after

    def broken(logits: torch.Tensor) -> list[int]:
        nonlocal left
        if left == 0:
            raise ValueError("of this choice")
        left -= 1
        return likeliest(logits)

    usual = batched._chooser
    monkeypatch.setattr(batched, "_chooser", lambda each: broken if each.seed == 77 else usual(each))
    first, bad, *others = together(batched, [asked[0], replace(request(9), seed=77), *asked[1:]])
    assert [first, *others] == expected
    assert isinstance(bad, ValueError) and left == 0
    while batched._scheduler.under_way:  # its place is given back
        time.sleep(0.001)
    assert together(batched, [request(9)]) == [alone(serial, request(9))]


def test_a_schema_that_turns_out_to_be_too_much_ends_its_own_answer_only(
    serial: TransformersEngine, batched: BatchedEngine
) -> None:
    endless = replace(request(1), schema='{"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}')
    first, bad, last = together(batched, [request(0), endless, request(2)])
    assert [first, last] == [alone(serial, request(0)), alone(serial, request(2))]
    assert isinstance(bad, InhouseError) and "cannot be followed" in str(bad)


def test_a_failure_of_the_model_reaches_everybody_and_the_next_one_is_answered(
    serial: TransformersEngine, batched: BatchedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(rows: Any) -> Any:
        raise RuntimeError("out of memory, say")

    with monkeypatch.context() as patched:
        patched.setattr(batched._ready()[0], "write", broken)
        assert all(isinstance(each, RuntimeError) for each in together(batched, [request(0), request(1)]))
    assert together(batched, [request(0)]) == [alone(serial, request(0))]


def test_more_requests_than_the_pool_holds_take_turns(
    grouped: BaseModel, serial: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inhouse_training.batching.engine.ROOM", 0)
    engine = BatchedEngine(grouped, Path, device="cpu", dtype=torch.float32, streams=8)
    taken: list[bool] = []
    take = Places.take

    def watched(places: Places, size: int, adapter: str) -> Place | None:
        place = take(places, size, adapter)
        taken.append(place is not None)
        return place

    monkeypatch.setattr(Places, "take", watched)
    asked = [request(n, tokens=150, words=500) for n in range(3)]  # two of them fill the pool
    assert together(engine, asked) == [alone(serial, each) for each in asked]
    assert taken[:3] == [True, True, False] and taken.count(True) == 3


def test_models_whose_answers_cannot_be_made_together_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=16,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InhouseError, match="do not attend to everything"):
        BatchedEngine(BaseModel("windowed", tmp_path, "0" * 64, ""), Path, device="cpu", dtype=torch.float32)


def test_the_machine_and_the_setting_choose_the_engine(grouped: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(load_engine(grouped, Path, "on")) is BatchedEngine
    assert type(load_engine(grouped, Path, "off")) is TransformersEngine
    monkeypatch.setattr("inhouse_training.base_model.best_device", lambda: "cpu")
    assert type(load_engine(grouped, Path, "auto")) is TransformersEngine
    assert why_not_exchanged(load_model(grouped, "cpu")) == ""


def test_what_the_figures_are_measured_with_still_runs() -> None:
    command = [sys.executable, "benchmarks/serving.py", "--tiny"]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    told = {name for line in ended.stdout.splitlines() for name in json.loads(line)}
    assert told >= {"check", "alone", "burst", "steady", "generate"}


def test_places_are_given_to_who_fits_and_kept_until_their_room_is_needed() -> None:
    places = Places(100)
    one, two = places.take(40, "a"), places.take(50, "a")
    assert one is not None and two is not None and (one.start, two.start) == (0, 40)
    assert places.take(20, "a") is None
    ids = list(range(30))
    places.give_back(one, ids)
    three = places.take(10, "a")
    assert three is not None and three.start == 30  # behind what is kept of the first
    assert places.same_beginning([*ids, 7, 8], three) == (0, 30)
    assert places.same_beginning(ids, three) == (0, 29)  # one token is left to be read
    assert places.same_beginning([*ids[:20], 99, 98], three) == (0, 20)
    assert places.same_beginning([*ids[:9], 99], three) == (0, 0)
    other = places.take(10, "b")
    assert other is not None and other.start == 90 and places.same_beginning(ids, other) == (0, 0)
    four = places.take(30, "a")
    assert four is not None and four.start == 0  # what was kept has made room
    assert places.same_beginning(ids, three) == (0, 0)


def test_whether_somebody_waits_can_be_asked_while_others_come_and_go() -> None:
    turn, over, gone = FairLock(), Event(), Event()
    gone.set()

    def come_and_go() -> None:
        while not over.is_set():
            with turn.hold(gone):
                pass

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        assert {turn.wanted for _ in range(20_000)} <= {True, False}
    finally:
        over.set()
        sys.setswitchinterval(usual)
        for thread in threads:
            thread.join()
    assert not turn.wanted
