"""An adapter's files are read against a model before any of them touches it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from inhouse_retrieval import InhouseError

from .base_model import BaseModel
from .chat_template import template_digest
from .registry import MANIFEST_NAME


def check_adapter(folder: Path, base: BaseModel, model: Any) -> None:
    """Read an adapter's files against a model before any of it touches that model.

    Raises:
        InhouseError: made for another base or chat template, truncated, not finite, or of another shape.
    """
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        manifest_file = folder / MANIFEST_NAME
        manifest = json.loads(manifest_file.read_text(encoding="utf-8")) if manifest_file.exists() else {}
        if manifest.get("base_sha256", base.sha256) != base.sha256:
            raise InhouseError(
                f"The adapter {folder.name} was made for another base model ({manifest.get('base_model')}, "
                f"{str(manifest['base_sha256'])[:12]}…) than {base.name} ({base.sha256[:12]}…).",
                "Promote an adapter of this base model, or configure the base model of the adapter.",
            )
        if manifest.get("chat_template") and manifest["chat_template"] != template_digest(base.path):
            raise InhouseError(
                f"The adapter {folder.name} was trained with another chat template than {base.name} has now.",
                f"Put the template in {base.path} back, or retrain.",
            )
        modules = dict(model.named_modules())
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as tensors:
            names = list(tensors.keys())
            for name in names:
                problem = _tensor_problem(name, tensors.get_tensor(name), modules)
                if problem:
                    raise refused(folder.name, problem)
        if not names or config.get("peft_type") != "LORA":
            raise refused(folder.name, "it holds no LoRA weights")
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        raise refused(folder.name, str(error).splitlines()[0]) from error


def _tensor_problem(name: str, tensor: torch.Tensor, modules: dict[str, Any]) -> str | None:
    path, kind, _ = name.removeprefix("base_model.model.").partition(".lora_")
    module = modules.get(path)
    if not kind or module is None:
        return f"it changes {path}, which this base model does not have"
    # A module that already carries adapters keeps its own features under the same names.
    sides = {"A": (1, "in_features"), "B": (0, "out_features")}
    side = sides.get(name.partition(".lora_")[2].partition(".")[0])
    if side and hasattr(module, side[1]) and tensor.shape[side[0]] != getattr(module, side[1]):
        return f"{name} has shape {tuple(tensor.shape)}, which does not fit this base model"
    return None if bool(torch.isfinite(tensor).all()) else f"{name} is not finite"


def refused(adapter: str, reason: str) -> InhouseError:
    """What whoever asks for a bad adapter is told."""
    return InhouseError(f"The adapter {adapter} is refused: {reason}.", "Promote another version, or train a new one.")
