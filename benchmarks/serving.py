"""Answers made together on a GPU: tokens a second and first tokens, for one stream and for several.

    python benchmarks/serving.py [--tiny] [--shape qwen2.5-7b] [--streams 32] [--tokens 512] [--prompt 4000]

A model of the named shape with random weights in bfloat16 and a LoRA adapter of rank 64 on all seven kinds of linear
layers is served by the product's engine. Every prompt is another one, so that nothing is saved by what was read before.

- ``reading``: tokens of prompts a second, by how many are read in one pass, when nobody writes.
- ``alone``: one request after another.
- ``burst``: all streams ask at the same moment.
- ``steady``: each stream asks again as soon as it has its answer, as in the rounds after the burst.
- ``generate``: transformers' own, on the same prompts in one batch, the adapter merged into the weights.
- ``check``: what the engine computes beside what the model computes alone, in standard deviations of its logits; and as
  a yardstick for rounding the model alone with two kinds of attention.

No prompt is asked twice, and each part says how many tokens of prompts were copied all the same, how many were read
a second, and how many multiplications a second that takes at least: no more than the card can do.

Tokens a second count reading the prompts, unless they are said to be of the writing alone. ``--tiny`` is for a dry run
on a CPU, and its figures say nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import torch

from inhouse_training import in_process_engine, transformers_engine
from inhouse_training.base_model import BaseModel
from inhouse_training.batching.decoder import Decoder
from inhouse_training.batching.engine import BatchedEngine
from inhouse_training.batching.steps import Reading, Writing
from inhouse_training.engine import BASE, Finished, GenerationRequest, Message, TextDelta
from inhouse_training.weights import Weights

SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-7b": {
        "model_type": "qwen2", "vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944,
        "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    },
    "mistral-7b": {
        "model_type": "mistral", "vocab_size": 32_768, "hidden_size": 4096, "intermediate_size": 14_336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "max_position_embeddings": 32_768, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "sliding_window": None,
    },
    "tiny": {
        "model_type": "qwen2", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "tie_word_embeddings": False, "initializer_range": 0.2,
    },
}  # fmt: skip
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
VERSION = "rank-64"


def make_base(folder: Path, shape: dict[str, Any]) -> BaseModel:
    """A tokenizer in which every id is a word of its own, and a configuration; the weights are made in memory."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, PreTrainedTokenizerFast

    special = ["<unknown>", "<end>", "<system>", "<user>", "<assistant>"]
    words = [f"w{number}" for number in range(shape["vocab_size"] - len(special))]
    vocabulary = {word: number for number, word in enumerate([*special, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unknown>", eos_token="<end>", chat_template=TEMPLATE
    )
    tokenizer.add_special_tokens({"additional_special_tokens": special[2:]})
    tokenizer.save_pretrained(folder)
    rest = {key: value for key, value in shape.items() if key != "model_type"}
    AutoConfig.for_model(
        shape["model_type"], eos_token_id=1, bos_token_id=None, pad_token_id=0, **rest
    ).save_pretrained(folder)
    return BaseModel("random", folder, "0" * 64, "")


def words_tokenizer(base: BaseModel) -> Any:
    """The tokenizer as it was made. By the model's type, transformers would take the class of that family instead."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(base.path)


def make_model(base: BaseModel, device: str | None, dtype: Any, weights: Weights) -> Any:
    """Random weights, made where they are used. Stands for reading them from a file, in full."""
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    set_seed(1)
    config = AutoConfig.from_pretrained(base.path)
    with torch.device(device or "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    if device == "cpu":  # there an adapter is added to what the files hold
        model.save_pretrained(base.path)
    return model.eval()


def make_adapter(folder: Path, model: Any, rank: int, scale: float) -> Path:
    """Random weights; ``scale`` makes the adapter's part of each layer about a tenth of the layer's own."""
    from safetensors.torch import save_file

    folder.mkdir()
    tensors = {}
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in LAYERS:
            weight = module.weight
            down = torch.randn(rank, weight.shape[1], device=weight.device, dtype=weight.dtype) * 0.02
            up = torch.randn(weight.shape[0], rank, device=weight.device, dtype=weight.dtype) * scale
            tensors[f"base_model.model.{name}.lora_A.weight"] = down.cpu()
            tensors[f"base_model.model.{name}.lora_B.weight"] = up.cpu()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"target_modules": list(LAYERS)}))
    return folder


@dataclass(frozen=True, slots=True)
class Answer:
    """When an answer was asked for, when its first words and its last came (seconds), and its tokens."""

    asked: float
    first: float
    last: float
    tokens: int
    prompt: int


def ask(engine: BatchedEngine, request: GenerationRequest) -> Answer:
    asked, first = time.perf_counter(), 0.0
    for event in engine.stream(request, Event()):
        if isinstance(event, TextDelta) and not first:
            first = time.perf_counter()
        if isinstance(event, Finished):
            return Answer(asked, first, time.perf_counter(), event.completion_tokens, event.prompt_tokens)
    raise AssertionError("a stream ends with Finished")


class Prompts:
    """Requests of random words, never the same ones twice; one generator serves the whole run."""

    def __init__(self, engine: BatchedEngine, vocabulary: int) -> None:
        self._random = torch.Generator().manual_seed(2)
        self._vocabulary = vocabulary
        self._around = engine.count_tokens((Message("user", ""),))

    def next(self, length: int, tokens: int) -> GenerationRequest:
        """One of exactly ``length`` tokens."""
        numbers = torch.randint(self._vocabulary - 5, (length - self._around,), generator=self._random).tolist()
        text = " ".join(f"w{number}" for number in numbers)
        return GenerationRequest((Message("user", text),), VERSION, tokens)


class Part:
    """What the engine read and copied from the beginning of a part of the run on."""

    def __init__(self, engine: BatchedEngine) -> None:
        self._scheduler = engine._scheduler
        self._weights = sum(
            each.numel()
            for name, each in engine._causal.named_parameters()
            if "embed" not in name and "lm_" not in name
        )
        self._before = self._counted()
        self._began = time.perf_counter()

    def _counted(self) -> tuple[int, int]:
        return self._scheduler.tokens_read, self._scheduler.tokens_copied

    def figures(self, length: int, answers: Sequence[Answer]) -> dict[str, Any]:
        """Of everything since, which must have been ``answers`` to prompts of ``length`` tokens.

        The multiplications are those of reading before the last first token, two for each weight and token.
        """
        read, copied = (now - then for now, then in zip(self._counted(), self._before, strict=True))
        assert all(each.prompt == length for each in answers), "a prompt has another length"
        assert read + copied == length * len(answers), "a prompt was not read, or more was"
        seconds = max(each.first for each in answers) - self._began
        return {
            "prompt_tokens_read": read,
            "prompt_tokens_copied": copied,
            "prompt_tokens_read_per_second": round(read / seconds),
            "tflop_per_second_at_least": round(2 * self._weights * read / seconds / 1e12, 1),
        }


def rounds(
    engine: BatchedEngine, prompts: Prompts, streams: int, count: int, length: int, tokens: int
) -> list[list[Answer]]:
    """Answers of each round: every stream asks ``count`` times, the next question as soon as it has its answer."""
    requests = [[prompts.next(length, tokens) for _ in range(count)] for _ in range(streams)]
    answers: list[list[Answer]] = [[] for _ in range(streams)]

    def one(at: int) -> None:
        for request in requests[at]:
            answers[at].append(ask(engine, request))

    threads = [threading.Thread(target=one, args=(at,)) for at in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [[each[number] for each in answers] for number in range(count)]


def p95(values: Sequence[float]) -> float:
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, round(0.95 * (len(ranked) - 1)))]


def told(answers: Sequence[Answer]) -> dict[str, Any]:
    """Figures of answers that were made in one stretch of time."""
    seconds = max(each.last for each in answers) - min(each.asked for each in answers)
    tokens = sum(each.tokens for each in answers)
    writing = max(each.last for each in answers) - max(each.first for each in answers)
    first = [each.first - each.asked for each in answers]
    rate = statistics.median((each.tokens - 1) / (each.last - each.first) for each in answers)
    return {
        "answers": len(answers),
        "tokens_per_second": round(tokens / seconds, 1),
        "tokens_per_second_of_one_while_writing": round(rate, 1),
        "first_token_ms_median": round(1000 * statistics.median(first)),
        "first_token_ms_p95": round(1000 * p95(first)),
        "seconds": round(seconds, 2),
        "seconds_after_last_first_token": round(writing, 2),
    }


def steady(all_rounds: Sequence[Sequence[Answer]]) -> dict[str, Any]:
    """Figures of the stretch in which every stream has its second or a later answer made."""
    later = [each for one in all_rounds[1:] for each in one]
    begin, end = max(each.last for each in all_rounds[0]), min(each.last for each in all_rounds[-1])
    everything = [each for one in all_rounds for each in one]
    # An answer's tokens come evenly from its first to its last.
    tokens = sum(
        each.tokens * max(0.0, min(end, each.last) - max(begin, each.first)) / (each.last - each.first)
        for each in everything
    )
    first = [each.first - each.asked for each in later]
    return {
        "answers": len(later),
        "tokens_per_second": round(tokens / (end - begin), 1) if end > begin else None,
        "first_token_ms_median": round(1000 * statistics.median(first)),
        "first_token_ms_p95": round(1000 * p95(first)),
    }


def check(engine: BatchedEngine) -> dict[str, float]:
    """Largest difference of logits between the engine's passes and the model alone, in standard deviations."""
    model_ids = torch.randint(5, engine._causal.config.vocab_size, (2, 300), generator=torch.Generator().manual_seed(3))
    prompts: list[list[int]] = model_ids.tolist()
    lengths, versions, starts = (300, 180), (VERSION, BASE), (0, 400)
    differences: dict[str, float] = {}
    with engine._turn.hold(Event()), torch.inference_mode():
        decoder, stack = engine._ready()
        assert isinstance(decoder, Decoder)
        rows = [stack.row(version) for version in versions]
        cut = [prompt[:length] for prompt, length in zip(prompts, lengths, strict=True)]
        halves = [Reading(cut[n][:100], 0, starts[n], rows[n], False) for n in (0, 1)]
        decoder.read(halves)
        read = decoder.read([Reading(cut[n][100:-1], 100, starts[n], rows[n], True) for n in (0, 1)])
        passes = {"reading": read.clone()}
        steps = [Writing(cut[n][-1], -1, lengths[n] - 1, starts[n], rows[n]) for n in (0, 1)]
        passes["writing"] = decoder.write(steps).logits[:2].clone()
        for n, version in enumerate(versions):
            engine._activate(version)
            alone = engine._causal(input_ids=torch.tensor([cut[n]], device=engine._causal.device), use_cache=False)
            for name, position in (("reading", -2), ("writing", -1)):
                wanted = alone.logits[0, position]
                differences[f"{name} {version}"] = _apart(passes[name][n], wanted)
            engine._causal.config._attn_implementation = "eager"
            other = engine._causal(input_ids=torch.tensor([cut[n]], device=engine._causal.device), use_cache=False)
            engine._causal.config._attn_implementation = "sdpa"
            differences[f"sdpa and eager {version}"] = _apart(other.logits[0, -1], alone.logits[0, -1])
        engine._activate(BASE)
    return differences


def reading(engine: BatchedEngine, length: int) -> dict[str, int]:
    """Tokens of prompts a second when nobody writes, by how many are read in one pass."""
    rates = {}
    with engine._turn.hold(Event()), torch.inference_mode():
        decoder, stack = engine._ready()
        row = stack.row(VERSION)
        prompts = torch.randint(5, engine._causal.config.vocab_size, (8, length)).tolist()
        pieces = [(number, done) for number in range(len(prompts)) for done in range(0, length, length // 4)]
        for at_once in (2, 4, 8):
            for _ in range(2):  # the first time warms up
                began = time.perf_counter()
                for first in range(0, len(pieces), at_once):
                    decoder.read(
                        [
                            Reading(prompts[number][done : done + length // 4], done, number * length, row, False)
                            for number, done in pieces[first : first + at_once]
                        ]
                    )
                if engine._causal.device.type == "cuda":
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - began
            rates[f"{at_once * (length // 4)} at once"] = round(len(prompts) * length / seconds)
    return rates


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return round(float((one.float() - other.float()).abs().max() / other.float().std()), 4)


def plain_generate(model: Any, streams: int, length: int, tokens: int) -> dict[str, Any]:
    """transformers' generate on one batch, greedy, none ends before the limit."""
    ids = torch.randint(5, model.config.vocab_size, (streams, length), device=model.device)
    seconds = []
    for count in (1, tokens):
        started = time.perf_counter()
        with torch.inference_mode():
            made = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count,
                do_sample=False,
            )  # fmt: skip
        assert made.shape[1] == length + count
        seconds.append(time.perf_counter() - started)
    return {
        "tokens_per_second": round(streams * tokens / seconds[1], 1),
        "first_token_ms": round(1000 * seconds[0]),
        "seconds": round(seconds[1], 2),
    }


def say(name: str, figures: dict[str, Any], started: float) -> None:
    print(json.dumps({name: figures, "at_s": round(time.perf_counter() - started)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--shape", choices=[name for name in SHAPES if name != "tiny"], default="qwen2.5-7b")
    parser.add_argument("--streams", type=int)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--prompt", type=int)
    parser.add_argument("--without-generate", action="store_true")
    arguments = parser.parse_args()
    tiny = arguments.tiny
    streams = arguments.streams or (4 if tiny else 32)
    tokens = arguments.tokens or (16 if tiny else 512)
    length = arguments.prompt or (200 if tiny else 4000)
    device, dtype, rank = ("cpu", torch.float32, 4) if tiny else ("cuda", torch.bfloat16, 64)
    started = time.perf_counter()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("inhouse_training").setLevel(logging.INFO)
    in_process_engine.load_tokenizer = words_tokenizer  # type: ignore[attr-defined]
    transformers_engine.load_model = make_model  # type: ignore[attr-defined]  # the engine itself is the product's
    machine = "CPU" if tiny else torch.cuda.get_device_name()
    say("machine", {"device": machine, "torch": torch.__version__, "shape": arguments.shape}, started)
    with tempfile.TemporaryDirectory() as scratch:
        shape = SHAPES["tiny" if tiny else arguments.shape]
        base = make_base(Path(scratch) / "base", shape)
        adapter = Path(scratch) / "adapter"
        engine = BatchedEngine(base, lambda version: adapter, device=device, dtype=dtype, streams=streams)
        make_adapter(adapter, engine._causal, rank, 0.02)
        say("loaded", {"pool_tokens": engine._pool.shape[2]}, started)
        prompts = Prompts(engine, shape["vocab_size"])
        rounds(engine, prompts, streams, 1, 40, 8)  # loads the adapter
        say("check", check(engine), started)
        say("reading", reading(engine, length), started)
        engine.forget()  # it was overwritten
        ask(engine, prompts.next(length, 4))
        part = Part(engine)
        alone = [ask(engine, prompts.next(length, tokens)) for _ in range(2 if tiny else 3)]
        say("alone", told(alone) | part.figures(length, alone), started)
        rounds(engine, prompts, streams, 1, length // 2, 40)  # records steps of all sizes
        part = Part(engine)
        made = rounds(engine, prompts, streams, 1, length, tokens)
        say("burst", told(made[0]) | part.figures(length, made[0]), started)
        part = Part(engine)
        made = rounds(engine, prompts, streams, 3, length, tokens)
        everything = [each for one in made for each in one]
        say("steady", steady(made) | part.figures(length, everything), started)
        if not arguments.without_generate:
            model = engine._model
            with engine._turn.hold(Event()):
                engine._activate(VERSION)
                engine._pool = engine._decoder = None  # type: ignore[assignment]  # room for generate's own
                if device == "cuda":
                    model.merge_adapter([VERSION])
                    torch.cuda.empty_cache()
                say("generate", plain_generate(model, streams, length, tokens), started)


if __name__ == "__main__":
    main()
