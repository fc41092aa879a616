"""What other programs load: PEFT, merged safetensors, and a GGUF adapter that llama.cpp's own server reads."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from inhouse_retrieval import InhouseError
from inhouse_training import AdapterManifest, BaseModel, Registry, export_adapter, load_model, load_tokenizer
from inhouse_training import export as export_module
from inhouse_training.export import vllm_check
from inhouse_training.registry import WEIGHTS_NAME

from ..server.test_openai_engine import Server
from .adapters import random_adapter
from .conftest import make_tiny

PROMPTS = ("def charge(customer, pennies):\n    return", "The courier comes at", "import os\nimport", "Once upon a")


def register(folder: Path, base: BaseModel, **changed: Any) -> tuple[Registry, str]:
    registry = Registry(folder / "adapters")
    adapter = random_adapter(base, folder / "made", **changed)
    return registry, registry.add(adapter, AdapterManifest(base.name, base.sha256, "abc")).version


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> BaseModel:
    """Two random layers with fewer key heads than query heads, which only a right permutation survives."""
    folder = make_tiny(tmp_path_factory.mktemp("small"), tokenizer, num_attention_heads=4, num_key_value_heads=2)
    return BaseModel("tiny", folder, "1" * 64, "")


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, small: BaseModel) -> tuple[Registry, str]:
    return register(tmp_path_factory.mktemp("registered"), small)


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    ids = tokenizer(PROMPTS[0], return_tensors="pt").input_ids
    with torch.inference_mode():
        found: torch.Tensor = model(ids).logits
    return found


def test_peft_and_merged_are_what_their_own_loaders_expect(
    registered: tuple[Registry, str], small: BaseModel, tokenizer: Any, tmp_path: Path
) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    registry, version = registered
    stages: list[str] = []
    peft = export_adapter(registry, version, small, tmp_path / "peft", "peft", lambda stage, *_: stages.append(stage))
    merged = export_adapter(registry, version, small, tmp_path / "merged", "merged")
    for made in (peft, merged):
        assert made.difference <= made.bound and made.vllm_loads, made
        assert math.isclose(made.registered_loss, merged.registered_loss)
    assert stages == ["scoring the registered version", "writing peft", "scoring the export"]
    ours = logits(AutoPeftModelForCausalLM.from_pretrained(peft.path).eval(), tokenizer)
    theirs = logits(
        AutoModelForCausalLM.from_pretrained(merged.path).eval(), AutoTokenizer.from_pretrained(merged.path)
    )
    assert torch.allclose(ours, theirs, atol=1e-4)
    base = logits(load_model(small, "cpu", torch.float32), tokenizer)
    assert not torch.allclose(ours, base, atol=1e-2), "the adapter does something"
    assert {path.name for path in (tmp_path / "peft").iterdir()} == {
        "adapter_config.json",
        WEIGHTS_NAME,
        "manifest.json",
    }
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    json.dumps(peft.to_json())


def test_what_was_fitted_to_weights_in_4_bit_is_told(small: BaseModel, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "adapters")
    for told, recipe in ((False, {}), (True, {"trainer": {"load_in_4bit": True}})):
        adapter = random_adapter(small, tmp_path / f"made-{told}", r=4 if told else 8)
        version = registry.add(adapter, AdapterManifest(small.name, small.sha256, str(told), recipe=recipe)).version
        made = export_adapter(registry, version, small, tmp_path / f"out-{told}", "peft")
        assert made.trained_in_4bit is told is made.to_json()["trained_in_4bit"]


@pytest.mark.long
def test_a_gguf_adapter_comes_back_as_it_was(
    registered: tuple[Registry, str], small: BaseModel, tmp_path: Path
) -> None:
    import gguf

    registry, version = registered
    made = export_adapter(registry, version, small, tmp_path / "gguf", "gguf")
    assert made.difference <= made.bound
    reader = gguf.GGUFReader(made.path)
    told = {key: field.contents() for key, field in reader.fields.items() if "." in key and "GGUF" not in key}
    assert told["general.type"] == "adapter" and told["adapter.type"] == "lora"
    assert told["general.architecture"] == "llama" and told["adapter.lora.alpha"] == 16
    names = {tensor.name for tensor in reader.tensors}
    assert len(names) == 2 * 7 * 2 and {"blk.0.attn_q.weight.lora_a", "blk.1.ffn_down.weight.lora_b"} <= names


def test_an_export_that_scores_differently_is_not_kept(
    registered: tuple[Registry, str], small: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, version = registered
    # The mistake that is easiest to make with llama.cpp: rows of q and k in the order of the other program.
    monkeypatch.setattr(export_module, "_interleave", lambda rows, heads: rows)
    with pytest.raises(InhouseError, match="nats per token"):
        export_adapter(registry, version, small, tmp_path / "gguf", "gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_what_cannot_be_exported_is_told(registered: tuple[Registry, str], small: BaseModel, tmp_path: Path) -> None:
    registry, version = registered
    other = dataclasses.replace(small, sha256="2" * 64, name="other")
    with pytest.raises(InhouseError, match="was made for tiny"):
        export_adapter(registry, version, other, tmp_path / "new", "peft")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("ours")
    with pytest.raises(InhouseError, match="exists already"):
        export_adapter(registry, version, small, tmp_path / "full", "peft")
    stabilised, name = register(tmp_path / "stabilised", small, use_rslora=True)
    with pytest.raises(InhouseError, match="one scale for all modules"):
        export_adapter(stabilised, name, small, tmp_path / "new", "gguf")
    assert not (tmp_path / "new").exists()
    with pytest.raises(InhouseError, match="cannot be written"):
        export_adapter(registry, version, small, tmp_path / "full" / "notes" / "new", "peft")


@pytest.mark.parametrize(
    ("changed", "loads", "note"),
    [
        ({}, True, "--max-lora-rank 16"),
        ({"r": 4}, True, "--max-lora-rank 8"),
        ({"r": 768}, False, "512 at most"),
        ({"rank_pattern": {"q_proj": 64}}, True, "--max-lora-rank 64"),
        ({"rank_pattern": {"q_proj": 768}}, False, "512 at most"),
        ({"init_lora_weights": "eva"}, True, "--max-lora-rank 16"),
        ({"init_lora_weights": "pissa"}, False, "pissa"),
        ({"lora_bias": True}, False, "bias"),
        ({"layer_replication": [[0, 2]]}, False, "repeats"),
        ({"modules_to_save": ["lm_head"]}, False, "lm_head"),
        ({"bias": "all"}, False, "bias"),
        ({"use_dora": True}, False, "DoRA"),
        ({"use_rslora": True}, False, "rank-stabilised"),
        ({"peft_type": "IA3"}, False, "IA3"),
    ],
)
def test_what_vllm_loads(changed: dict[str, Any], loads: bool, note: str) -> None:
    verdict = vllm_check({"peft_type": "LORA", "r": 16, "bias": "none", "modules_to_save": None, **changed})
    assert verdict[0] == loads and note in verdict[1]


# ----------------------------------------------------------------------------------------------------------
# The real model with llama.cpp's server


def next_logprobs(server: Server, ids: list[int]) -> dict[int, float]:
    """What the server gives the likeliest next tokens, in nats."""
    asked = {"prompt": ids, "n_predict": 1, "n_probs": 5, "temperature": 0, "cache_prompt": False}
    (first,) = server.get("/completion", asked)["completion_probabilities"]  # type: ignore[index]
    return {entry["id"]: entry["logprob"] for entry in first["top_logprobs"]}


@pytest.fixture
def served(base_model: BaseModel, tmp_path: Path) -> Iterator[tuple[Server, Path, Path]]:
    registry, version = register(tmp_path, base_model)
    made = export_adapter(registry, version, base_model, tmp_path / "gguf", "gguf")
    (gguf,) = base_model.path.glob("*.gguf")
    server = Server(gguf, made.path)
    yield server, registry.verify(version), gguf
    server.kill()


@pytest.mark.long  # the real model three times over
def test_llama_cpp_answers_with_the_adapter_as_we_do(served: tuple[Server, Path, Path], base_model: BaseModel) -> None:
    from peft import PeftModel

    server, adapter, gguf = served
    tokenizer = load_tokenizer(base_model)
    model = PeftModel.from_pretrained(load_model(base_model, "cpu", torch.float32), adapter).eval()
    plain = Server(gguf)
    try:
        apart: list[float] = []
        from_base: list[float] = []
        for prompt in PROMPTS:
            ids = tokenizer(prompt).input_ids
            with torch.inference_mode():
                ours = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            theirs = next_logprobs(server, ids)
            apart += [abs(float(ours[token]) - logprob) for token, logprob in theirs.items()]
            from_base += [abs(float(ours[token]) - logprob) for token, logprob in next_logprobs(plain, ids).items()]
    finally:
        plain.kill()
    # llama.cpp multiplies with 8-bit activations. Measured: 0.10 nats on average, and 0.12 between the two programs on
    # the base model alone; 0.50 with the rows of q and k in the wrong order, 2.8 without the adapter.
    assert sum(apart) / len(apart) < 0.25 and sum(from_base) / len(from_base) > 1
