"""The weights of a base model with an adapter's added, one at a time, so that never more than one is held in full."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from inhouse_retrieval import InhouseError

from ..adapter_check import check_adapter, refused
from ..base_model import BaseModel
from ..base_tensors import BaseTensors, TensorOf, config_of, hollow_model
from ..engine import BASE
from .graph import TABLE, why_not


def why_not_in_8_bits(base: BaseModel, adapter: Path | None = None) -> str | None:
    """Why a base model is not answered in 8 bits, in a sentence; ``None`` where it is.

    Reads configurations and names of tensors.

    Args:
        adapter: the folder of what it is answered with.

    Raises:
        InhouseError: the base model cannot be read.
    """
    config = config_of(base)
    if reason := why_not(config):
        return reason
    names = BaseTensors(base).names
    if TABLE not in names:
        return f"Its files hold no {TABLE}."
    return None if adapter is None else _more_than_lora(adapter, names, config)


def _more_than_lora(folder: Path, names: frozenset[str], config: Any) -> str | None:
    """Why an adapter is not two matrices for each of some linear layers of its own, in a sentence.

    Raises:
        OSError, ValueError, SafetensorError: it cannot be read.
    """
    told = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if told.get("use_dora") or told.get("bias", "none") != "none" or told.get("modules_to_save"):
        return f"The adapter {folder.name} is more than two matrices a layer."
    if told.get("fan_in_fan_out"):
        return f"The adapter {folder.name} is of layers that lie the other way."
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  # it is no dictionary
            layer = name.removeprefix("base_model.model.").removesuffix(".weight")
            layer, _, matrix = layer.rpartition(".")
            tied = layer == "lm_head" and config.tie_word_embeddings
            if matrix not in ("lora_A", "lora_B") or f"{layer}.weight" not in names or tied:
                return f"The adapter {folder.name} changes more than linear layers: {name}."
    return None


@contextlib.contextmanager
def weights_with(base: BaseModel, tensors: BaseTensors, adapter: str, folder: Path | None) -> Iterator[TensorOf]:
    """Gives the weights of a base model by name, float32, with what the adapter in ``folder`` adds.

    Raises:
        InhouseError: the adapter is corrupt, made for another base, or more than two matrices a linear layer.
    """
    added = _of_adapter(base, tensors.names, adapter, folder) if folder is not None else {}
    with tensors.opened() as tensor_of:

        def weight_of(name: str) -> torch.Tensor:
            weight = tensor_of(name).float()
            if name in added:
                down, up, factor = added[name]
                weight = weight.addmm(up, down, alpha=factor)
            return weight

        yield weight_of


def _of_adapter(
    base: BaseModel, names: frozenset[str], adapter: str, folder: Path
) -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    """For each weight that an adapter changes two matrices, float32, and the factor of their product."""
    from peft import PeftModel

    config = config_of(base)
    model = hollow_model(config)
    check_adapter(folder, base, model)
    if reason := _more_than_lora(folder, names, config):
        raise InhouseError(f"{reason} In 8 bits that cannot be answered with.", 'Set engine.weights = "full".')
    try:
        PeftModel.from_pretrained(
            model, folder, adapter_name=BASE, autocast_adapter_dtype=False, low_cpu_mem_usage=True
        )
        layers = {name: each for name, each in model.named_modules() if BASE in getattr(each, "lora_A", ())}
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as tensors:
            if len(tensors.keys()) != 2 * len(layers):
                raise ValueError("its configuration names other layers than its weights are of")
            return {
                f"{name}.weight": (
                    *(tensors.get_tensor(f"base_model.model.{name}.lora_{each}.weight").float() for each in "AB"),
                    layer.scaling[BASE],
                )
                for name, layer in layers.items()
            }
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise refused(adapter, str(error).splitlines()[0]) from error
