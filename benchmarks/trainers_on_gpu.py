"""Trainers and recipes on one CUDA GPU: the same rows, first loss, last loss, tokens a second, memory of the card.

    python benchmarks/trainers_on_gpu.py --base FOLDER --dataset FOLDER [--recipes FILE ...] [--trainers trl unsloth]

Every recipe is trained whole with every trainer, by the product's own child process. ``--base`` is a model folder
(weights, config, tokenizer; without weights they are made up, for a comparison of speed and of first losses),
``--dataset`` one that `inhouse dataset build` made. Every adapter starts at zero, so all runs must begin with the
same loss up to their rounding. ``--rows`` takes that many of its rows, drawn with one seed. The first two steps are
left out of the tokens a second: they load kernels, and compile where the recipe asks for it; ``seconds`` has
everything.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inhouse_training import BaseModel
from inhouse_training.dataset import Dataset
from inhouse_training.finetune import finetune, training_curve
from inhouse_training.forecast import compiles
from inhouse_training.machines import this_machine
from inhouse_training.memory import GIB, Conditions, checkpointing_of, predict_memory, shape_of
from inhouse_training.recipe import Recipe, load_recipe
from inhouse_training.registry import file_sha256


def ready_base(folder: Path, scratch: Path) -> BaseModel:
    """The base in ``folder``, its weights made up when it has none."""
    if list(folder.glob("*.safetensors")):
        return BaseModel(folder.name, folder, "0" * 64, "")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    made = Path(shutil.copytree(folder, scratch / "base"))
    set_seed(1)
    # Wider than usual, so that the first loss depends on every layer and not on the size of the vocabulary alone.
    config = AutoConfig.from_pretrained(made, initializer_range=0.05)
    with torch.device("cuda"):  # seven billion numbers take minutes to draw on a processor
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(made)
    del model
    torch.cuda.empty_cache()
    return BaseModel("random", made, "0" * 64, "")


def some_rows(dataset: Path, count: int, folder: Path) -> Path:
    """A dataset of ``count`` rows of ``dataset``, in an order of their own."""
    import datasets

    folder.mkdir()
    stored = datasets.Dataset.from_file(str(dataset / "rows.arrow")).select_columns(["input_ids", "labels"])
    chosen = stored.select(random.Random(3407).sample(range(len(stored)), count))
    with datasets.arrow_writer.ArrowWriter(path=str(folder / "rows.arrow"), features=chosen.features) as writer:
        for row in chosen:
            writer.write(row)
        writer.finalize()
    tokens = sum(len(ids) for ids in chosen["input_ids"])
    manifest = {"row_tokens": tokens, "rows_sha256": file_sha256(folder / "rows.arrow")}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@contextmanager
def memory_watched(every: float = 0.2) -> Iterator[list[int]]:
    """The most memory of the first card that was in use meanwhile, in MiB, as its only element in the end."""
    most, done = [0], threading.Event()

    def watch() -> None:
        asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
        while not done.wait(every):
            most[0] = max(most[0], int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


def predicted(kind: str, base: BaseModel, dataset: Path, recipe: Recipe) -> dict[str, Any]:
    """Which layers are computed again here, and the memory that the product reckons with."""
    shape, machine = shape_of(base), this_machine()
    assert shape is not None
    tokens = recipe.optimizer.max_passes * int(Dataset(dataset).manifest["row_tokens"])
    compiled = compiles(recipe, shape, tokens, machine, kind)
    conditions = Conditions(machine.gpu, kind, machine.memory, compiled)
    return {
        "compiled": compiled,
        "checkpointing": checkpointing_of(shape, recipe, conditions),
        "predicted_gib": round(predict_memory(shape, recipe, conditions).total / GIB, 1),
    }


def run(kind: str, base: BaseModel, dataset: Path, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Train once with one trainer; its figures."""
    chosen = recipe.model_copy(update={"trainer": recipe.trainer.model_copy(update={"kind": kind})})
    began = time.monotonic()
    with memory_watched() as most:
        adapter = finetune(base, dataset, chosen, folder)
    curve = training_curve(folder)
    rates = [(step.tokens - before.tokens) / step.seconds for before, step in itertools.pairwise(curve[1:])]
    return {
        "trainer": kind,
        "recipe": recipe.name,
        "compile": recipe.trainer.compile,
        "attention": recipe.trainer.attention,
        "dtype": recipe.lora.dtype,
        **predicted(kind, base, dataset, chosen),
        "steps": len(curve),
        "first_loss": round(curve[0].loss, 4),
        "last_loss": round(curve[-1].loss, 4),
        "losses": [round(step.loss, 4) for step in curve],
        "tokens_per_second": [round(each) for each in statistics.quantiles(rates, n=4)],
        "step_seconds": [round(step.seconds, 2) for step in curve],
        "seconds": round(time.monotonic() - began, 1),
        "card_gib": round(most[0] / 1024, 1),
        "adapter_bytes": (adapter / "adapter_model.safetensors").stat().st_size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", default=["cpu-trial"])
    parser.add_argument("--trainers", nargs="+", default=["trl", "unsloth"])
    parser.add_argument("--rows", type=int, help="train on so many rows only")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base = ready_base(arguments.base, Path(scratch))
        folder = arguments.out or Path(scratch)
        dataset = arguments.dataset
        if arguments.rows:
            dataset = some_rows(dataset, arguments.rows, Path(scratch) / "rows")
        for number, name in enumerate(arguments.recipes):
            recipe = load_recipe(name)
            for kind in arguments.trainers:
                try:
                    figures = run(kind, base, dataset, recipe, folder / f"{number}-{kind}")
                except Exception as error:
                    figures = {"trainer": kind, "recipe": name, "failed": str(error)}
                print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
