"""Whether a retraining has room: beside an owner, in its place, or nowhere; and engines that give their memory back."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from inhouse_training import (
    BASE,
    BaseModel,
    BatchedEngine,
    Device,
    GenerationRequest,
    HeldMemory,
    Message,
    Owner,
    TransformersEngine,
    devices_here,
    load_recipe,
    plan_room,
)
from inhouse_training.devices import MAIN_MEMORY, main_memory
from inhouse_training.memory import GIB, Conditions, predict_judging, predict_memory, shape_of
from inhouse_training.recipe import Recipe

QWEN = BaseModel("Qwen/Qwen2.5-Coder-7B-Instruct", Path(), "", "")
CARD = Device("H100", "GPU-1", 80 * GIB, 78 * GIB)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("default-7b")


def owner(model: float, held: float | None = None, device: str = CARD.identity, why_not: str = "") -> Owner:
    held = model if held is None else held
    return Owner(4711, HeldMemory(device, int(held * GIB), int(model * GIB)), why_not)


def with_free(gib: float) -> tuple[Device]:
    return (replace(CARD, free=int(gib * GIB)),)


def needed(recipe: Recipe, memory: float) -> float:
    """GiB that training takes where so many are free."""
    shape = shape_of(QWEN)
    assert shape is not None
    return predict_memory(shape, recipe, Conditions(True, "trl", int(memory * GIB))).total / GIB


def test_what_fits_beside_the_owner_leaves_it_answering(recipe: Recipe) -> None:
    room = plan_room(recipe, QWEN, with_free(60), owner(18))
    assert room.decision == "beside" and room.memory == 60 * GIB
    assert "beside the owner process (4711), which goes on answering" in room.told and "60.0 GiB are free" in room.told
    assert plan_room(recipe, QWEN, (CARD,), None).told.startswith("It fits: about ")


def test_what_fits_only_without_the_owners_model_lets_it_step_aside(recipe: Recipe) -> None:
    room = plan_room(recipe, QWEN, with_free(12), owner(60, held=62))
    assert room.decision == "step aside" and room.memory == 72 * GIB
    assert "frees 60.0 GiB" in room.told and "holds 62.0 GiB, 60.0 GiB of them for its model" in room.told
    assert "others 6.0 GiB" in room.told and "refused with 503" in room.told


def test_beside_an_owner_its_answers_keep_a_margin(recipe: Recipe) -> None:
    quarters = (number / 4 for number in range(320, 0, -1))
    tight = next(gib for gib in quarters if plan_room(recipe, QWEN, with_free(gib), owner(30)).decision != "beside")
    assert plan_room(recipe, QWEN, with_free(tight), owner(30)).decision == "step aside"
    assert plan_room(recipe, QWEN, with_free(tight), None).told.startswith("It fits: ")


@pytest.mark.parametrize("kept", ["step_aside = false", "another server"])
def test_an_owner_that_may_not_or_cannot_step_aside_is_not_asked(recipe: Recipe, kept: str) -> None:
    room = plan_room(recipe, QWEN, with_free(12), owner(60, why_not=f"Because of {kept}."))
    assert room.decision == "refuse" and f"Because of {kept}." in room.told
    assert "is asked" not in room.told


def test_what_fits_in_no_way_is_refused_with_who_holds_how_much_and_what_would_fit(recipe: Recipe) -> None:
    # Another repository's owner, a notebook: nobody here knows.
    room = plan_room(recipe, QWEN, with_free(21), owner(0.5))
    assert room.decision == "refuse" and "others 58.5 GiB" in room.told
    assert "would fit" in room.remedy
    assert "that are not known here hold 59.0 GiB" in plan_room(recipe, QWEN, with_free(21), None).told


def test_an_owner_on_another_card_is_none_of_this(recipe: Recipe) -> None:
    room = plan_room(recipe, QWEN, with_free(12), owner(60, device="GPU-2"))
    assert room.decision == "refuse" and "4711" not in room.told


def test_with_less_that_is_free_more_layers_are_computed_again(recipe: Recipe) -> None:
    assert needed(recipe, 24) < needed(recipe, 79)
    assert plan_room(recipe, QWEN, with_free(needed(recipe, 24) / 0.88 + 6), owner(30)).decision == "beside"


def test_judging_counts_and_refuses_nothing_by_itself(recipe: Recipe) -> None:
    four_bit = load_recipe("small-gpu")
    shape = shape_of(QWEN)
    assert shape is not None
    # In 4 bit, as it was trained, 10.8 GiB were measured (docs/measurements.md); with full weights a T4 has no room.
    assert 10.8 < predict_judging(shape, four_bit, True) / GIB < 1.12 * 10.8
    assert predict_judging(shape, four_bit, True, "full") / GIB > 15
    plain = recipe.model_copy(update={"lora": recipe.lora.model_copy(update={"rank": 1})})
    least, judging = needed(plain, 1), predict_judging(shape, plain, True) / GIB  # all layers computed again
    assert least < judging
    told = plan_room(plain, QWEN, with_free((least + judging) / 2), None)
    assert told.decision == "beside" and "Judging may take" in told.told


def test_on_a_processor_nothing_is_refused(tiny_base: BaseModel, tiny_recipe: Recipe) -> None:
    memory = Device("this machine", MAIN_MEMORY, 8 * GIB, GIB // 8)
    room = plan_room(tiny_recipe, tiny_base, (memory,), None)
    assert room.decision == "beside" and "swaps" in room.told
    beside = Owner(4711, HeldMemory(MAIN_MEMORY, 3 * GIB, 2 * GIB))
    assert plan_room(tiny_recipe, tiny_base, (memory,), beside).decision == "step aside"


def test_what_nobody_can_predict_is_trained_in_the_owners_place(recipe: Recipe) -> None:
    unknown = BaseModel("acme/other", Path(), "", "")
    assert plan_room(recipe, unknown, with_free(50), owner(20)).decision == "step aside"
    assert plan_room(recipe, unknown, with_free(50), None).decision == "beside"


def test_a_containers_bound_counts_and_files_that_it_read_do_not(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:   12000000 kB\n")
    whole = main_memory(tmp_path / "meminfo", tmp_path)
    assert (whole.total, whole.free, whole.gpu) == (16_384_000_000, 12_288_000_000, False)
    for name, value in (("max", "4000000000\n"), ("current", "3500000000\n"), ("stat", "anon 1\ninactive_file 7\n")):
        (tmp_path / f"memory.{name}").write_text(value)
    bounded = main_memory(tmp_path / "meminfo", tmp_path)
    assert (bounded.total, bounded.free) == (4_000_000_000, 500_000_007)
    (tmp_path / "memory.max").write_text("max\n")
    assert main_memory(tmp_path / "meminfo", tmp_path) == whole


def test_this_machine_has_memory() -> None:
    for device in devices_here():
        assert 0 < device.free <= device.total


@pytest.mark.parametrize("kind", [TransformersEngine, BatchedEngine])
def test_a_closed_engine_has_given_everything_back(tiny_base: BaseModel, kind: type[TransformersEngine]) -> None:
    from threading import Event

    engine = kind(tiny_base, lambda version: Path(), device="cpu")
    asked = GenerationRequest((Message("user", "When do couriers come?"),), BASE, max_tokens=4)
    assert list(engine.stream(asked, Event()))
    parameters = sum(each.nbytes for each in engine._causal.parameters())
    assert engine.held_memory().model >= parameters
    gone = weakref.ref(engine._causal)
    engine.close()
    gc.collect()
    assert gone() is None and engine.held_memory().model == 0
