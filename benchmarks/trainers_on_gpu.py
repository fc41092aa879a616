"""The two trainers on one CUDA GPU: the same rows, the same recipe, first loss, last loss, tokens a second.

    python benchmarks/trainers_on_gpu.py --base FOLDER --dataset FOLDER [--recipe FILE] [--out FOLDER]

``--base`` is a model folder (weights, config, tokenizer; without weights they are made up, for a comparison of
speed and of first losses), ``--dataset`` one that `inhouse dataset build` made. Every adapter starts at zero, so both
trainers must begin with the same loss up to their rounding.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from inhouse_training import BaseModel
from inhouse_training.finetune import finetune, training_curve
from inhouse_training.recipe import Recipe, load_recipe


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
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(made)
    return BaseModel("random", made, "0" * 64, "")


def run(kind: str, base: BaseModel, dataset: Path, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Train once with one trainer; its figures."""
    chosen = recipe.model_copy(update={"trainer": recipe.trainer.model_copy(update={"kind": kind})})
    adapter = finetune(base, dataset, chosen, folder / kind)
    curve = training_curve(folder / kind)
    later = curve[2:] or curve
    return {
        "trainer": kind,
        "steps": len(curve),
        "first_loss": round(curve[0].loss, 4),
        "last_loss": round(curve[-1].loss, 4),
        "tokens_per_second": round((later[-1].tokens - curve[1].tokens) / max(sum(s.seconds for s in later), 1e-9)),
        "adapter_bytes": (adapter / "adapter_model.safetensors").stat().st_size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--recipe", default="cpu-trial")
    parser.add_argument("--trainers", nargs="+", default=["trl", "unsloth"])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base = ready_base(arguments.base, Path(scratch))
        folder = arguments.out or Path(scratch)
        recipe = load_recipe(arguments.recipe)
        for kind in arguments.trainers:
            try:
                print(json.dumps(run(kind, base, arguments.dataset, recipe, folder)), flush=True)
            except Exception as error:
                print(json.dumps({"trainer": kind, "failed": str(error)}), flush=True)


if __name__ == "__main__":
    main()
