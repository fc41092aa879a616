"""Tokens a second and peak memory of one LoRA training step, way by way, on one GPU.

    python benchmarks/training_throughput.py [--ways NUMBER …] [--seconds 420] [--out FILE]
    python benchmarks/training_throughput.py --list
    python benchmarks/training_throughput.py --tiny      # the same ways on a shape of four layers, also without a GPU

A model of Mistral-7B's shape with random weights in bf16, one row of 8,192 tokens, LoRA on all seven linear modules,
AdamW. Each way runs in a process of its own: two steps to warm up, then the median of six, forward, backward and
optimiser together. Peak memory is what torch's allocator held at most. A row is one document, or, ``packed``, the eight
of ``DOCUMENTS``, which may not see each other. Attention and compiled layers are the product's own
(``inhouse_training/speed.py``; where inhouse is not installed, ``PYTHONPATH=training`` is enough); ``mixed`` is the
product's adapter, in float32 under autocast, where the others have it in bf16.

Parity: before the ways of a rank, a process of its own computes loss and gradients of the same weights, adapter and row
in float32 (TF32 off), once for each kind of row. Every way tells, of its first step, the relative error and the cosine
of the gradients of ``q_proj``'s adapter in the first, the middle and the last layer to that reference, in float64, and
how far loss and norm of the whole gradient are from it. Two right kernels in bf16 differ by rounding, so a way passes
when the error of each of the three is at most ``ROOM`` times that of ``plain`` (of ``packed plain`` for packed rows),
which is bf16, too, and its loss is within ``LOSS``. A way in FP8 passes within bounds of its own: ``ERROR_FP8`` and
``LOSS_FP8``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DOCUMENTS = (2900, 1800, 1300, 900, 600, 400, 200, 92)
"""Lengths of the documents of a packed row; for a tiny shape, a 64th of each."""
WARM_UP, STEPS = 2, 6
ROOM, LOSS = 1.25, 0.02
ERROR_FP8, LOSS_FP8 = 0.5, 0.05
"""Three bits of mantissa round by 3 % on average; a gradient has passed through some 450 such products."""


@dataclass(frozen=True)
class Way:
    """One way of training.

    Attributes:
        every: checkpoint every so many layers; 0 checkpoints none.
        compile: ``torch.compile`` for each layer.
        attention: torch's as transformers calls it, cuDNN's first, the product's own, or FlexAttention.
        packed: several documents in the row.
        mixed: the adapter in float32 under autocast.
        liger: liger's rotary embedding, norm and gated MLP; ``loss`` its loss, fused with the output layer.
        fp8: matrix products with the frozen weights in 8 bits, scaled by ``"row"`` or by ``"tensor"``.
    """

    name: str
    rank: int
    every: int = 1
    compile: bool = False
    attention: Literal["sdpa", "cudnn", "documents", "flex"] = "sdpa"
    packed: bool = False
    mixed: bool = False
    liger: bool = False
    loss: bool = False
    fp8: str = ""


def fast(name: str, rank: int, every: int = 0, **others: Any) -> Way:
    """A compiled way."""
    return Way(name, rank, every, **{"compile": True, "attention": "cudnn", **others})


WAYS = [
    Way("plain", 64),
    Way("plain", 768),
    Way("packed plain", 64, packed=True),
    Way("packed plain", 768, packed=True),
    fast("compile, cudnn, none", 64),
    fast("compile, cudnn, none", 768),
    fast("packed, compile, documents, none", 64, packed=True, attention="documents"),
    fast("packed, compile, documents, none", 768, packed=True, attention="documents"),
    fast("packed, compile, flex, none", 64, packed=True, attention="flex"),
    Way("packed, mixed, none", 64, every=0, packed=True, mixed=True),
    fast("packed, mixed, compile, documents, none", 64, packed=True, mixed=True, attention="documents"),
    fast("packed, mixed, compile, documents, every 2", 768, 2, packed=True, mixed=True, attention="documents"),
    fast("fp8 row, compile, cudnn, none", 64, fp8="row"),
    fast("fp8 row, compile, cudnn, none", 768, fp8="row"),
    fast("fp8 tensor, compile, cudnn, none", 64, fp8="tensor"),
    fast("compile, cudnn, every 2", 768, 2),
    fast("compile, cudnn", 768, 1),
    fast("compile, cudnn", 64, 1),
    fast("fp8 row, compile, cudnn, every 2", 768, 2, fp8="row"),
    Way("packed, documents, none", 64, every=0, packed=True, attention="documents"),
    Way("plain, none", 64, every=0),
    Way("liger", 64, liger=True, loss=True),
    Way("liger", 768, liger=True, loss=True),
    Way("liger, none", 64, every=0, liger=True, loss=True),
    Way("liger, every 2", 768, every=2, liger=True, loss=True),
]


def build(way: Way, device: str, tiny: bool, dtype: Any = None) -> Any:
    """The model with its adapter, drawn from one seed in bf16; parts are exchanged after the weights are drawn.

    Args:
        dtype: what everything is kept in afterwards; bf16 by default.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, MistralConfig

    sizes: dict[str, Any] = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336}
    sizes |= {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    if tiny:
        sizes = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 128}
        sizes |= {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = MistralConfig(**sizes, sliding_window=None, initializer_range=0.02, max_position_embeddings=32768)
    torch.manual_seed(1)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    model.config.use_cache = False
    model.requires_grad_(False)
    if way.liger:
        from liger_kernel.transformers import apply_liger_kernel_to_mistral

        apply_liger_kernel_to_mistral(model=model, fused_linear_cross_entropy=way.loss)
    if way.every:
        model.gradient_checkpointing_enable({"use_reentrant": False}, every_n_layers=way.every)
    rank = min(way.rank, 16) if tiny else way.rank
    lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=MODULES, lora_dropout=0.0, task_type="CAUSAL_LM")
    with torch.device(device):
        model = get_peft_model(model, lora, autocast_adapter_dtype=False).to(torch.bfloat16)
    torch.manual_seed(2)
    for name, weights in model.named_parameters():
        if "lora_" in name:  # not zero, as it begins: every part of the adapter then has a gradient
            torch.nn.init.normal_(weights, std=0.01)
            if way.mixed:
                weights.data = weights.data.float()
    if dtype is not None:
        model = model.to(dtype)
    if way.fp8:
        to_eight_bits(model.get_base_model().model.layers, way.fp8)
    choose_attention(model, way)
    if way.compile:
        from inhouse_training.speed import compile_layers

        # Without a GPU only the tracing is tried: making code for a processor takes minutes.
        compile_layers(model, backend="inductor" if device == "cuda" else "aot_eager")
    return model.train()


def choose_attention(model: Any, way: Way) -> None:
    """Set the attention of the model's layers."""
    import torch

    if way.attention == "documents":
        from inhouse_training.speed import use_documents_attention

        use_documents_attention(model.get_base_model())
    elif way.attention == "flex":
        if not torch.cuda.is_available():
            raise NotHere("FlexAttention has no backward pass without a GPU")
        model.get_base_model().set_attn_implementation("flex_attention")


class NotHere(Exception):
    """A way cannot be tried on this machine; the message says why."""


@contextlib.contextmanager
def around(way: Way, device: str) -> Iterator[None]:
    """What stands around every step of a way."""
    import torch

    from inhouse_training.speed import cudnn_first

    with contextlib.ExitStack() as stack:
        if way.attention in ("cudnn", "documents"):
            stack.enter_context(cudnn_first())
        if way.mixed:
            stack.enter_context(torch.autocast(device, torch.bfloat16))
        yield


def make_row(packed: bool, device: str, tiny: bool) -> dict[str, Any]:
    """One row, drawn from one seed: ids and labels, and positions where it holds several documents."""
    import torch

    torch.manual_seed(3)
    lengths = [length // 64 for length in DOCUMENTS] if tiny else list(DOCUMENTS)
    ids = torch.randint(0, 320 if tiny else 32000, (1, sum(lengths)), device=device)
    if not packed:
        return {"input_ids": ids, "labels": ids}
    positions = torch.cat([torch.arange(length) for length in lengths if length])[None].to(device)
    return {"input_ids": ids, "labels": ids.masked_fill(positions == 0, -100), "position_ids": positions}


def norm_of(weights: list[Any]) -> float:
    """Length of the whole gradient, summed in float64."""
    return float(sum(float(each.grad.double().square().sum()) for each in weights) ** 0.5)


def kept(model: Any) -> list[Any]:
    """Gradients of ``q_proj``'s adapter in the first, the middle and the last layer."""
    import torch

    layers = model.get_base_model().config.num_hidden_layers
    found = []
    for number in (0, layers // 2, layers - 1):
        part = f"layers.{number}.self_attn.q_proj.lora_"
        grads = [each.grad.float().cpu().flatten() for name, each in model.named_parameters() if part in name]
        found.append(torch.cat(grads))
    return found


def reference(rank: int, kinds: list[bool], folder: Path, tiny: bool) -> dict[str, Any]:
    """Loss and gradients in float32, for each kind of row; they are kept in ``folder``.

    Keys and values are repeated for every head, since only torch's slowest kernel takes groups in float32, and that one
    keeps all scores.
    """
    import torch
    from transformers.integrations import sdpa_attention

    torch.backends.cuda.matmul.allow_tf32 = False
    sdpa_attention.use_gqa_in_sdpa = lambda *_: False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.backends.cuda.enable_math_sdp(False)
    began = time.perf_counter()
    model = build(Way("reference", rank), device, tiny, torch.float32)
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    for packed in kinds:
        loss = model(**make_row(packed, device, tiny), use_cache=False).loss
        loss.backward()
        told = {"loss": loss.item(), "norm": norm_of(trained), "gradients": kept(model)}
        torch.save(told, folder / f"reference-{rank}-{packed}.pt")
        model.zero_grad(set_to_none=True)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    seconds = round(time.perf_counter() - began, 1)
    return {"name": "reference, float32", "rank": rank, "peak_gib": round(peak, 1), "seconds": seconds}


def to_eight_bits(layers: Any, scaling: str) -> None:
    """Exchange the frozen linear layers under the adapters for ones that multiply in FP8 (e4m3).

    The weight is kept twice, once for each direction, which takes as much memory as once in bf16. What comes in is
    scaled as it comes: by row (token, output or input channel), or by tensor. The weight is frozen, so its own gradient
    is never needed.
    """
    import torch

    kind = torch.float8_e4m3fn
    most = torch.finfo(kind).max

    def quantised(value: Any) -> tuple[Any, Any]:
        largest = value.abs().amax(dim=-1, keepdim=True) if scaling == "row" else value.abs().amax()
        scale = (largest.float() / most).clamp(min=1e-12)
        return (value.float() / scale).clamp(-most, most).to(kind), scale

    def product(left: Any, right: Any, right_scale: Any) -> Any:
        small, scale = quantised(left)
        # By row, the second matrix has one scale for each of its columns.
        columns = right_scale.t() if scaling == "row" else right_scale
        return torch._scaled_mm(
            small, right.t(), scale_a=scale, scale_b=columns, out_dtype=torch.bfloat16, use_fast_accum=True
        )

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, scale: Any, turned: Any, turned_scale: Any) -> Any:
            ctx.save_for_backward(turned, turned_scale)
            return product(x, weight, scale)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:  # type: ignore[override]
            turned, scale = ctx.saved_tensors
            return product(gradient.contiguous(), turned, scale), None, None, None, None

    class Linear8(torch.nn.Module):
        def __init__(self, weight: Any) -> None:
            super().__init__()
            self.in_features, self.out_features = weight.shape[1], weight.shape[0]
            self.weight, self.scale = quantised(weight)
            self.turned, self.turned_scale = quantised(weight.t().contiguous())

        def forward(self, x: Any) -> Any:
            flat = x.reshape(-1, x.shape[-1])
            made = Product.apply(flat, self.weight, self.scale, self.turned, self.turned_scale)
            return made.view(*x.shape[:-1], self.out_features)

    for layer in layers:
        for module in layer.modules():
            if hasattr(module, "lora_A"):
                module.base_layer = Linear8(module.base_layer.weight.detach())


def measure(way: Way, folder: Path, tiny: bool) -> dict[str, Any]:
    """Train for a few steps; the figures of one way, with how far its first step is from the reference."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    started = time.perf_counter()
    model = build(way, device, tiny)
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=device == "cuda", weight_decay=0.0)
    row = make_row(way.packed, device, tiny)
    tokens = row["input_ids"].numel()
    times, told = [], dict[str, Any]()
    for step in range(WARM_UP + STEPS):
        if device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        with around(way, device):
            loss = model(**row, use_cache=False).loss
            loss.backward()
        if step == 0:
            told = distance(loss.item(), norm_of(trained), kept(model), way, folder)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    median = statistics.median(times[WARM_UP:])
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    return {
        "name": way.name,
        "rank": way.rank,
        "tokens_per_second": round(tokens / median),
        "spread": [round(tokens / max(times[WARM_UP:])), round(tokens / min(times[WARM_UP:]))],
        "peak_gib": round(peak, 1),
        **told,
        "first_step": round(times[0], 1),
        "seconds": round(time.perf_counter() - started, 1),
    }


def distance(loss: float, norm: float, gradients: list[Any], way: Way, folder: Path) -> dict[str, Any]:
    """How far a first step is from the reference; gradients of the first, middle and last layer."""
    import torch

    wanted = torch.load(folder / f"reference-{way.rank}-{way.packed}.pt")
    errors, cosines = [], []
    for mine, right in zip(gradients, wanted["gradients"], strict=True):
        mine, right = mine.double(), right.double()
        errors.append(float((mine - right).norm() / right.norm()))
        cosines.append(float(torch.nn.functional.cosine_similarity(mine, right, dim=0)))
    return {
        "loss": round(loss, 4),
        "loss_apart": round(abs(loss - wanted["loss"]), 5),
        "norm_apart": round(norm / wanted["norm"] - 1, 5),
        "error": [round(error, 5) for error in errors],
        "cosine": [round(cosine, 6) for cosine in cosines],
    }


def parity(way: Way, row: dict[str, Any], plain: dict[str, Any] | None) -> bool | str:
    """Whether a way computes what it should; why that cannot be said where ``plain`` was not run."""
    if way.fp8:
        return bool(row["loss_apart"] <= LOSS_FP8 and max(row["error"]) <= ERROR_FP8)
    if plain is None:
        return "not judged: the plain way of this rank and kind of row was not run before"
    within = all(mine <= ROOM * usual for mine, usual in zip(row["error"], plain["error"], strict=True))
    return bool(within and row["loss_apart"] <= LOSS)


def child(arguments: argparse.Namespace) -> int:
    """Run the reference or one way in this process, and print its figures."""
    try:
        if arguments.reference is not None:
            kinds = [bool(kind) for kind in arguments.kinds]
            row = reference(arguments.reference, kinds, arguments.folder, arguments.tiny)
        else:
            row = measure(WAYS[arguments.child], arguments.folder, arguments.tiny)
    except ModuleNotFoundError as error:
        row = {"not_run": f"{error.name} is not installed"}
    except NotHere as error:
        row = {"not_run": str(error)}
    print(json.dumps(row))
    return 0


def start(options: list[str], tiny: bool) -> dict[str, Any]:
    """Run this file as a child; what it printed, or why it failed."""
    environment = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", **os.environ}
    command = [sys.executable, __file__, *options, *(["--tiny"] if tiny else [])]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode == 0:
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return row
    said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
    return {"failed": said[0][:300]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", type=int, default=list(range(len(WAYS))), help="numbers of ways, in order")
    parser.add_argument("--list", action="store_true", help="print the ways with their numbers")
    parser.add_argument("--seconds", type=float, default=3600.0, help="begin no further way after this time")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--reference", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kinds", nargs="+", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{number:2d}  r={way.rank:<3d}  {way.name}" for number, way in enumerate(WAYS)))
        return 0
    if arguments.child is not None or arguments.reference is not None:
        return child(arguments)

    def tell(row: dict[str, Any]) -> None:
        print(json.dumps(row), flush=True)
        if arguments.out:
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    began, failed = time.monotonic(), 0
    references: dict[int, dict[str, Any]] = {}
    plain: dict[tuple[int, bool], dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number in arguments.ways:
            way = WAYS[number]
            named = {"name": way.name, "rank": way.rank}
            if time.monotonic() - began > arguments.seconds:
                tell({**named, "not_run": "out of time"})
                continue
            if way.rank not in references:
                kinds = sorted({WAYS[each].packed for each in arguments.ways if WAYS[each].rank == way.rank})
                options = ["--reference", str(way.rank), "--kinds", *[str(int(kind)) for kind in kinds]]
                made = start([*options, "--folder", scratch], arguments.tiny)
                references[way.rank] = {"name": "reference, float32", "rank": way.rank, **made}
                tell(references[way.rank])
            if "failed" in references[way.rank]:
                failed += 1
                tell({**named, "failed": "there is no reference"})
                continue
            row = {**named, **start(["--child", str(number), "--folder", scratch], arguments.tiny)}
            if "error" in row:
                if way.name in ("plain", "packed plain"):
                    plain[way.rank, way.packed] = row
                row["parity"] = parity(way, row, plain.get((way.rank, way.packed)))
            failed += "failed" in row or row.get("parity") is False
            tell(row)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
