"""What a CPU computes in its own way is what the model's layers compute."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from inhouse_training import (
    BASE,
    BaseModel,
    GenerationRequest,
    Message,
    ScoredRow,
    TextDelta,
    TransformersEngine,
    chat_ids,
    cpu,
    load_model,
)
from inhouse_training.base_model import cpu_flags
from inhouse_training.cpu import PackedLinear, WideLinear, cached_attention, exchange_layers

from .adapters import random_adapter
from .conftest import make_tiny


@pytest.mark.parametrize(("new", "tokens"), [(1, 1), (7, 7), (1, 40), (5, 40), (33, 70)])
@pytest.mark.parametrize("groups", [3, 9])
def test_attention_to_a_cache_is_attention_with_a_mask(new: int, tokens: int, groups: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(1, new, 9, 16).transpose(1, 2)
    room = torch.randn(2, 1, groups, tokens + 20, 16)  # a cache with room to grow, as the engine's
    key, value = room[0][:, :, :tokens], room[1][:, :, :tokens]
    mask = torch.ones(new, tokens, dtype=torch.bool).tril(tokens - new)
    wanted = scaled_dot_product_attention(
        query.double(), key.double(), value.double(), attn_mask=mask, scale=0.2, enable_gqa=True
    )
    attended, _ = cached_attention(None, query, key, value, None, scaling=0.2)
    assert attended.shape == (1, new, 9, 16)
    assert torch.allclose(attended.transpose(1, 2).double(), wanted, atol=1e-5)


@pytest.mark.parametrize(("count", "new", "tokens"), [(1, 64, 64), (1, 200, 200), (2, 150, 150), (1, 70, 300)])
@pytest.mark.parametrize("groups", [3, 9])
@pytest.mark.parametrize("scale", [0.2, None])
def test_attention_in_blocks_is_attention_with_a_mask(
    count: int, new: int, tokens: int, groups: int, scale: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = frozenset({"avx512_bf16"})
    monkeypatch.setattr(cpu, "cpu_flags", lambda: flags)
    torch.manual_seed(0)
    query = torch.randn(count, new, 9, 16).bfloat16().transpose(1, 2)
    room = torch.randn(2, count, groups, tokens + 20, 16).bfloat16()
    key, value = room[0][:, :, :tokens], room[1][:, :, :tokens]
    mask = torch.ones(new, tokens, dtype=torch.bool).tril(tokens - new)
    wanted = scaled_dot_product_attention(
        query.double(), key.double(), value.double(), attn_mask=mask, scale=scale, enable_gqa=True
    )
    attended, _ = cached_attention(None, query, key, value, None, scaling=scale)
    assert attended.shape == (count, new, 9, 16) and attended.dtype == torch.bfloat16
    assert torch.allclose(attended.transpose(1, 2).double(), wanted, atol=0.03)

    # Without a product of bfloat16, or with AMX, torch's own attention is asked.
    monkeypatch.setattr(cpu, "_in_blocks", lambda *given: pytest.fail("in blocks"))
    with pytest.raises(pytest.fail.Exception, match="in blocks"):
        cached_attention(None, query, key, value, None, scaling=scale)
    flags |= {"amx_bf16"}
    cached_attention(None, query[:1], key[:1], value[:1], None, scaling=scale)
    flags = frozenset()
    cached_attention(None, query[:1], key[:1], value[:1], None, scaling=scale)


@pytest.mark.parametrize("rows", [1, 3, 5, 40, 100])
@pytest.mark.parametrize("bias", [False, True])
def test_a_wide_layer_is_the_layer_that_it_was_made_of(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(64, 512, bias=bias)
    wide = WideLinear.of(plain)
    given = torch.randn(1, rows, 64)
    assert torch.allclose(wide(given), plain(given), atol=1e-5)
    assert wide.weight.shape == plain.weight.shape and wide.weight.stride() == (1, 512)
    with torch.no_grad():  # as an adapter is merged
        wide.weight.data += 1.0
        assert torch.allclose(wide(given), plain(given) + given.sum(-1, keepdim=True), atol=1e-4)


def torch_packs() -> bool:
    """Whether torch brings weights in bfloat16 into oneDNN's order on this processor: not with AVX2 alone."""
    try:
        torch.ops.mkldnn._reorder_linear_weight(torch.zeros(16, 16, dtype=torch.bfloat16), None)
    except RuntimeError:
        return False
    return True


def test_what_torch_does_not_pack_is_left_as_it_is() -> None:
    model = Layers(torch.nn.Linear(64, 512)).bfloat16().requires_grad_(False)
    exchange_layers(model)
    multiplied = bool({"avx512_bf16", "amx_bf16"} & cpu_flags())
    assert type(model[0]) is (PackedLinear if multiplied else torch.nn.Linear)
    assert torch_packs() or not multiplied, "what is exchanged can be packed"


@pytest.mark.parametrize("rows", [1, 3, 40, 100])
@pytest.mark.parametrize("bias", [False, True])
def test_a_packed_layer_is_the_layer_that_it_was_made_of(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(64, 512, bias=bias).bfloat16().requires_grad_(False)
    if not torch_packs():
        with pytest.raises(RuntimeError, match="needs the cpu support"):
            PackedLinear.of(plain)
        return
    packed = PackedLinear.of(plain)
    given = torch.randn(1, rows, 64).bfloat16()

    def exact() -> torch.Tensor:
        return torch.nn.functional.linear(
            given.float(), plain.weight.float(), plain.bias.float() if plain.bias is not None else None
        )

    with torch.inference_mode():
        assert packed(given).shape == (1, rows, 512) and torch.allclose(packed(given).float(), exact(), atol=0.02)
    with torch.no_grad():  # as an adapter is merged
        packed.weight += 1.0
        packed.pack()
        assert torch.allclose(packed(given).float(), exact(), rtol=0.01, atol=0.05)
    # The plain weight is what gradients are made with.
    asked = torch.randn(1, rows, 64).bfloat16().requires_grad_()
    packed(asked).sum().backward()
    assert asked.grad is not None and torch.equal(asked.grad[0, 0], plain.weight.sum(0))


@pytest.mark.parametrize("rows", [1, 3, 4, 9, 63, 64])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 512), (512, 64)])
def test_a_packed_layer_in_float32_is_the_layer_that_it_was_made_of(
    rows: int, inputs: int, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(inputs, outputs).requires_grad_(False)
    packed = PackedLinear.of(plain)
    given = torch.randn(1, rows, inputs)
    with torch.inference_mode():
        assert torch.allclose(packed(given), plain(given), atol=1e-5)
    wanted = plain(given) + given.sum(-1, keepdim=True)
    with torch.no_grad():  # as an adapter is merged
        packed.weight.copy_(plain.weight + 1.0)
        packed.pack()
        assert torch.allclose(packed(given), wanted, atol=1e-3)
    assert (packed.weight.stride() == (1, outputs)) is (outputs > inputs), "few rows read a wide weight by input"
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", lambda *given: pytest.fail("packed"))
    with torch.inference_mode(), pytest.raises(pytest.fail.Exception) if 4 <= rows < 64 else contextlib.nullcontext():
        packed(given)


class Layers(torch.nn.Sequential):
    """Layers that say in which type they are, as a model of transformers does."""

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


def test_only_plain_layers_are_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(torch.nn.Linear):
        pass

    def exchanged(dtype: torch.dtype) -> list[type]:
        model = Layers(torch.nn.Linear(8, 16), torch.nn.Linear(16, 8), Own(8, 16)).to(dtype).requires_grad_(False)
        exchange_layers(model)
        return [type(each) for each in model]

    assert exchanged(torch.float32) == [PackedLinear, PackedLinear, Own]
    monkeypatch.setattr(PackedLinear, "pack", lambda layer: None)  # which this processor need not do
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    assert exchanged(torch.bfloat16) == [PackedLinear, PackedLinear, Own]
    # Where the processor does not multiply bfloat16, or the weights are too many to be held twice, nothing is packed.
    monkeypatch.setattr(cpu, "_MOST_PACKED", 2 * 2 * 8 * 16 - 1)
    assert exchanged(torch.bfloat16) == [torch.nn.Linear, torch.nn.Linear, Own]
    assert exchanged(torch.float32) == [WideLinear, torch.nn.Linear, Own]
    monkeypatch.undo()
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset({"avx2"}))
    assert exchanged(torch.bfloat16) == [torch.nn.Linear, torch.nn.Linear, Own]


def test_an_adapter_in_bfloat16_is_rounded_once_and_the_base_comes_back_whole(tokenizer: Any, tmp_path: Path) -> None:
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64, "intermediate_size": 256}
    base = BaseModel("tiny", make_tiny(tmp_path / "base", tokenizer, **sizes, initializer_range=0.2), "0" * 64, "")
    folder = random_adapter(base, tmp_path / "one")
    engine = TransformersEngine(base, lambda name: folder, device="cpu", dtype=torch.bfloat16)
    exact = TransformersEngine(base, lambda name: folder, device="cpu", dtype=torch.float32)
    row = [ScoredRow(tuple(range(5, 45)), tuple(range(5, 45)))]

    def weights(of: TransformersEngine) -> dict[str, torch.Tensor]:
        return {
            name.replace(".base_layer", ""): weight.clone()
            for name, weight in of._causal.named_parameters()
            if name.endswith(("proj.weight", "base_layer.weight"))
        }

    first, (before,) = weights(engine), engine.score(row, BASE)
    (tuned,), (wanted,) = engine.score(row, "one"), exact.score(row, "one")
    merged, in_float32 = weights(engine), weights(exact)
    assert merged.keys() == in_float32.keys() == first.keys() and first
    changed = [name for name in merged if not torch.equal(merged[name], first[name])]
    assert len(changed) >= len(merged) - 2, "the adapter has every layer but the last"
    for name, weight in merged.items():  # the adapter's own matrices are rounded, the sum with the base once
        assert torch.allclose(weight.float(), in_float32[name], rtol=0.01, atol=0.02), name
        assert float((weight == in_float32[name].bfloat16()).float().mean()) > 0.5, name
    assert abs(tuned.nats - wanted.nats) / tuned.tokens < 0.05 < abs(tuned.nats - before.nats) / tuned.tokens
    (again,) = engine.score(row, BASE)
    assert again.nats == before.nats
    assert all(torch.equal(weight, first[name]) for name, weight in weights(engine).items())
    if {"avx512_bf16", "amx_bf16"} & cpu_flags():
        assert any(isinstance(each, PackedLinear) for each in engine._causal.modules())


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_norms_are_those_of_the_model_bit_for_bit(family: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(family, vocab_size=50, num_key_value_heads=2, **sizes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).requires_grad_(False)
    norm = model.model.norm
    torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
    given = torch.randn(1, 7, 64)
    wanted = norm(given)
    exchange_layers(model)
    assert type(model.model.norm) is torch.nn.RMSNorm is type(model.model.layers[0].input_layernorm)
    assert torch.equal(model.model.norm(given), wanted)
    rounded = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).requires_grad_(False)
    exchange_layers(rounded)
    assert type(rounded.model.norm) is not torch.nn.RMSNorm, "its sums are rounded in another place"


def test_the_engine_says_what_generate_says(tokenizer: Any, tmp_path: Path) -> None:
    """Prompts of one block and of several, read anew and from where the last one differed, base and adapter in turn."""
    from peft import PeftModel

    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64, "intermediate_size": 256}
    base = BaseModel("tiny", make_tiny(tmp_path / "base", tokenizer, **sizes, initializer_range=0.2), "0" * 64, "")
    folder = random_adapter(base, tmp_path / "one")
    engine = TransformersEngine(base, lambda name: folder, device="cpu", dtype=torch.float32)
    models = {BASE: load_model(base, "cpu", torch.float32)}
    models["one"] = PeftModel.from_pretrained(load_model(base, "cpu", torch.float32), folder).eval()
    assert any(isinstance(each, PackedLinear) for each in engine._causal.modules())
    text = "def total(self): return sum(line.price for line in self.lines) # class Order\n"
    for adapter, asked in [
        (adapter, text * lines + question)
        for adapter in (BASE, "one", BASE)
        for lines, question in ((2, "Why?"), (60, "Why?"), (60, "What is it for?"), (30, "Why?"))
    ]:
        messages = (Message("user", asked),)
        prompt = torch.tensor([chat_ids(tokenizer, messages, add_generation_prompt=True)])
        with torch.inference_mode():
            made = models[adapter].generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False
            )
        events = engine.stream(GenerationRequest(messages, adapter, 24), Event())
        said = "".join(each.text for each in events if isinstance(each, TextDelta))
        assert said == tokenizer.decode(made[0, prompt.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize(
    ("chosen", "looks"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)]
)
def test_threads_look_briefly_before_they_sleep_unless_someone_chose_otherwise(
    chosen: dict[str, str], looks: str | None
) -> None:
    kept = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    asked = "import os, inhouse_training; print(os.environ['OMP_WAIT_POLICY'], os.environ.get('GOMP_SPINCOUNT'))"
    told = subprocess.run([sys.executable, "-c", asked], env=kept | chosen, capture_output=True, text=True, check=True)
    assert told.stdout.split() == [chosen.get("OMP_WAIT_POLICY", "PASSIVE"), str(looks)]
