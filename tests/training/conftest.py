"""What the training tests share: a tokenizer, a tiny random model, small recipes, small real repositories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import Repository
from inhouse_training import BaseModel, load_tokenizer
from inhouse_training.recipe import Recipe, parse_recipe

from .history import make_history

TINY = """
base_model = "tiny"
[data]
max_tokens = 192
max_train_tokens = {budget}
[lora]
rank = 4
alpha = 4
[optimizer]
learning_rate = {rate}
max_passes = 1
batch_rows = 2
accumulate = 2
[trainer]
kind = "trl"
checkpoint_seconds = 0
[evaluation]
prompt_tokens = 320
scored_tokens = 16
probe_questions = 4
probe_tokens = 8
"""


@pytest.fixture(scope="session")
def tokenizer(base_model: BaseModel) -> Any:
    """SmolLM2's."""
    return load_tokenizer(base_model)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> BaseModel:
    """Two random layers with a real tokenizer: for what does not depend on what a model knows."""
    path = make_tiny(tmp_path_factory.mktemp("tiny"), tokenizer)
    return BaseModel("tiny", path, "0" * 64, "")


@pytest.fixture(scope="session")
def grouped(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> BaseModel:
    """As the tiny one, but four query heads share two key-value heads, as in most models of today."""
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64, "initializer_range": 0.2}
    return BaseModel("tiny", make_tiny(tmp_path_factory.mktemp("grouped"), tokenizer, **sizes), "0" * 64, "")


def make_tiny(path: Path, tokenizer: Any, **sizes: Any) -> Path:
    """The folder of a base model of two random layers."""
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(1)
    usual: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **{**usual, **sizes})).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def tiny_recipe() -> Recipe:
    """Eight steps or so."""
    return parse_recipe(TINY.format(budget=6000, rate=1e-3), "tiny", "tiny.toml")


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository of 24 plain commits, each of which adds one handler; the first only sets the house up."""
    return make_history(tmp_path_factory.mktemp("history") / "shop", commits=24)
