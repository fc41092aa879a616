"""One recipe on one GPU, on two that have the whole model each, and on two that have it split: speed, memory, losses.

    python benchmarks/several_gpus.py [--rank 64] [--rows 4] [--tokens 8192] [--steps 5] [--seconds 230] [--out FOLDER]
    python benchmarks/several_gpus.py --interrupt stop  # runs of two GPUs are told to stop after two steps, and go on
    python benchmarks/several_gpus.py --interrupt kill  # one of the two processes is killed then, and the run goes on
    python benchmarks/several_gpus.py --tiny      # the same three runs of a tiny model on two processors

Mistral-7B's shape with random weights, drawn on the first GPU; rows of random tokens, each one document of full length;
LoRA on all seven linear modules in float32. Every run is the product's own (``inhouse_training.finetune``): child
processes, TRL's trainer, a whole adapter at the end. A step has the same rows in all three. Tokens a second are of the
steps after the first two. Memory is what `nvidia-smi` says is in use on the fullest card, four times a second; losses
are compared step by step with those of one GPU. ``--seconds`` begins no further run that would not be over by then.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

import inhouse_training.finetune
from inhouse_retrieval import Cancelled, InhouseError
from inhouse_training import BaseModel
from inhouse_training.finetune import finetune, training_curve
from inhouse_training.recipe import Recipe, parse_recipe

WAYS = (("one GPU", 1, "auto"), ("two, the whole model on each", 2, "none"), ("two, the model split", 2, "full"))
WARM_UP = 2
RECIPE = """
base_model = "random"
[data]
max_tokens = {tokens}
[lora]
rank = {rank}
alpha = {rank}
targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
[optimizer]
learning_rate = 1e-4
accumulate = {rows}
[trainer]
kind = "trl"
checkpointing = "{checkpointing}"
checkpoint_seconds = {between}
"""


def make_base(folder: Path, tiny: bool) -> BaseModel:
    """A model folder: random weights of Mistral-7B's shape, or of a tiny one, and a tokenizer that nothing asks."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import AutoModelForCausalLM, MistralConfig, PreTrainedTokenizerFast, set_seed

    sizes: dict[str, Any] = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336}
    sizes |= {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    if tiny:
        sizes = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 128}
        sizes |= {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = MistralConfig(**sizes, sliding_window=None, max_position_embeddings=32768)
    set_seed(1)
    with torch.device("cpu" if tiny else "cuda"):  # seven billion numbers take minutes to draw on a processor
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32 if tiny else torch.bfloat16)
    model.save_pretrained(folder)
    words = {"<pad>": 0, "<s>": 1, "</s>": 2}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<pad>")),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template="{{ messages[0]['content'] }}",
    )
    tokenizer.save_pretrained(folder)
    del model
    if not tiny:
        torch.cuda.empty_cache()
    return BaseModel("random", folder, "0" * 64, "")


def make_rows(folder: Path, rows: int, tokens: int, vocabulary: int) -> Path:
    """A dataset folder with rows of random tokens, as far as training reads it."""
    import torch
    from datasets import Dataset
    from datasets.arrow_writer import ArrowWriter

    torch.manual_seed(3)
    ids = torch.randint(3, vocabulary, (rows, tokens)).tolist()
    folder.mkdir(parents=True)
    made = Dataset.from_dict({"input_ids": ids, "labels": ids})
    with ArrowWriter(path=str(folder / "rows.arrow"), features=made.features) as writer:
        for row in made:
            writer.write(row)
        writer.finalize()
    manifest = {"rows": rows, "row_tokens": rows * tokens, "rows_sha256": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@contextmanager
def memory_watched(tiny: bool, every: float = 0.25) -> Iterator[list[int]]:
    """The most memory in use on any card meanwhile, in MiB, as its only element in the end."""
    most, done = [0], threading.Event()
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]

    def watch() -> None:
        while not done.wait(every):
            told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
            most[0] = max(most[0], *map(int, told.split()))

    watcher = threading.Thread(target=watch, daemon=True)
    if not tiny:
        watcher.start()
    try:
        yield most
    finally:
        done.set()
        if not tiny:
            watcher.join()


def stop_after_warm_up(stage: str, done: int, total: int | None) -> None:
    """Progress of a run that is cancelled when two steps are done."""
    if stage == "training" and done >= WARM_UP:
        raise Cancelled("Enough.")


def kill_after_warm_up(killed: list[int]) -> Callable[[str, int, int | None], None]:
    """Progress of a run of which the last process is killed, once, when two steps are done."""
    strangers = {child.pid for child in psutil.Process().children()}

    def told(stage: str, done: int, total: int | None) -> None:
        if stage == "training" and done >= WARM_UP and not killed:
            killed.extend(sorted({child.pid for child in psutil.Process().children()} - strangers)[-1:])
            os.kill(killed[0], signal.SIGKILL)

    return told


def break_off(base: BaseModel, rows: Path, recipe: Recipe, folder: Path, how: str) -> str:
    """Begin a run that does not come to its end; what it said.

    Raises:
        RuntimeError: it came to its end.
    """
    killed: list[int] = []
    try:
        finetune(base, rows, recipe, folder, stop_after_warm_up if how == "stop" else kill_after_warm_up(killed))
    except Cancelled:
        return "stopped"
    except InhouseError as error:
        if not killed:
            raise
        return str(error)
    raise RuntimeError("The run came to its end, though it was broken off.")


def run(base: BaseModel, rows: Path, recipe: Recipe, folder: Path, tiny: bool, interrupt: str | None) -> dict[str, Any]:
    """Train once; its figures."""
    began, steps, said = time.monotonic(), list[int](), ""

    def told(stage: str, done: int, total: int | None) -> None:
        if stage == "training":
            steps.append(done)

    with memory_watched(tiny) as most:
        if interrupt:
            said = break_off(base, rows, recipe, folder, interrupt)
        finetune(base, rows, recipe, folder, told)
    curve = training_curve(folder)
    later = curve[WARM_UP:]
    tokens = later[-1].tokens - curve[WARM_UP - 1].tokens
    return {
        "tokens_per_second": round(tokens / sum(step.seconds for step in later)),
        "card_gib": round(most[0] / 1024, 1),
        "broken_off": said,
        "went_on_after": steps[0],
        "losses": [step.loss for step in curve],
        "step_seconds": [step.seconds for step in curve],
        "seconds": round(time.monotonic() - began, 1),
    }


def table(told: list[dict[str, Any]]) -> str:
    """The figures of all runs as a Markdown table."""
    lines = [
        "| way | tokens/s | times one GPU | GiB of a card | largest difference of a loss |",
        "|---|---|---|---|---|",
    ]
    first = told[0]
    for row in told:
        if "losses" not in row:
            lines.append(f"| {row['way']} | {row.get('failed', row.get('not_run'))} | | | |")
            continue
        times = apart = ""
        if "losses" in first:
            times = f"{row['tokens_per_second'] / first['tokens_per_second']:.2f}"
            apart = f"{max(abs(a - b) for a, b in zip(row['losses'], first['losses'], strict=True)):.6f}"
        lines.append(f"| {row['way']} | {row['tokens_per_second']:,} | {times} | {row['card_gib']} | {apart} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--rows", type=int, default=4, help="rows in a step")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of a row")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--checkpointing", default="selective", help="as in a recipe, the same in all runs")
    parser.add_argument("--seconds", type=float, default=230.0)
    parser.add_argument("--out", type=Path, help="a folder for the figures and the trainers' logs")
    parser.add_argument("--interrupt", choices=("stop", "kill"), help="the speed is then that of two beginnings")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    began, longest, told = time.monotonic(), 0.0, list[dict[str, Any]]()
    if arguments.tiny:
        inhouse_training.finetune.visible_gpus = lambda: ("0", "1")  # two processors stand for them
    tokens = 128 if arguments.tiny else arguments.tokens
    between = 0 if arguments.interrupt == "kill" else 3600
    text = RECIPE.format(
        tokens=tokens,
        rank=arguments.rank,
        rows=arguments.rows,
        checkpointing=arguments.checkpointing,
        between=between,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = make_base(folder / "base", arguments.tiny)
        vocabulary = 320 if arguments.tiny else 32000
        rows = make_rows(folder / "rows", arguments.rows * arguments.steps, tokens, vocabulary)
        print(json.dumps({"made": "weights and rows", "seconds": round(time.monotonic() - began, 1)}), flush=True)
        for number, (way, gpus, sharding) in enumerate(WAYS):
            recipe = parse_recipe(f'{text}gpus = {gpus}\nsharding = "{sharding}"\n', "several", "several.toml")
            row: dict[str, Any] = {"way": way}
            if time.monotonic() - began + longest > arguments.seconds:
                row |= {"not_run": "out of time"}
            else:
                try:
                    interrupt = arguments.interrupt if gpus > 1 else None
                    row |= run(base, rows, recipe, folder / str(number), arguments.tiny, interrupt)
                    longest = max(longest, row["seconds"])
                except Exception as error:
                    row |= {"failed": str(error)}
            told.append(row)
            print(json.dumps(row), flush=True)
            if arguments.out:
                arguments.out.mkdir(parents=True, exist_ok=True)
                for log in (folder / str(number)).glob("trainer*.log"):
                    shutil.copy(log, arguments.out / f"{number}-{log.name}")
                (arguments.out / "several_gpus.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    print(table(told))
    return int(any("failed" in row for row in told))


if __name__ == "__main__":
    sys.exit(main())
