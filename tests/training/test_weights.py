"""In how many bits the base model answers and is judged."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from inhouse_retrieval import InhouseError
from inhouse_server.workspace import Workspace
from inhouse_training import AdapterManifest, BaseModel, TransformersEngine, base_model, weights
from inhouse_training.memory import GIB, predict_judging, shape_of
from inhouse_training.recipe import Recipe, load_recipe
from inhouse_training.weights import is_in_4_bits, loading_arguments, trains_in_4bit, weights_here

from .adapters import random_adapter
from .history import make_history


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "best_device", lambda: "cuda")


def bitsandbytes(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(weights, "has_bitsandbytes", lambda: there)


@pytest.mark.usefixtures("gpu")
def test_what_was_trained_in_4_bits_answers_in_4_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    bitsandbytes(monkeypatch, True)
    assert weights_here("auto", True) == "4bit"
    assert weights_here("auto", False) == "full"
    assert weights_here("full", True) == "full"
    assert weights_here("4bit", False) == "4bit"


@pytest.mark.usefixtures("gpu")
def test_without_bitsandbytes_nothing_is_taken_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    bitsandbytes(monkeypatch, False)
    with pytest.raises(InhouseError, match="The adapter is trained in 4 bit, so answers") as refused:
        weights_here("auto", True)
    assert "inhouse[gpu]" in str(refused.value.remedy)
    assert weights_here("full", True) == "full"


def test_a_processor_has_full_weights(tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "best_device", lambda: "cpu")
    assert weights_here("auto", True) == "full", "it can answer, though not train so"
    with pytest.raises(InhouseError, match="needs a GPU"):
        weights_here("4bit", False)
    with pytest.raises(InhouseError, match="needs a GPU"):
        TransformersEngine(tiny_base, lambda name: tiny_base.path, device="cpu", weights="4bit")


def test_a_manifest_says_how_a_version_was_trained() -> None:
    assert trains_in_4bit(load_recipe("small-gpu").model_dump(mode="json"))
    assert not trains_in_4bit(load_recipe("cpu-trial").model_dump(mode="json")) and not trains_in_4bit({})


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
    assert predict_judging(shape, recipe, True, "full") == predict_judging(shape, whole, True)
    assert predict_judging(shape, recipe, True, "8bit") == predict_judging(shape, recipe, True)
    assert predict_judging(shape, whole, True, "4bit") == predict_judging(shape, recipe, True)


@pytest.mark.usefixtures("gpu")
def test_the_owner_has_the_weights_of_its_current_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_base: BaseModel, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the configured recipe says, which before there is a version decides, and may be gone."""
    bitsandbytes(monkeypatch, True)
    loaded: list[str] = []
    monkeypatch.setattr("inhouse_training.load_engine", lambda base, adapters, batched, weights: loaded.append(weights))
    root = make_history(tmp_path / "shop", commits=2).root
    settings = root / "inhouse.toml"
    settings.write_text(f'base_model = "{tiny_base.path}"\nrecipe = "small-gpu"\n')
    with Workspace.open(root, "test") as house:
        house._load_engine()
        for name, recipe in (("one", {}), ("two", {"trainer": {"load_in_4bit": True}})):
            folder = random_adapter(tiny_base, tmp_path / name, r=4 if recipe else 8)
            manifest = AdapterManifest(tiny_base.name, tiny_base.sha256, name, recipe=recipe)
            house.registry.promote(house.registry.add(folder, manifest).version, "")
            house._load_engine()
    assert loaded == ["4bit", "full", "4bit"]
    settings.write_text(f'base_model = "{tiny_base.path}"\nrecipe = "gone.toml"\n[engine]\nweights = "full"\n')
    with Workspace.open(root, "test") as house:
        house._load_engine()
        house.registry.use_base()
        house._load_engine()
    assert loaded[3:] == ["full", "full"]
    settings.write_text(f'base_model = "{tiny_base.path}"\nrecipe = "gone.toml"\n')
    with Workspace.open(root, "test") as house:
        house._load_engine()
    assert loaded[5:] == ["full"] and "gone.toml" in caplog.text


def test_a_bitsandbytes_that_does_not_work_is_told(tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise ImportError("Using `bitsandbytes` 4-bit quantization requires bitsandbytes>=0.46.1")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)
    with pytest.raises(InhouseError, match="does not load tiny in 4 bit: Using") as told:
        base_model.load_model(tiny_base, "cpu", weights="4bit")
    assert 'engine.weights = "full"' in str(told.value.remedy)
    with pytest.raises(ImportError):  # nothing of ours to say
        base_model.load_model(tiny_base, "cpu")
