"""Products of few rows by the weights of SmolLM2-135M's layers: torch's own, and with weights in oneDNN's order.

    python benchmarks/packed_products.py [--threads 2] [--rows 1 2 9 64 512] [--dtype bfloat16]

Microseconds for one product, weights as cold as they are when a whole model is passed through: each shape has as many
matrices as the model. No model is needed. What ``inhouse_training.cpu`` does with few rows rests on this table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

import inhouse_training  # noqa: F401  # before torch: it says how threads wait for each other

# isort: split
import torch
from torch.nn.functional import linear

SHAPES = ((576, 576, 60), (192, 576, 60), (1536, 576, 60), (576, 1536, 30), (49152, 576, 1))
"""Outputs, inputs, how many layers have them."""


def microseconds(products: Sequence[Callable[[], object]], times: int = 10) -> float:
    """Of one product, all of them done in turn, median of the rounds."""
    rounds = []
    for _ in range(times + 1):
        began = time.perf_counter()
        for product in products:
            product()
        rounds.append((time.perf_counter() - began) / len(products) * 1e6)
    return sorted(rounds[1:])[times // 2]


def product(given: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
    """By a weight in oneDNN's order."""
    made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(given, packed, None, "none", [], "")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 9, 64, 512])
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    print("| outputs, inputs | rows | torch, us | in oneDNN's order, us | the same numbers |\n|---|---|---|---|---|")
    with torch.inference_mode():
        for outputs, inputs, count in SHAPES:
            weights = [torch.randn(outputs, inputs, dtype=dtype) / inputs**0.5 for _ in range(count)]
            packed = [torch.ops.mkldnn._reorder_linear_weight(weight, None) for weight in weights]
            for rows in arguments.rows:
                given = torch.randn(1, rows, inputs, dtype=dtype)

                own = microseconds([partial(linear, given, weight) for weight in weights])
                other = microseconds([partial(product, given, weight) for weight in packed])
                same = (linear(given, weights[0]) == product(given, packed[0])).float().mean()
                print(f"| {outputs:,}, {inputs:,} | {rows} | {own:.0f} | {other:.0f} | {same:.0%} |", flush=True)


if __name__ == "__main__":
    main()
