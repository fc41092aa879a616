"""Answers with weights in 8 bits, by OpenVINO, beside the same model in float32 by transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inhouse_retrieval import InhouseError
from inhouse_server.workspace import Workspace
from inhouse_training import (
    BASE,
    AdapterManifest,
    BaseModel,
    Finished,
    GenerationRequest,
    Message,
    ScoredRow,
    TextDelta,
    TransformersEngine,
    answering_weights,
    load_engine,
    resolve_base_model,
    weights,
)
from inhouse_training import (
    base_model as base_models,
)
from inhouse_training.eight_bits import model, versions
from inhouse_training.eight_bits.engine import EightBitEngine
from inhouse_training.eight_bits.graph import GROUP, rounded, why_not

from .adapters import random_adapter
from .conftest import make_tiny
from .history import make_history

QUESTION = (Message("user", "What is a git commit?"),)
CODE = "def add(a: int, b: int) -> int:\n    return a + b\n\n\nclass Point:\n    x: int\n    y: int\n" * 12
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}


def no_adapter(name: str) -> Path:
    raise InhouseError(f"There is no {name}.")


def row(tokenizer: Any, text: str) -> ScoredRow:
    ids = tuple(tokenizer(text)["input_ids"])
    return ScoredRow(ids, (-100, *ids[1:]))


def logits_of(engine: Any, ids: list[int], adapter: str = BASE) -> torch.Tensor:
    engine._activate(adapter)
    logits: torch.Tensor = engine._new_conversation().forward(ids, len(ids)).float()
    return logits


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far logits are from others, as a part of their spread."""
    return float((one - other).pow(2).mean().sqrt() / other.std())


def say(engine: Any, **asked: Any) -> tuple[str, Finished]:
    *deltas, last = engine.stream(GenerationRequest(asked.pop("messages", QUESTION), **asked), Event())
    assert isinstance(last, Finished)
    return "".join(each.text for each in deltas if isinstance(each, TextDelta)), last


def family(name: str, path: Path, tokenizer: Any, **changed: Any) -> BaseModel:
    """A base model of two layers, all of whose parameters are random, biases and norms among them."""
    import transformers

    config = getattr(transformers, f"{name}Config")(
        vocab_size=len(tokenizer), max_position_embeddings=512, **{**SIZES, **changed}
    )
    torch.manual_seed(3)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.2)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return BaseModel(name, path, "0" * 64, "")


LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("Llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
        ("Llama", {"num_key_value_heads": 4, "rope_parameters": LLAMA3}),
        ("Llama", {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True, "head_dim": 32}),
        ("Llama", {"hidden_size": 72, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 24}),
        ("Mistral", {"num_key_value_heads": 2, "sliding_window": None}),
        ("Qwen2", {"num_key_value_heads": 2}),
        ("Qwen3", {"num_key_value_heads": 2, "head_dim": 32}),
    ],
)
def test_each_family_is_computed_as_transformers_does(
    name: str, changed: dict[str, Any], tmp_path: Path, tokenizer: Any
) -> None:
    base = family(name, tmp_path, tokenizer, **changed)
    ids = tokenizer(CODE)["input_ids"][:300]
    wanted = logits_of(TransformersEngine(base, no_adapter, device="cpu", dtype=torch.float32), ids)
    found = logits_of(EightBitEngine(base, no_adapter), ids)
    assert apart(found, wanted) < 0.15
    assert apart(found, wanted.roll(1, 0)) > 0.5, "they say something"


def test_a_real_model_loses_a_few_thousandths_of_a_nat(base_model: BaseModel, tokenizer: Any) -> None:
    rows = [row(tokenizer, Path(weights.__file__).read_text()), row(tokenizer, CODE)]
    full = TransformersEngine(base_model, no_adapter, device="cpu", dtype=torch.float32).score(rows)
    for one, other in zip(EightBitEngine(base_model, no_adapter).score(rows), full, strict=True):
        assert one.tokens == other.tokens
        assert abs(one.nats - other.nats) / one.tokens < 0.015


def test_an_adapter_is_in_its_version_and_not_in_the_base(
    tmp_path: Path, base_model: BaseModel, tokenizer: Any
) -> None:
    folder = random_adapter(base_model, tmp_path / "v1")
    ids = tokenizer(CODE)["input_ids"][:100]
    engine = EightBitEngine(base_model, lambda name: folder)
    before = logits_of(engine, ids)
    found = logits_of(engine, ids, "v1")
    wanted = logits_of(
        TransformersEngine(base_model, lambda name: folder, device="cpu", dtype=torch.float32), ids, "v1"
    )
    assert apart(found, wanted) < 0.1 < 0.5 < apart(found, before)
    assert torch.equal(logits_of(engine, ids), before)
    assert engine.loaded_adapters == ("v1",)


def test_what_is_forgotten_leaves_no_trace(base_model: BaseModel, tokenizer: Any) -> None:
    engine = EightBitEngine(base_model, no_adapter)
    ids = tokenizer(CODE)["input_ids"][:200]
    wanted = logits_of(engine, ids)[150:]
    conversation = engine._new_conversation()
    conversation.forward(ids[:150], 1)
    conversation.forward(ids[:40], 1)
    conversation.forget(40)
    assert conversation.read == ids[:150]
    assert apart(conversation.forward(ids[150:], 50), wanted) < 0.02


def test_the_next_question_is_read_from_where_it_differs(
    base_model: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = EightBitEngine(base_model, no_adapter)
    read: list[int] = []
    run = model.Model.forward

    def counted(made: Any, pieces: Sequence[model.Piece]) -> torch.Tensor:
        read.append(sum(len(each.ids) for each in pieces))
        return run(made, pieces)

    monkeypatch.setattr(model.Model, "forward", counted)
    prompt = (Message("user", CODE + "What does it do?"),)
    first = say(engine, messages=prompt, max_tokens=8)
    whole, read[:] = sum(read), []
    say(engine, messages=prompt, max_tokens=8)
    assert read[0] == 1 and sum(read) < 40 < whole
    engine.score([ScoredRow((1, 2, 3), (-100, 2, 3))])  # in blocks of its own
    read[:] = []
    assert say(engine, messages=prompt, max_tokens=8)[0] == first[0]
    assert sum(read) < 40
    engine.forget()
    assert say(engine, messages=prompt, max_tokens=8)[0] == first[0]
    assert sum(read) >= first[1].prompt_tokens


def test_schemas_seeds_stops_and_limits(tiny_base: BaseModel) -> None:
    engine = EightBitEngine(tiny_base, no_adapter)
    schema = (
        '{"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": false}'
    )
    assert json.loads(say(engine, schema=schema, max_tokens=40)[0])["a"] in (1, 2)
    sampled = {say(engine, temperature=1.5, seed=seed, max_tokens=12)[0] for seed in (1, 1, 2)}
    assert len(sampled) == 2
    assert say(engine, max_tokens=3)[1].reason == "length"
    cancelled = Event()
    cancelled.set()
    (last,) = engine.stream(GenerationRequest(QUESTION), cancelled)
    assert isinstance(last, Finished) and last.reason == "cancelled"


def test_few_versions_stay_in_memory(tmp_path: Path, tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = random_adapter(tiny_base, tmp_path / "made")
    engine = EightBitEngine(tiny_base, lambda name: folder)
    for name in ("a", "b", "c"):
        engine._activate(name)
    assert engine.loaded_adapters == ("a", "b", "c"), "small ones may be many"
    monkeypatch.setattr(versions, "KEPT_BYTES", 0)
    engine._activate("d")
    assert engine.loaded_adapters == ("c", "d"), "the oldest made room first"
    # What fills in has a conversation by itself, which holds its model.
    list(engine._generate([1, 2, 3], GenerationRequest((), "d"), 2, Event(), frozenset(), True))
    kept = engine._kept
    engine._activate("e")
    assert engine._kept is kept is not None
    engine._activate("f")
    assert engine._kept is None, "it would hold what made room"
    assert engine.held_memory().model > 0
    engine.close()
    assert engine.loaded_adapters == () and engine.held_memory().model == 0


def test_a_version_is_made_ready_while_another_answers(tmp_path: Path, tiny_base: BaseModel) -> None:
    made: list[str] = []

    def folder(name: str) -> Path:
        made.append(name)
        return random_adapter(tiny_base, tmp_path / name)

    engine = EightBitEngine(tiny_base, folder)
    answering = engine.stream(GenerationRequest(QUESTION, "old", max_tokens=40), Event())
    next(answering)
    engine.prepare("new")  # would wait without end for the turn
    assert sum(isinstance(each, TextDelta) for each in answering) > 5
    assert made == ["old", "new"] and engine.loaded_adapters == ("old", "new")
    assert say(engine, adapter="new", max_tokens=2) and made == ["old", "new"], "not made again"
    with pytest.raises(InhouseError, match="There is no lost"):
        EightBitEngine(tiny_base, no_adapter).prepare("lost")
    engine.prepare("next")
    engine.prepare("last")
    assert engine.loaded_adapters == ("old", "new", "last"), "what was made and never asked makes room"


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`", "ignore:Model has `tie_word_embeddings")
def test_what_is_more_than_lora_is_refused(tmp_path: Path, tiny_base: BaseModel, tokenizer: Any) -> None:
    tied = BaseModel("tied", make_tiny(tmp_path / "tied", tokenizer, tie_word_embeddings=True), "0" * 64, "")
    folders = {
        "dora": random_adapter(tiny_base, tmp_path / "dora", use_dora=True),
        "table": random_adapter(tiny_base, tmp_path / "table", target_modules=["q_proj", "embed_tokens"]),
        "saved": random_adapter(tiny_base, tmp_path / "saved", modules_to_save=["lm_head"]),
        "good": random_adapter(tiny_base, tmp_path / "good", use_rslora=True, target_modules=["lm_head", "q_proj"]),
        "cut": random_adapter(tiny_base, tmp_path / "cut"),
        "other": random_adapter(tiny_base, tmp_path / "other", target_modules=["q_proj", "v_proj"]),
        "head": random_adapter(tied, tmp_path / "head", target_modules=["lm_head", "q_proj"]),
    }
    for name in ("table", "head", "good"):  # PEFT writes the tables that they are beside, too, which are refused anyhow
        file = folders[name] / "adapter_model.safetensors"
        save_file({name: each for name, each in load_file(file).items() if "base_layer" not in name}, file)
    cut = folders["cut"] / "adapter_model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-100])
    named = folders["other"] / "adapter_config.json"
    named.write_text(json.dumps(json.loads(named.read_text()) | {"target_modules": ["q_proj"]}))
    engine = EightBitEngine(tiny_base, folders.__getitem__)
    for name in ("dora", "table"):
        with pytest.raises(InhouseError, match=r"In 8 bits that cannot be answered.*engine\.weights = .full"):
            say(engine, adapter=name)
    with pytest.raises(InhouseError, match=r"changes more than linear layers: base_model.model.lm_head"):
        say(EightBitEngine(tied, folders.__getitem__), adapter="head")
    for name in ("saved", "cut", "other"):
        with pytest.raises(InhouseError, match=f"{name} is refused"):
            say(engine, adapter=name)
    with pytest.raises(InhouseError, match="reads"):
        say(engine, adapter="good", messages=(Message("user", "word " * 4000),))
    ids = tokenizer(CODE)["input_ids"][:80]
    full = TransformersEngine(tiny_base, folders.__getitem__, device="cpu", dtype=torch.float32)
    assert apart(logits_of(engine, ids, "good"), logits_of(full, ids, "good")) < 0.1


def test_an_adapter_that_is_more_has_full_weights(
    tmp_path: Path, tiny_base: BaseModel, processor: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    processor()
    plain = random_adapter(tiny_base, tmp_path / "plain")
    assert answering_weights("auto", False, tiny_base, plain) == "8bit"
    more = random_adapter(tiny_base, tmp_path / "more", use_dora=True)
    assert answering_weights("auto", False, tiny_base, more) == "full"
    assert "The adapter more is more than two matrices a layer." in caplog.text
    (plain / "adapter_config.json").unlink()
    assert answering_weights("auto", False, tiny_base, plain) == "8bit", "whoever asks for it is told"


def test_weights_in_several_files_are_the_same(tmp_path: Path, tokenizer: Any) -> None:
    from transformers import AutoModelForCausalLM

    whole = BaseModel("whole", make_tiny(tmp_path / "whole", tokenizer), "0" * 64, "")
    AutoModelForCausalLM.from_pretrained(whole.path).save_pretrained(tmp_path / "cut", max_shard_size="1MB")
    tokenizer.save_pretrained(tmp_path / "cut")
    cut = BaseModel("cut", tmp_path / "cut", "0" * 64, "")
    assert len(list(cut.path.glob("*.safetensors"))) > 1
    (cut.path / "stray.safetensors").write_bytes(b"of another time")
    ids = tokenizer(CODE)["input_ids"][:40]
    found, wanted = (logits_of(EightBitEngine(base, no_adapter), ids) for base in (cut, whole))
    assert torch.equal(found, wanted)


def test_a_damaged_base_is_said_plainly(tmp_path: Path, tokenizer: Any) -> None:
    base = BaseModel("damaged", make_tiny(tmp_path, tokenizer), "0" * 64, "")
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    missing = tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(InhouseError, match=r"holds no model\.layers\.1\.mlp\.up_proj"):
        EightBitEngine(base, no_adapter).prepare(BASE)
    save_file({**tensors, "model.layers.1.mlp.up_proj.weight": missing[:-32].clone()}, file, {"format": "pt"})
    with pytest.raises(InhouseError, match="OpenVINO does not compute"):
        EightBitEngine(base, no_adapter).prepare(BASE)
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(InhouseError, match="damaged cannot be read"):
        EightBitEngine(base, no_adapter)
    (tmp_path / "generation_config.json").unlink()
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(InhouseError, match="cannot be read"):
        EightBitEngine(base, no_adapter)


def test_rounding_is_that_of_q8_0() -> None:
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    weight[1, :GROUP] = 0
    whole, factors = rounded(weight, GROUP)
    assert whole.dtype == torch.int8 and factors.dtype == torch.float16
    assert whole.shape == (4, 2, GROUP) and factors.shape == (4, 2, 1)
    back = (whole.float() * factors.float()).view(4, 64)
    assert torch.equal(back[1, :GROUP], weight[1, :GROUP])
    assert float((back - weight).abs().max()) <= float(factors.float().max()) * 0.51


@pytest.mark.parametrize(
    ("name", "changed", "reason"),
    [
        ("Gemma", {}, "family gemma"),
        ("Mistral", {"sliding_window": 128}, "sliding window"),
        ("Llama", {"hidden_act": "gelu"}, "activation"),
        ("Llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "positions"),
        ("Qwen2", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}, "sliding window"),
    ],
)
def test_other_models_have_full_weights(name: str, changed: dict[str, Any], reason: str) -> None:
    import transformers

    config = getattr(transformers, f"{name}Config")(**{**SIZES, "num_key_value_heads": 2, **changed})
    assert reason in str(why_not(config))


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_up(device: str = "cpu", flags: frozenset[str] = frozenset({"avx2"}), openvino: bool = True) -> None:
        monkeypatch.setattr(base_models, "best_device", lambda: device)
        monkeypatch.setattr(base_models, "cpu_flags", lambda: flags)
        monkeypatch.setattr(
            weights, "openvino_problem", lambda: None if openvino else "OpenVINO cannot be imported: x."
        )

    return set_up


def test_a_processor_answers_in_8_bits(
    tiny_base: BaseModel, processor: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    processor()
    assert answering_weights("auto", True, tiny_base) == "8bit", "what was trained in 4 bit, too"
    assert answering_weights("full", False, tiny_base) == "full"
    assert isinstance(load_engine(tiny_base, no_adapter, "auto", "8bit"), EightBitEngine)
    processor(flags=frozenset({"sse4_2"}))
    assert answering_weights("auto", False, tiny_base) == "full"
    assert answering_weights("8bit", False, tiny_base) == "8bit", "who asks for it has it"
    processor(openvino=False)
    assert answering_weights("auto", False, tiny_base) == "full"
    with pytest.raises(InhouseError, match=r"asked for\. OpenVINO cannot"):
        answering_weights("8bit", False, tiny_base)
    processor("cuda")
    assert answering_weights("auto", False, tiny_base) == "full"
    with pytest.raises(InhouseError, match="on a processor only"):
        answering_weights("8bit", False, tiny_base)


def test_a_model_counts_as_loaded_when_what_answers_is_ready(
    tmp_path: Path, tiny_base: BaseModel, processor: Callable[..., None]
) -> None:
    processor()
    root = make_history(tmp_path / "shop", commits=2).root
    (root / "inhouse.toml").write_text(f'base_model = "{tiny_base.path}"\n')
    with Workspace.open(root, "test") as house:
        manifest = AdapterManifest(tiny_base.name, resolve_base_model(str(tiny_base.path)).sha256, "abc")
        made = house.registry.add(random_adapter(tiny_base, tmp_path / "made"), manifest)
        house.registry.promote(made.version, "")
        assert isinstance(house.engine(), EightBitEngine)
        assert house.held_memory().model > 0 and house.engine().loaded_adapters == (made.version,)


def test_a_version_that_needs_other_weights_has_the_model_loaded_anew(
    tmp_path: Path, tiny_base: BaseModel, processor: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    processor()
    caplog.set_level("INFO")
    root = make_history(tmp_path / "shop", commits=2).root
    (root / "inhouse.toml").write_text(f'base_model = "{tiny_base.path}"\n')
    with Workspace.open(root, "test") as house:
        manifest = AdapterManifest(tiny_base.name, resolve_base_model(str(tiny_base.path)).sha256, "abc")
        plain, more = (
            house.registry.add(random_adapter(tiny_base, tmp_path / name, **kind), manifest).version
            for name, kind in (("plain", {}), ("more", {"use_dora": True}))
        )
        house.registry.promote(plain, "")
        before = house.engine()
        house.load()
        assert house.engine() is before, "the same weights"
        answering = before.stream(GenerationRequest(QUESTION, plain, max_tokens=40), Event())
        with house.using_model():
            next(answering)
            house.registry.promote(more, "")
            loading = threading.Thread(target=house.load)
            loading.start()
            assert sum(isinstance(each, TextDelta) for each in answering) > 5, "an answer under way ends first"
            assert loading.is_alive()
        loading.join(60)
        assert isinstance(house.engine(), TransformersEngine)
        assert say(house.engine(), adapter=more, max_tokens=4)[1].completion_tokens
        assert f"the model is loaded anew: {more} is answered with other weights" in caplog.text
        house.registry.rollback()
        house.load()
        assert isinstance(house.engine(), EightBitEngine) and house.engine().loaded_adapters == (plain,)


def test_judging_does_not_ask_for_8_bits(processor: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    processor(openvino=False)
    assert weights.weights_here("8bit", True) == "full"
    processor("cuda")
    monkeypatch.setattr(weights, "has_bitsandbytes", lambda: True)
    assert (weights.weights_here("8bit", False), weights.weights_here("8bit", True)) == ("full", "4bit")


def test_an_openvino_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.openvino_problem() is None
    monkeypatch.setitem(sys.modules, "inhouse_training.eight_bits.graph", None)
    monkeypatch.delattr("inhouse_training.eight_bits.graph")
    assert str(weights.openvino_problem()).startswith("OpenVINO cannot be imported: ")


def test_why_a_base_model_has_full_weights_is_logged(
    tmp_path: Path, tokenizer: Any, processor: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    processor()
    base = BaseModel("other", make_tiny(tmp_path, tokenizer, hidden_act="gelu"), "0" * 64, "")
    assert answering_weights("auto", False, base) == "full"
    assert "other is answered with full weights, not in 8 bits, so more slowly: Its activation is gelu." in caplog.text
    with pytest.raises(InhouseError, match=r"activation is gelu.*weights = .full"):
        EightBitEngine(base, no_adapter)


TELLS = """
import sys
from pathlib import Path

sys.addaudithook(lambda event, given: event.startswith("socket.") and print(event, given, file=sys.stderr, flush=True))
from inhouse_training import BASE, BaseModel
from inhouse_training.eight_bits.engine import EightBitEngine

EightBitEngine(BaseModel("tiny", Path(sys.argv[1]), "", ""), Path).prepare(BASE)
from openvino.tools.ovc.telemetry_utils import tm  # what whoever converts a model would report with
print(tm.__name__)
"""


def test_openvino_tells_nobody(tiny_base: BaseModel, tmp_path: Path) -> None:
    """By itself it reports each import, and keeps an identity in the home directory."""
    environment = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, "-c", TELLS, str(tiny_base.path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "socket." not in ended.stderr
    assert ended.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
    assert not (tmp_path / "intel").exists()
