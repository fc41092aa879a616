"""In how many bits the base model answers and is judged."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from inhouse_retrieval import InhouseError
from inhouse_training import BaseModel, TransformersEngine, base_model, weights
from inhouse_training.memory import GIB, predict_judging, shape_of
from inhouse_training.recipe import Recipe, load_recipe
from inhouse_training.weights import is_in_4_bits, loading_arguments, weights_here


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "best_device", lambda: "cuda")


def bitsandbytes(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: object() if there else None)


@pytest.mark.usefixtures("gpu")
def test_what_was_trained_in_4_bits_answers_in_4_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    bitsandbytes(monkeypatch, True)
    assert weights_here("auto", load_recipe("small-gpu")) == "4bit"
    assert weights_here("auto", load_recipe("default-7b")) == "full"
    assert weights_here("full", load_recipe("small-gpu")) == "full"
    assert weights_here("4bit", load_recipe("default-7b")) == "4bit"


@pytest.mark.usefixtures("gpu")
def test_without_bitsandbytes_nothing_is_taken_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    bitsandbytes(monkeypatch, False)
    with pytest.raises(InhouseError, match="The recipe small-gpu trains in 4 bit, so answers") as refused:
        weights_here("auto", load_recipe("small-gpu"))
    assert "inhouse[gpu]" in str(refused.value.remedy)
    assert weights_here("full", load_recipe("small-gpu")) == "full"


def test_a_processor_has_full_weights(tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "best_device", lambda: "cpu")
    assert weights_here("auto", load_recipe("small-gpu")) == "full", "it can answer, though not train so"
    with pytest.raises(InhouseError, match="needs a GPU"):
        weights_here("4bit", load_recipe("cpu-trial"))
    with pytest.raises(InhouseError, match="needs a GPU"):
        TransformersEngine(tiny_base, lambda name: tiny_base.path, device="cpu", weights="4bit")


def test_4_bits_are_those_of_qlora() -> None:
    import torch

    assert loading_arguments("full", "cuda", torch.float16) == {}
    told = loading_arguments("4bit", "cuda", torch.float16)
    config = told["quantization_config"]
    assert (config.load_in_4bit, config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert config.bnb_4bit_compute_dtype == torch.float16 and told["device_map"] == {"": "cuda"}


def test_layers_of_bitsandbytes_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    class Linear4bit:
        pass

    assert not is_in_4_bits(Linear4bit())
    module: Any = ModuleType("bitsandbytes")
    module.nn = ModuleType("bitsandbytes.nn")
    module.nn.Linear4bit = Linear4bit
    monkeypatch.setitem(sys.modules, "bitsandbytes", module)
    assert is_in_4_bits(Linear4bit()) and not is_in_4_bits(object())


def test_judging_a_7b_model_in_4_bits_fits_a_card_of_16_gb(tiny_base: BaseModel) -> None:
    recipe = load_recipe("small-gpu")
    shape = shape_of(BaseModel(recipe.base_model, tiny_base.path, "", ""))
    assert shape is not None, "its shape ships with the package"
    whole: Recipe = recipe.model_copy(update={"trainer": recipe.trainer.model_copy(update={"load_in_4bit": False})})
    assert predict_judging(shape, recipe, gpu=True) < 14.7 * GIB < predict_judging(shape, whole, gpu=True)
