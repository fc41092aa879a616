"""What 8 bits cost in likelihood: the tokens of a repository's files in full weights and in 8 bits.

    python benchmarks/eight_bits.py [FOLDER] [--files 30] [--adapter FOLDER]

Reads the first 1,000 tokens of each of so many Python files of FOLDER (this repository), evenly spread over their
names, with SmolLM2 in float32, bfloat16 and 8 bits, and prints nats a token, the mean difference of a file from float32
and its bootstrap interval of 95 %.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import numpy as np

TOKENS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).resolve().parents[1])
    parser.add_argument("--files", type=int, default=30)
    parser.add_argument("--adapter", type=Path)
    arguments = parser.parse_args()

    import torch

    from inhouse_training import BASE, ScoredRow, TransformersEngine, load_engine, load_tokenizer, resolve_base_model

    base = resolve_base_model()
    tokenizer = load_tokenizer(base)
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=arguments.folder, capture_output=True, text=True, check=True
    )
    files = [file for name in listed.stdout.splitlines() if (file := arguments.folder / name).stat().st_size > 2000]
    rows = []
    for file in files[:: max(1, len(files) // arguments.files)][: arguments.files]:
        ids = tuple(tokenizer(file.read_text(encoding="utf-8"))["input_ids"][:TOKENS])
        rows.append(ScoredRow(ids, (-100, *ids[1:])))
    engines = [
        TransformersEngine(base, lambda version: arguments.adapter, device="cpu", dtype=torch.float32),
        TransformersEngine(base, lambda version: arguments.adapter, device="cpu", dtype=torch.bfloat16),
        load_engine(base, lambda version: arguments.adapter, "auto", "8bit"),
    ]
    adapter = "adapter" if arguments.adapter else BASE
    scores = [engine.score(rows, adapter) for engine in engines]
    tokens = sum(each.tokens for each in scores[0])
    full = np.array([each.nats / each.tokens for each in scores[0]])
    random = np.random.default_rng(0)
    print(
        f"{len(rows)} files, {tokens} tokens; float32: {sum(each.nats for each in scores[0]) / tokens:.4f} nats a token"
    )
    for name, found in zip(("bfloat16", "8 bits"), scores[1:], strict=True):
        apart = np.array([each.nats / each.tokens for each in found]) - full
        means = random.choice(apart, (10_000, len(apart))).mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        print(f"{name}: {apart.mean():+.4f} a file ({low:+.4f} to {high:+.4f})")


if __name__ == "__main__":
    main()
