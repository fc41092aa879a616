"""Tokens a second and peak memory of one LoRA training step, way by way, on one GPU.

    python benchmarks/training_throughput.py [--ways NAME …] [--seconds 420] [--out FILE]
    python benchmarks/training_throughput.py --tiny      # the same ways on a shape of two layers, also without a GPU

A model of Mistral-7B's shape with random weights in bf16, one row of 8,192 tokens, LoRA in bf16 on all seven linear
modules, AdamW. Each way runs in a process of its own: two steps to warm up, then the median of six, forward, backward
and optimiser together. Peak memory is what torch's allocator held at most.

Parity: weights, adapter and batch are drawn from the same seed, so the loss and the gradient of the first step must be
those of ``plain``. A way fails whose loss is more than ``LOSS`` apart, the norm of whose gradient is more than ``NORM``
apart, or whose gradient points elsewhere (``COSINE``, of the first layer, which it reaches last). FP8 multiplies in 8
bits and has wider bounds of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FIRST = "layers.0.self_attn.q_proj"
"""What the gradient reaches last."""
WARM_UP, STEPS = 2, 6
LOSS, NORM, COSINE = 0.02, 0.03, 0.98
LOSS_FP8, NORM_FP8, COSINE_FP8 = 0.05, 0.10, 0.90


@dataclass(frozen=True)
class Way:
    """One way of training.

    Attributes:
        every: checkpoint every so many layers; 0 checkpoints none.
        compile: ``torch.compile`` for each layer.
        liger: liger's rotary embedding, norm and gated MLP; ``loss`` its loss, fused with the output layer.
        cudnn: attention by cuDNN in place of FlashAttention 2.
        fp8: matrix products with the frozen weights in 8 bits, scaled by ``"row"`` or by ``"tensor"``.
    """

    name: str
    rank: int
    every: int = 1
    compile: bool = False
    liger: bool = False
    loss: bool = False
    cudnn: bool = False
    fp8: str = ""


WAYS = [
    Way("plain", 64),
    Way("plain, none", 64, every=0),
    Way("liger", 64, liger=True, loss=True),
    Way("liger, none", 64, every=0, liger=True, loss=True),
    Way("compile", 64, compile=True),
    Way("compile, none", 64, every=0, compile=True),
    Way("compile, cudnn", 64, compile=True, cudnn=True),
    Way("compile, cudnn, none", 64, every=0, compile=True, cudnn=True),
    Way("fp8 row, compile, cudnn, none", 64, every=0, compile=True, cudnn=True, fp8="row"),
    Way("fp8 tensor, compile, cudnn, none", 64, every=0, compile=True, cudnn=True, fp8="tensor"),
    Way("plain", 768),
    Way("liger", 768, liger=True, loss=True),
    Way("liger, every 2", 768, every=2, liger=True, loss=True),
    Way("compile, cudnn", 768, compile=True, cudnn=True),
    Way("compile, cudnn, every 2", 768, every=2, compile=True, cudnn=True),
    Way("compile, cudnn, every 4", 768, every=4, compile=True, cudnn=True),
    Way("compile, cudnn, none", 768, every=0, compile=True, cudnn=True),
    Way("fp8 row, compile, cudnn, every 2", 768, every=2, compile=True, cudnn=True, fp8="row"),
    Way("fp8 row, compile, cudnn, none", 768, every=0, compile=True, cudnn=True, fp8="row"),
]


def build(way: Way, device: str, tiny: bool) -> Any:
    """The model with its adapter, drawn from one seed; parts are exchanged after the weights are drawn."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, MistralConfig

    sizes: dict[str, Any] = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336}
    sizes |= {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    if tiny:
        sizes = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 128}
        sizes |= {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    # Wider than usual, so that the loss depends on every layer and not on the size of the vocabulary alone.
    config = MistralConfig(**sizes, sliding_window=None, initializer_range=0.05, max_position_embeddings=32768)
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
    model = get_peft_model(model, lora, autocast_adapter_dtype=False).to(torch.bfloat16)
    torch.manual_seed(2)
    for name, weights in model.named_parameters():
        if "lora_" in name:  # not zero, as it begins: every part of the adapter then has a gradient
            torch.nn.init.normal_(weights, std=0.01)
    layers = model.get_base_model().model.layers
    if way.fp8:
        to_eight_bits(layers, way.fp8)
    if way.cudnn:
        attention_by_cudnn()
    if way.compile:
        for layer in layers:
            # Without a GPU only the tracing is tried: making code for a processor takes minutes.
            layer.compile(backend="inductor" if device == "cuda" else "aot_eager")
    return model.train()


def attention_by_cudnn() -> None:
    """Leave cuDNN as the only kernel of attention; keys and values are repeated where it takes no groups of heads."""
    import torch
    from transformers.integrations import sdpa_attention

    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_math_sdp(False)
    if not torch.cuda.is_available():
        torch.backends.cuda.enable_math_sdp(True)
        return
    wide = torch.randn(1, 8, 256, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    narrow = torch.randn(1, 2, 256, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    try:
        made = torch.nn.functional.scaled_dot_product_attention(wide, narrow, narrow, is_causal=True, enable_gqa=True)
        made.sum().backward()
    except RuntimeError:
        print("cuDNN takes no groups of heads: keys and values are repeated", file=sys.stderr)
        sdpa_attention.use_gqa_in_sdpa = lambda *_: False


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


def measure(way: Way, gradients: Path, tiny: bool) -> dict[str, Any]:
    """Train for a few steps; the figures of one way."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    started = time.perf_counter()
    model = build(way, device, tiny)
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=device == "cuda", weight_decay=0.0)
    torch.manual_seed(3)
    tokens = 128 if tiny else 8192
    ids = torch.randint(0, 320 if tiny else 32000, (1, tokens), device=device)
    times, first_loss, norm = [], 0.0, 0.0
    for step in range(WARM_UP + STEPS):
        if device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        if step == 0:
            first_loss = float(loss)
            norm = float(torch.nn.utils.get_total_norm([weights.grad for weights in trained]).float())
            first = [each.grad.cpu() for name, each in model.named_parameters() if FIRST in name and each.requires_grad]
            torch.save(first, gradients / f"{way.rank}-{way.name}.pt")
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
        "loss": round(first_loss, 4),
        "gradient_norm": norm,
        "seconds": round(time.perf_counter() - started, 1),
    }


def parity(found: dict[str, Any], plain: dict[str, Any], gradients: Path) -> dict[str, Any]:
    """How far the first step is from that of ``plain``, and whether that is within bounds."""
    import torch

    mine, theirs = (
        torch.cat([each.flatten().double() for each in torch.load(gradients / f"{row['rank']}-{row['name']}.pt")])
        for row in (found, plain)
    )
    apart = abs(found["loss"] - plain["loss"])
    norm = abs(found["gradient_norm"] / plain["gradient_norm"] - 1)
    cosine = float(torch.nn.functional.cosine_similarity(mine, theirs, dim=0))
    eight = found["name"].startswith("fp8")
    bounds = (LOSS_FP8, NORM_FP8, COSINE_FP8) if eight else (LOSS, NORM, COSINE)
    told = {"loss_apart": round(apart, 4), "norm_apart": round(norm, 4), "cosine": round(cosine, 4)}
    return {**told, "parity": apart <= bounds[0] and norm <= bounds[1] and cosine >= bounds[2]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", help="numbers of ways, from 0")
    parser.add_argument("--seconds", type=float, default=3600.0, help="begin no further way after this time")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--gradients", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(json.dumps(measure(WAYS[arguments.child], arguments.gradients, arguments.tiny)))
        return 0
    began, plain, failed = time.monotonic(), dict[int, dict[str, Any]](), 0
    wanted = [int(number) for number in arguments.ways or range(len(WAYS))]
    environment = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", **os.environ}
    with tempfile.TemporaryDirectory() as scratch:
        for number in wanted:
            way = WAYS[number]
            if time.monotonic() - began > arguments.seconds:
                print(json.dumps({"name": way.name, "rank": way.rank, "not_run": "out of time"}), flush=True)
                continue
            command = [sys.executable, __file__, "--child", str(number), "--gradients", scratch]
            done = subprocess.run(
                [*command, *(["--tiny"] if arguments.tiny else [])], capture_output=True, text=True, env=environment
            )
            if done.returncode:
                said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
                row = {"name": way.name, "rank": way.rank, "failed": said[0][:300]}
                failed += 1
            else:
                row = json.loads(done.stdout.splitlines()[-1])
                plain.setdefault(way.rank, row)
                row |= parity(row, plain[way.rank], Path(scratch))
                failed += not row["parity"]
            print(json.dumps(row), flush=True)
            if arguments.out:
                with arguments.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
