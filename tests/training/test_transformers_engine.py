"""The in-process engine with the real SmolLM2: greedy text, lookup, cancel, adapters, characters, scores."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors.torch import load_file, save_file

from inhouse_retrieval import InhouseError
from inhouse_training import (
    BASE,
    AdapterManifest,
    BaseModel,
    Finished,
    GenerationRequest,
    Message,
    Registry,
    ScoredRow,
    TextDelta,
    TransformersEngine,
    chat_ids,
    load_model,
    load_tokenizer,
)
from inhouse_training.chat_template import template_digest
from inhouse_training.decoding import PromptLookup, Sampler, TextStream
from inhouse_training.registry import WEIGHTS_NAME
from inhouse_training.transformers_engine import ADAPTERS_KEPT

QUESTION = (Message("user", "What is a git commit?"),)
COPY = (Message("user", "Repeat exactly:\ndef add(a, b):\n    return a + b\n\ndef sub(a, b):\n    return a - b\n"),)


def write_adapter(folder: Path, seed: int, layers: int = 2, width: int = 576) -> Path:
    """A LoRA adapter with random weights, large enough to change every answer."""
    folder.mkdir(parents=True, exist_ok=True)
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(layers):
        name = f"base_model.model.model.layers.{layer}.mlp.down_proj"
        tensors[f"{name}.lora_A.weight"] = torch.randn(4, 1536, generator=random) * 0.3
        tensors[f"{name}.lora_B.weight"] = torch.randn(width, 4, generator=random) * 0.3
    save_file(tensors, folder / WEIGHTS_NAME)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "bias": "none"}
    config |= {"target_modules": [f"layers.{n}.mlp.down_proj" for n in range(layers)]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path_factory.mktemp("state") / "adapters")


@pytest.fixture(scope="module")
def versions(registry: Registry, base_model: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    manifest = AdapterManifest(base_model.name, base_model.sha256, "abc")
    made = tmp_path_factory.mktemp("made")
    return [registry.add(write_adapter(made / str(n), n), manifest).version for n in range(ADAPTERS_KEPT + 1)]


@pytest.fixture(scope="module")
def engine(base_model: BaseModel, registry: Registry) -> TransformersEngine:
    return TransformersEngine(base_model, registry.verify)


@pytest.fixture(scope="module")
def exact(base_model: BaseModel, registry: Registry) -> TransformersEngine:
    """In float32: in bfloat16 a prompt read in two pieces rounds otherwise, by half a logit on some processors."""
    return TransformersEngine(base_model, registry.verify, dtype=torch.float32)


def answer(engine: TransformersEngine, request: GenerationRequest) -> tuple[str, Finished]:
    *deltas, last = engine.stream(request, Event())
    assert isinstance(last, Finished)
    assert all(isinstance(each, TextDelta) for each in deltas)
    return "".join(each.text for each in deltas if isinstance(each, TextDelta)), last


def request(messages: tuple[Message, ...] = QUESTION, adapter: str = BASE, tokens: int = 12) -> GenerationRequest:
    return GenerationRequest(messages, adapter=adapter, max_tokens=tokens)


def test_greedy_text_is_that_of_transformers_own_generate(engine: TransformersEngine, base_model: BaseModel) -> None:
    tokenizer, model = load_tokenizer(base_model), load_model(base_model)
    for messages in (QUESTION, COPY):
        prompt = chat_ids(tokenizer, messages, add_generation_prompt=True)
        with torch.inference_mode():
            ids = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt)),
                max_new_tokens=24,
                do_sample=False,
            )[0, len(prompt) :]
        text, finished = answer(engine, request(messages, tokens=24))
        assert text == tokenizer.decode(ids, skip_special_tokens=True)
        assert finished.prompt_tokens == len(prompt) == engine.count_tokens(messages)


def test_what_was_read_of_the_last_prompt_is_not_read_again(
    exact: TransformersEngine, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = exact
    code = "def add(a, b):\n    return a + b\n\n" * 6
    first, second = (
        request((Message("user", code + asked),), tokens=10) for asked in ("What does it do?", "Who calls it, and why?")
    )
    counts: list[int] = []
    run = engine._causal.forward

    def counted(*args: object, **kwargs: object) -> object:
        counts.append(kwargs["input_ids"].shape[1])  # type: ignore[attr-defined]
        return run(*args, **kwargs)

    monkeypatch.setattr(engine._causal, "forward", counted)
    engine.forget()
    alone = answer(engine, second)
    assert counts[0] == alone[1].prompt_tokens
    answer(engine, first)
    counts.clear()
    assert answer(engine, second) == alone
    assert counts[0] < 30
    answer(engine, first)
    counts.clear()
    other = answer(engine, replace(second, adapter=versions[0]))
    assert counts[0] == alone[1].prompt_tokens and other != alone  # another version has read nothing yet


def test_the_context_and_the_limit_end_an_answer(engine: TransformersEngine) -> None:
    text, finished = answer(engine, request(tokens=5))
    assert (finished.reason, finished.completion_tokens) == ("length", 5) and text
    with pytest.raises(InhouseError, match="reads 8192"):
        answer(engine, request((Message("user", "word " * 9000),)))


def test_stop_strings_are_neither_sent_nor_passed(engine: TransformersEngine) -> None:
    whole, _ = answer(engine, request(tokens=20))
    stop = whole[10:16]
    text, finished = answer(engine, replace(request(tokens=20), stop=(stop, "never")))
    assert finished.reason == "stop"
    assert text == whole[: whole.index(stop)]


@pytest.mark.parametrize("temperature", [5e-324, 1e-45, 1e-40, 1e-38, 1e-6, 1e-5, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [5e-324, 1e-300, 1e-45, 1e-9, 0.5, 1.0])
@pytest.mark.parametrize("least", [0.0, -torch.inf])
def test_any_temperature_and_nucleus_leave_a_token(temperature: float, top_p: float, least: float) -> None:
    logits = torch.full((3, 40), least)
    logits[[0, 1, 2], [7, 8, 9]] = torch.tensor([1e-3, 40.0, 1e4])
    sampler = Sampler(GenerationRequest(QUESTION, temperature=temperature, top_p=top_p), torch.device("cpu"))
    for _ in range(20):
        chosen = sampler(logits)
        assert chosen[2] == 9 and all(0 <= token < 40 for token in chosen)
        if temperature <= 1e-5 or top_p <= 1e-9:
            assert chosen == [7, 8, 9]


def test_sampling_repeats_with_its_seed(engine: TransformersEngine) -> None:
    sampled = replace(request(), temperature=1.0, top_p=0.9, seed=1)
    first, _ = answer(engine, sampled)
    assert answer(engine, sampled)[0] == first
    assert answer(engine, replace(sampled, seed=2))[0] != first


def test_cancel_stops_within_one_token(engine: TransformersEngine) -> None:
    cancel = Event()
    stream = engine.stream(request(tokens=200), cancel)
    assert isinstance(next(stream), TextDelta)
    cancel.set()
    rest = list(stream)
    assert isinstance(rest[-1], Finished) and rest[-1].reason == "cancelled"
    assert rest[-1].completion_tokens <= 2
    answer(engine, request(tokens=1))  # the engine is free again


def test_cancel_while_the_prompt_is_read(engine: TransformersEngine) -> None:
    cancel = Event()
    threading.Timer(0.3, cancel.set).start()
    started = time.monotonic()
    (last,) = engine.stream(request((Message("user", "word " * 7000),)), cancel)
    assert isinstance(last, Finished) and (last.reason, last.completion_tokens) == ("cancelled", 0)
    assert time.monotonic() - started < 15


def test_an_abandoned_answer_frees_the_engine(engine: TransformersEngine) -> None:
    stream = engine.stream(request(tokens=200), Event())
    next(stream)
    waiting = engine.stream(request(tokens=1), cancel := Event())
    threading.Timer(0.2, cancel.set).start()
    (last,) = waiting  # cancelled while it waits for its turn
    assert isinstance(last, Finished) and last.reason == "cancelled"
    assert isinstance(stream, Iterator)
    stream.close()  # type: ignore[attr-defined]  # a generator
    answer(engine, request(tokens=1))


def test_an_answer_ends_on_the_adapter_that_it_began_with(engine: TransformersEngine, versions: list[str]) -> None:
    """Six threads ask different adapters at once; each gets what it gets alone."""
    names = [BASE, versions[0], versions[1]]
    alone = {name: answer(engine, request(adapter=name, tokens=6))[0] for name in names}
    assert len(set(alone.values())) == 3
    got: list[tuple[str, str]] = []

    def ask(name: str) -> None:
        got.append((name, answer(engine, request(adapter=name, tokens=6))[0]))

    threads = [threading.Thread(target=ask, args=(name,)) for name in names * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == len(threads)
    assert all(text == alone[name] for name, text in got)


def test_switching_leaves_the_base_as_it_was(engine: TransformersEngine, versions: list[str]) -> None:
    row = [ScoredRow(tuple(range(100, 140)), tuple(range(100, 140)))]
    before = engine.score(row)
    weights = engine._causal.get_submodule("model.layers.0.mlp.down_proj").weight.clone()
    for version in [*versions, versions[0]]:  # more than are kept in memory
        assert engine.score(row, version) != before
    assert engine.score(row) == before
    assert torch.equal(engine._causal.get_submodule("model.layers.0.mlp.down_proj").weight, weights)


def test_a_broken_adapter_is_refused_and_the_others_stay(
    exact: TransformersEngine, registry: Registry, versions: list[str], base_model: BaseModel, tmp_path: Path
) -> None:
    engine = exact
    alone, _ = answer(engine, request(adapter=versions[0]))
    manifest = AdapterManifest(base_model.name, base_model.sha256, "abc")
    made = registry.add(write_adapter(tmp_path / "cut", 50), manifest)
    (made.path / WEIGHTS_NAME).write_bytes((made.path / WEIGHTS_NAME).read_bytes()[:1000])
    foreign = AdapterManifest("Other-7B", "f" * 64, "abc")
    elsewhere = registry.add(write_adapter(tmp_path / "foreign", 51), foreign)
    wide = registry.add(write_adapter(tmp_path / "wide", 52, width=640), manifest)
    nan = write_adapter(tmp_path / "nan", 53)
    tensors = load_file(nan / WEIGHTS_NAME)
    save_file({name: each * float("nan") for name, each in tensors.items()}, nan / WEIGHTS_NAME)
    template = replace(manifest, chat_template="0" * 16)
    cases = {
        made.version: "damaged",
        registry.add(write_adapter(tmp_path / "template", 54), template).version: "with another chat template",
        elsewhere.version: "made for another base model",
        wide.version: "does not fit this base model",
        registry.add(nan, manifest).version: "not finite",
        "unknown": "no adapter version",
    }
    for version, said in cases.items():
        with pytest.raises(InhouseError, match=said) as caught:
            answer(engine, request(adapter=version))
        assert caught.value.remedy
    assert answer(engine, request(adapter=versions[0]))[0] == alone
    same = replace(manifest, chat_template=template_digest(base_model.path))
    assert answer(engine, request(adapter=registry.add(write_adapter(tmp_path / "same", 55), same).version))


def test_truncated_weights_without_a_registry(
    base_model: BaseModel, engine: TransformersEngine, tmp_path: Path
) -> None:
    from inhouse_training.adapter_check import check_adapter

    folder = write_adapter(tmp_path / "cut", 60)
    check_adapter(folder, base_model, engine._causal)
    content = (folder / WEIGHTS_NAME).read_bytes()
    for size in (0, 4, 100, len(content) - 1):
        (folder / WEIGHTS_NAME).write_bytes(content[:size])
        with pytest.raises(InhouseError, match="refused"):
            check_adapter(folder, base_model, engine._causal)


def test_scores_are_those_of_the_model_alone(
    engine: TransformersEngine, base_model: BaseModel, versions: list[str]
) -> None:
    tokenizer, model = load_tokenizer(base_model), load_model(base_model)
    texts = ["def add(a, b):\n    return a + b\n", "hello", "x", "for i in range(10):\n    print(i)\n" * 20]
    rows = []
    for text in texts:
        ids = tuple(tokenizer(text)["input_ids"])
        rows.append(ScoredRow(ids, (-100, *ids[1:-1], -100) if len(ids) > 3 else ids))
    for row, score in zip(rows, engine.score(rows), strict=True):
        wanted = torch.tensor(row.labels[1:], dtype=torch.long)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1]
        nats = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="sum", ignore_index=-100)
        assert score.tokens == int((wanted != -100).sum())
        # Rows are scored several at once: in bfloat16, that the padded ones are multiplied in another order shows.
        assert score.nats == pytest.approx(float(nats), rel=1e-4 if model.dtype is torch.float32 else 0.04, abs=1e-4)
    assert engine.score([]) == []
    with pytest.raises(InhouseError, match="longer than"):
        engine.score([ScoredRow((1,) * 9000, (1,) * 9000)])


def test_characters_come_whole(base_model: BaseModel) -> None:
    tokenizer = load_tokenizer(base_model)
    text = "naïve 😀👩‍👩‍👧 日本語 \x00 end"
    ids = tokenizer(text)["input_ids"]
    stream = TextStream(tokenizer, ())
    deltas = [stream.push(token) for token in ids]
    assert "".join(deltas) + stream.close() == text
    assert all("\ufffd" not in delta for delta in deltas)
    broken = TextStream(tokenizer, ())
    broken_ids = tokenizer("😀")["input_ids"][:1] * 6 + tokenizer(" end")["input_ids"]
    assert ("".join(broken.push(token) for token in broken_ids) + broken.close()).endswith(" end")


def test_prompt_lookup_copies_what_followed() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 5, 1, 2])
    assert lookup.propose(3, 3) == [4, 5, 1]
    assert lookup.propose(9, 3) == []
    assert lookup.propose(3, 0) == []


@pytest.mark.long  # 25 s; the whole owner's memory is looked at in tests/server/test_http_api.py
def test_memory_with_a_prompt_of_2000_tokens(base_model: BaseModel) -> None:
    """In a process of its own: the peak of everything, torch included, stays far below the owner's 2.5 GB."""
    script = (
        "from pathlib import Path; from threading import Event\n"
        "from inhouse_training import resolve_base_model, TransformersEngine, GenerationRequest, Message\n"
        "engine = TransformersEngine(resolve_base_model(), Path)\n"
        "list(engine.stream(GenerationRequest((Message('user', 'word ' * 2000),), max_tokens=2), Event()))\n"
        "print(Path('/proc/self/status').read_text())"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    (peak,) = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("VmHWM")]
    assert int(peak) / 1024 < 1700


SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "count": {"type": "integer", "minimum": 0, "maximum": 99},
        },
        "required": ["name", "count"],
        "additionalProperties": False,
    }
)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_follows_its_schema_and_the_next_one_is_free(engine: TransformersEngine, temperature: float) -> None:
    request = GenerationRequest(QUESTION, max_tokens=60, temperature=temperature, schema=SCHEMA, seed=3)
    events = list(engine.stream(request, Event()))
    told = json.loads("".join(event.text for event in events if isinstance(event, TextDelta)))
    assert set(told) == {"name", "count"} and isinstance(told["count"], int)
    assert isinstance(events[-1], Finished) and events[-1].reason == "stop"
    free = "".join(
        event.text
        for event in engine.stream(replace(request, schema="", temperature=0.0), Event())
        if isinstance(event, TextDelta)
    )
    assert not free.startswith("{")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^(a?){3000}a{3000}$"},
        {"$ref": "#"},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    ],
)
def test_a_schema_that_is_too_much_for_the_matcher_leaves_no_answer_that_looks_whole(
    engine: TransformersEngine, schema: dict[str, object]
) -> None:
    with pytest.raises(InhouseError, match=r"schema cannot be followed: [^\n<]+\. Correct it, or make it simpler"):
        list(engine.stream(GenerationRequest(QUESTION, schema=json.dumps(schema)), Event()))
    assert answer(engine, request())[0]


def test_a_schema_that_cannot_be_followed_is_refused(engine: TransformersEngine) -> None:
    with pytest.raises(InhouseError, match="schema cannot be followed"):
        list(engine.stream(GenerationRequest(QUESTION, schema='{"type": "nonsense"}'), Event()))
