"""Engines on a CPU, one user: transformers, the product's own, llama.cpp and OpenVINO in one run, in turn.

    python benchmarks/cpu_engines.py [--lengths 500,2000,6000] [--times 3] [--tokens 128] [--only NAME,…]
        [--threads 2] [--adapter both|with|without] [--out FILE]

SmolLM2-135M-Instruct is asked about this repository's own files, in the product's words: prompts of three lengths, 128
greedy tokens, with and without a LoRA adapter of rank 16 (random weights: what it says means nothing, what it costs is
right). Every contender is a process of its own that waits while another has its turn, and each repetition goes through
all of them. The others read the same token ids that the product's engine makes of the messages.

- ``transformers``: its own ``generate`` in float32, an adapter merged into the weights.
- ``inhouse``: the product's engine as it is, in 8 bits where it takes them; ``inhouse-warm`` has just answered another
  question about the same passages; ``inhouse-full``: with full weights, in bfloat16 where the processor multiplies it;
  ``inhouse-float32``: in float32 everywhere.
- ``llama-shipped``, ``llama-q8_0``, ``llama-f16``: llama.cpp's server on the GGUF file as shipped (Q4_1), and on what
  it holds written as Q8_0 and float16; the adapter as ``inhouse adapters export --format gguf`` writes it. Prompts are
  read anew each time. Needs ``pip install xllamacpp``.
- ``openvino-q8_0``, ``openvino-f16``: OpenVINO GenAI on such files, computing in float32; an adapter is merged into
  the file. Needs ``pip install openvino-genai``, best in an environment of its own beside the product's packages.

For each it prints median and range of the time to the first token, of tokens a second after it and of the whole, the
processor time, and how many tokens are those that transformers gave. With other jobs on the machine only the processor
time means something, and only with ``--threads 1``: threads that wait for each other spin.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any

RANK = 16
VERSION = "rank-16"
CONTENDERS = (
    "transformers", "inhouse", "inhouse-warm", "inhouse-full", "inhouse-float32", "llama-shipped",
    "llama-q8_0", "llama-f16", "openvino-q8_0", "openvino-f16",
)  # fmt: skip
PACKAGES = {"llama": "xllamacpp", "openvino": "openvino_genai"}
QUESTIONS = (
    "Explain step by step, and at length, how this code works and which function calls which.",
    "Write tests for this code, one for each public function, and explain each of them.",
)


@dataclass(frozen=True, slots=True)
class Files:
    """What the contenders read: weights of the base and of the base with the adapter merged, and the adapter."""

    peft: str
    shipped: str
    lora: str
    gguf: dict[str, str]
    merged: dict[str, str]


@dataclass(frozen=True, slots=True)
class Turn:
    """One question, as messages and as token ids. ``other`` asks something else about the same passages."""

    messages: list[tuple[str, str]]
    other: list[tuple[str, str]]
    ids: list[int]
    tokens: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds from the question to the first and to the last token, processor seconds, and the tokens."""

    first: float
    whole: float
    processor: float
    ids: list[int]

    @property
    def rate(self) -> float:
        """Tokens a second after the first."""
        return (len(self.ids) - 1) / (self.whole - self.first) if self.whole > self.first else 0.0


# ----------------------------------------------------------------------------------------------------------
# Contenders. Each gives token ids as they come.

Answering = Callable[[Turn], Iterator[list[int]]]


def transformers_contender(name: str, files: Files, adapter: bool, threads: int) -> Answering:
    import queue
    import threading

    import torch

    from inhouse_training import load_model, resolve_base_model

    model = load_model(resolve_base_model(), "cpu", torch.float32)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, files.peft).merge_and_unload()

    class Streamer:
        def __init__(self) -> None:
            self.came: queue.SimpleQueue[list[int] | None] = queue.SimpleQueue()

        def put(self, ids: Any) -> None:
            self.came.put(ids.flatten().tolist())

        def end(self) -> None:
            self.came.put(None)

    def answer(turn: Turn) -> Iterator[list[int]]:
        streamer = Streamer()
        ids = torch.tensor([turn.ids])
        asked = {"attention_mask": torch.ones_like(ids), "max_new_tokens": turn.tokens, "do_sample": False}

        def generate() -> None:
            try:
                model.generate(ids, streamer=streamer, **asked)
            finally:  # also when it fails, and then no tokens have come
                streamer.came.put(None)

        thread = threading.Thread(target=generate)
        thread.start()
        streamer.came.get()  # the prompt itself
        yield from iter(streamer.came.get, None)
        thread.join()

    return answer


def inhouse_contender(name: str, files: Files, adapter: bool, threads: int) -> Answering:
    import torch

    from inhouse_training import (
        BASE,
        GenerationRequest,
        InProcessEngine,
        Message,
        TransformersEngine,
        answering_weights,
        load_engine,
        resolve_base_model,
    )

    base, adapters = resolve_base_model(), lambda version: Path(files.peft)
    if name in ("inhouse-full", "inhouse-float32"):
        dtype = torch.float32 if name == "inhouse-float32" else None
        engine: InProcessEngine = TransformersEngine(base, adapters, device="cpu", dtype=dtype)
    else:
        engine = load_engine(base, adapters, "auto", answering_weights("auto", False, base))
    made: list[int] = []
    events = engine._events

    def seen(tokens: Generator[int, None, None]) -> Generator[int, None, None]:
        """The engine's own tokens; the protocol tells only text."""
        with contextlib.closing(tokens):
            for token in tokens:
                made.append(token)
                yield token

    engine._events = lambda tokens, *rest: events(seen(tokens), *rest)  # type: ignore[method-assign]

    def ask(messages: list[tuple[str, str]], count: int) -> Iterator[list[int]]:
        made.clear()
        said = tuple(Message(role, text) for role, text in messages)  # type: ignore[arg-type]
        told = 0
        for _ in engine.stream(GenerationRequest(said, VERSION if adapter else BASE, count), Event()):
            if len(made) > told:
                yield made[told:]
                told = len(made)

    def answer(turn: Turn) -> Iterator[list[int]]:
        return ask(turn.messages, turn.tokens)

    def prepare(turn: Turn) -> None:
        engine.forget()
        if name == "inhouse-warm":
            list(ask(turn.other, turn.tokens))

    answer.prepare = prepare  # type: ignore[attr-defined]
    return answer


def llama_contender(name: str, files: Files, adapter: bool, threads: int) -> Answering:
    import xllamacpp

    params = xllamacpp.CommonParams()
    kind = name.partition("-")[2]
    params.model.path = files.shipped if kind == "shipped" else files.gguf[kind]
    params.port, params.n_ctx, params.n_parallel = 0, 8192, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    if adapter:
        lora = xllamacpp.CommonAdapterLoraInfo()
        lora.path, lora.scale = files.lora, 1.0
        params.lora_adapters = [lora]
    server = xllamacpp.Server(params)

    def answer(turn: Turn) -> Iterator[list[int]]:
        body = {"prompt": turn.ids, "n_predict": turn.tokens, "temperature": 0, "cache_prompt": False, "stream": True}
        request = urllib.request.Request(
            f"{server.listening_address}/completion",
            json.dumps(body | {"return_tokens": True}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as lines:
            for line in lines:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    if event.get("tokens") and not event.get("stop"):
                        yield event["tokens"]

    return answer


def openvino_contender(name: str, files: Files, adapter: bool, threads: int) -> Answering:
    import queue
    import threading

    from inhouse_training import eight_bits  # noqa: F401  # first: OpenVINO would report that it is used

    # isort: split
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    kind = name.partition("-")[2]
    path = (files.merged if adapter else files.gguf)[kind]
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    pipeline = genai.LLMPipeline(path, "CPU", **options)
    end = json.loads((Path(files.shipped).parent / "config.json").read_text())["eos_token_id"]

    class Streamer(genai.StreamerBase):  # type: ignore[misc]  # a compiled module without types
        def __init__(self) -> None:
            super().__init__()
            self.came: queue.SimpleQueue[list[int] | None] = queue.SimpleQueue()

        def write(self, token: Any) -> Any:
            self.came.put([token] if isinstance(token, int) else [int(each) for each in token])
            return genai.StreamingStatus.RUNNING

        def end(self) -> None:
            self.came.put(None)

    def answer(turn: Turn) -> Iterator[list[int]]:
        streamer = Streamer()
        config = genai.GenerationConfig(max_new_tokens=turn.tokens, do_sample=False, eos_token_id=end)
        ids = np.array([turn.ids], dtype=np.int64)
        given = genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids)))

        def generate() -> None:
            try:
                pipeline.generate(given, config, streamer)
            finally:
                streamer.came.put(None)

        thread = threading.Thread(target=generate)
        thread.start()
        yield from iter(streamer.came.get, None)
        thread.join()

    return answer


MAKERS = {
    "transformers": transformers_contender,
    "inhouse": inhouse_contender,
    "llama": llama_contender,
    "openvino": openvino_contender,
}


def work(name: str, files: Files, adapter: bool, threads: int) -> None:
    """The child process: answers each line of its input with one line."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand between the answers
    if name.startswith("inhouse"):
        import inhouse_training  # noqa: F401  # before torch: it says how threads wait for each other
    import torch

    torch.set_num_threads(threads)
    answering = MAKERS[name.partition("-")[0]](name, files, adapter, threads)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        turn = Turn(**json.loads(line))
        if hasattr(answering, "prepare"):
            answering.prepare(turn)
        began, processor, first = time.perf_counter(), time.process_time(), 0.0
        ids: list[int] = []
        for some in answering(turn):
            first = first or time.perf_counter() - began
            ids += some
        whole = time.perf_counter() - began
        if not ids:
            raise SystemExit(f"{name} gave no tokens.")
        measured = Measured(first, whole, time.process_time() - processor, ids)
        print(json.dumps(asdict(measured)), file=answers, flush=True)


class Contender:
    """A child process with its model loaded."""

    def __init__(self, name: str, files: Path, adapter: bool, threads: int) -> None:
        command = [sys.executable, __file__, "--work", name, "--files", str(files), "--threads", str(threads)]
        self.name = name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the child
        # OpenMP reads its number of threads as it is loaded, so the child gets it before.
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._child = subprocess.Popen(
            [*command, "--adapter", "with" if adapter else "without"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )

    def _line(self) -> str:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self._log.seek(0)
            said = "".join(self._log.readlines()[-15:])
            raise SystemExit(f"{self.name} ended with code {self._child.wait()}:\n{said}")
        return line

    def ready(self) -> None:
        assert self._line().strip() == "ready"

    def ask(self, turn: Turn) -> Measured:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(asdict(turn)) + "\n")
        self._child.stdin.flush()
        return Measured(**json.loads(self._line()))

    def close(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._log.close()


# ----------------------------------------------------------------------------------------------------------
# Files and prompts


def make_files(folder: Path, kinds: Sequence[str]) -> Files:
    """Write the adapter, its export and the weights in each of ``kinds``."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    from inhouse_training import AdapterManifest, Registry, export_adapter, load_model, resolve_base_model

    base = resolve_base_model()
    (shipped,) = base.path.glob("*.gguf")
    peft = folder / VERSION
    torch.manual_seed(0)
    model = get_peft_model(
        load_model(base, "cpu", torch.float32),
        LoraConfig(
            r=RANK, lora_alpha=RANK, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
        ),
    )
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if ".lora_B." in parameter_name:
                parameter.mul_(0.3)  # about a tenth of each layer's own output
    model.save_pretrained(peft)
    registry = Registry(folder / "adapters")
    version = registry.add(peft, AdapterManifest(base.name, base.sha256, "0")).version
    lora = export_adapter(registry, version, base, folder / "export", "gguf").path
    weights, merged = {}, {}
    if kinds:
        plain = load_model(base, "cpu", torch.float32)
        weights = {kind: _write_gguf(folder / f"{kind}.gguf", plain, shipped, kind) for kind in kinds}
        plain = PeftModel.from_pretrained(plain, peft).merge_and_unload()
        merged = {kind: _write_gguf(folder / f"merged-{kind}.gguf", plain, shipped, kind) for kind in kinds}
    return Files(str(peft), str(shipped), str(lora), weights, merged)


def _write_gguf(path: Path, model: Any, shipped: Path, kind: str) -> str:
    """A model's weights in the place of those of the shipped file, in another type; norms stay float32."""
    import gguf

    from inhouse_training.export import _heads, _interleave

    wanted = {"q8_0": gguf.GGMLQuantizationType.Q8_0, "f16": gguf.GGMLQuantizationType.F16}[kind]
    reader = gguf.GGUFReader(shipped)
    writer = gguf.GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "general.file_type"):
            writer.add_key_value(field.name, field.contents(), field.types[0], (*field.types[1:2], None)[0])
    writer.add_file_type({"f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}[kind])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    shape = model.config.to_dict()
    present = {tensor.name for tensor in reader.tensors}
    for name, weight in model.state_dict().items():
        known = names.get_name(name, try_suffixes=(".weight",))
        if known not in present:  # the head, which is the table of embeddings
            continue
        values = weight.float().numpy()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            values = _interleave(values, _heads(name.removesuffix(".weight"), shape))
        kept = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else wanted
        writer.add_tensor(known, gguf.quants.quantize(values, kept), raw_dtype=kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def make_turn(tokenizer: Any, length: int, number: int, tokens: int) -> Turn:
    """A question about this repository's files whose prompt has at most ``length`` tokens, and few less."""
    from inhouse_training import Message
    from inhouse_training.prompts import SYSTEM, chat_ids, code_block

    root = Path(__file__).resolve().parents[1]
    files = sorted((root / "training/inhouse_training").glob("*.py"))
    lines = [(file, line) for file in files[number:] for line in file.read_text(encoding="utf-8").splitlines()]

    def messages(count: int, question: str) -> list[tuple[str, str]]:
        parts = ["Passages of the repository:\n"]
        for file in dict.fromkeys(file for file, _ in lines[:count]):
            of_file = [line for each, line in lines[:count] if each == file]
            parts.append(code_block(str(file.relative_to(root)), 1, len(of_file), "\n".join(of_file)))
        return [("system", SYSTEM), ("user", "\n".join([*parts, question]))]

    def ids(count: int) -> list[int]:
        said = [Message(role, text) for role, text in messages(count, QUESTIONS[0])]  # type: ignore[arg-type]
        return chat_ids(tokenizer, said, add_generation_prompt=True)

    low, high = 0, len(lines)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(ids(middle)) <= length else (low, middle - 1)
    return Turn(messages(low, QUESTIONS[0]), messages(low, QUESTIONS[1]), ids(low), tokens)


# ----------------------------------------------------------------------------------------------------------
# The run


def same_tokens(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two answers have in common from their beginning on."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def spread(values: Sequence[float], digits: int = 2) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def row(name: str, found: Sequence[Measured], reference: Sequence[Measured]) -> str:
    """One line of the table; ``reference`` are the answers of transformers to the same questions, or none."""
    same = [same_tokens(one.ids, other.ids) for one, other in zip(found, reference, strict=False)]
    whole = [len(each.ids) for each in found]
    equal = "not compared" if not same else "all" if same == whole else f"first {min(same)}"
    cells = [
        name,
        spread([each.first for each in found]),
        spread([each.rate for each in found], 1),
        spread([each.whole for each in found]),
        spread([each.processor for each in found], 1),
        f"{min(whole)} to {max(whole)}",
        equal,
    ]
    return f"| {' | '.join(cells)} |"


def installed(names: Sequence[str]) -> list[str]:
    """Those whose package is there; says what is missing for the others."""
    kept = []
    for name in names:
        package = PACKAGES.get(name.partition("-")[0])
        if package is None or importlib.util.find_spec(package):
            kept.append(name)
        else:
            print(f"{name} is left out: it needs `pip install {package.replace('_', '-')}`.")
    return kept


def compare(
    names: Sequence[str], file: Path, adapter: bool, turns: dict[int, list[Turn]], threads: int
) -> list[dict[str, Any]]:
    """Ask every contender every question, the contenders in turn, and print a table for each length."""
    contenders = [Contender(name, file, adapter, threads) for name in names]
    told = []
    try:
        for each in contenders:
            each.ready()
            each.ask(turns[min(turns)][0])  # warms up: kernels are chosen and memory is taken
        for length, asked in turns.items():
            found: dict[str, list[Measured]] = {name: [] for name in names}
            for turn in asked:
                for each in contenders:
                    found[each.name].append(each.ask(turn))
            sizes = [len(turn.ids) for turn in asked]
            which = "with an adapter" if adapter else "without an adapter"
            print(f"\nprompts of {min(sizes)} to {max(sizes)} tokens, {which}, n={len(asked)}\n")
            print(
                "| engine | first token, s | tokens/s after it | whole, s | processor, s | tokens | as transformers |"
            )
            print("|---|---|---|---|---|---|---|")
            for name in names:
                print(row(name, found[name], found.get("transformers", [])), flush=True)
                told.append(
                    {"engine": name, "length": length, "adapter": adapter, "runs": [asdict(m) for m in found[name]]}
                )
    finally:
        for each in contenders:
            each.close()
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="500,2000,6000")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--only", default=",".join(CONTENDERS))
    parser.add_argument("--adapter", choices=["both", "with", "without"], default="both")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--files", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        given = Files(**json.loads(arguments.files.read_text()))
        work(arguments.work, given, arguments.adapter == "with", arguments.threads)
        return
    names = installed([name for name in CONTENDERS if name in arguments.only.split(",")])
    from inhouse_training import load_tokenizer, resolve_base_model

    tokenizer = load_tokenizer(resolve_base_model())
    lengths = [int(each) for each in arguments.lengths.split(",")]
    turns = {
        each: [make_turn(tokenizer, each, number, arguments.tokens) for number in range(arguments.times)]
        for each in lengths
    }
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    print(f"{arguments.threads} threads, {model.partition(': ')[2]}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as scratch:
        kinds = [kind for kind in ("q8_0", "f16") if any(name.endswith(kind) for name in names)]
        file = Path(scratch) / "files.json"
        file.write_text(json.dumps(asdict(make_files(Path(scratch), kinds))))
        told = []
        for adapter in (False, True):
            if arguments.adapter in ("both", "with" if adapter else "without"):
                told += compare(names, file, adapter, turns, arguments.threads)
    if arguments.out:
        arguments.out.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
