"""How long the likelihoods of `inhouse eval model` take, and whether a CPU and a GPU agree on them.

    python benchmarks/evaluation_speed.py prepare CLONE rows.json [--changes 100] [--without-retrieval]
    python benchmarks/evaluation_speed.py score rows.json scores.json [--device cpu|cuda] [--dtype float32|bfloat16]
    python benchmarks/evaluation_speed.py compare scores.json other.json

``prepare`` holds out the newest changes of a clone and makes the rows of one mode: files that they added, the changes
themselves, and the lines that they added, each of 2,048 tokens at most, 512 of them scored. ``score`` reads them with
SmolLM2 (``--base`` names another folder), each row once to warm up the device, and says how long it took. ``compare``
says how far two runs are apart, in nats per token.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inhouse_retrieval import Repository
from inhouse_training import BaseModel, load_recipe, load_tokenizer, resolve_base_model
from inhouse_training.cut import cut_repository, held_out_change
from inhouse_training.engine import Message, ScoredRow
from inhouse_training.evaluation import change_row, score_rows
from inhouse_training.measures.later_texts import later_changes, later_files, later_row
from inhouse_training.prompts import chat_ids
from inhouse_training.recipe import EvaluationSettings
from inhouse_training.snapshot_search import SnapshotSearch

SETTINGS = EvaluationSettings(prompt_tokens=1536, scored_tokens=512)


class Counter:
    """The part of an engine that makes rows: no model is loaded."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return len(chat_ids(self._tokenizer, messages, add_generation_prompt=True))


def prepare(arguments: argparse.Namespace) -> None:
    repository = Repository.open(arguments.clone).excluding(arguments.exclude)
    tokenizer: Any = load_tokenizer(resolve_base_model())
    recipe = load_recipe("gpu-trial")
    # A tenth of the changes that are read is held out.
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"changes": 10 * arguments.changes})})
    cut = cut_repository(repository, recipe)
    search = None if arguments.without_retrieval else SnapshotSearch(repository, cut.snapshot)
    texts = {"later_files": later_files(cut.held_out), "later_changes": later_changes(cut.held_out)}
    rows = {kind: [later_row(tokenizer, item, search, SETTINGS)[0] for item in items] for kind, items in texts.items()}
    scored = [change for change in map(held_out_change, cut.held_out) if change is not None]
    rows["later_edits"] = [change_row(Counter(tokenizer), tokenizer, each, search, SETTINGS) for each in scored]
    arguments.rows.write_text(json.dumps({kind: [asdict(row) for row in group] for kind, group in rows.items()}))
    print(f"{len(cut.held_out)} changes held out after {cut.snapshot[:12]}")
    for kind, group in rows.items():
        tokens = sum(len(row.input_ids) for row in group)
        scored_tokens = sum(label >= 0 for row in group for label in row.labels)
        longest = max(len(row.input_ids) for row in group)
        print(f"{kind}: {len(group)} rows, {tokens:,} tokens, {scored_tokens:,} scored, the longest row {longest}")


def score(arguments: argparse.Namespace) -> None:
    import torch

    from inhouse_training import TransformersEngine

    stored = json.loads(arguments.rows.read_text())
    rows = {
        kind: [ScoredRow(tuple(row["input_ids"]), tuple(row["labels"])) for row in group[: arguments.limit]]
        for kind, group in stored.items()
    }
    base = BaseModel("SmolLM2-135M-Instruct", arguments.base, "0" * 64, "") if arguments.base else resolve_base_model()
    dtype = getattr(torch, arguments.dtype) if arguments.dtype else None

    def no_adapter(version: str) -> Path:
        raise KeyError(version)

    engine = TransformersEngine(base, no_adapter, device=arguments.device, dtype=dtype)
    engine.score(next(iter(rows.values()))[:1])
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "seconds": 0.0, "cpu_seconds": 0.0, "scores": {}}
    for kind, group in rows.items():
        began, used = time.monotonic(), time.process_time()
        found = score_rows(engine, group, "base")
        result["seconds"] += time.monotonic() - began
        result["cpu_seconds"] += time.process_time() - used
        result["scores"][kind] = [asdict(each) for each in found]
        print(f"{kind}: {sum(s.nats for s in found) / sum(s.tokens for s in found):.6f} nats per token", flush=True)
    arguments.out.write_text(json.dumps(result))
    print(f"{result['seconds']:.1f} s, {result['cpu_seconds']:.1f} s of CPU on {result['threads']} threads")


def compare(arguments: argparse.Namespace) -> None:
    ours, theirs = (json.loads(path.read_text())["scores"] for path in (arguments.scores, arguments.other))
    for kind in ours:
        pairs = list(zip(ours[kind], theirs[kind], strict=True))
        tokens = sum(a["tokens"] for a, _ in pairs)
        apart = abs(sum(a["nats"] - b["nats"] for a, b in pairs)) / tokens
        worst = max(abs(a["nats"] - b["nats"]) / a["tokens"] for a, b in pairs)
        print(f"{kind}: {apart:.6f} nats per token apart, {worst:.6f} in the row that is furthest apart")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("prepare")
    first.add_argument("clone", type=Path)
    first.add_argument("rows", type=Path)
    first.add_argument("--changes", type=int, default=100)
    first.add_argument("--without-retrieval", action="store_true")
    first.add_argument("--exclude", nargs="*", default=[".yarn/releases"])
    first.set_defaults(work=prepare)
    second = commands.add_parser("score")
    second.add_argument("rows", type=Path)
    second.add_argument("out", type=Path)
    second.add_argument("--base", type=Path)
    second.add_argument("--device")
    second.add_argument("--dtype", choices=("float32", "bfloat16"))
    second.add_argument("--limit", type=int, help="so many rows of each kind only, for a trial")
    second.set_defaults(work=score)
    third = commands.add_parser("compare")
    third.add_argument("scores", type=Path)
    third.add_argument("other", type=Path)
    third.set_defaults(work=compare)
    arguments = parser.parse_args()
    arguments.work(arguments)


if __name__ == "__main__":
    main()
