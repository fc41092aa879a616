"""In how many bits the base model's weights are held while it answers and is judged.

- ``"full"``: as many as :func:`~inhouse_training.base_model.best_dtype` says.
- ``"4bit"``, on a GPU: NF4 with double quantisation, as QLoRA trains (Dettmers et al., 2023, arXiv:2305.14314), by
  bitsandbytes. An adapter of such a run was fitted to these weights, and a card of 16 GB holds no 7B model otherwise.

Eight bits on a processor were tried: torch's own product (``_weight_int8pack_mm``) reads a quarter of the bytes and was
no faster than float32 for a whole answer (docs/measurements.md).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from typing import Any, Literal

from inhouse_retrieval import InhouseError

Weights = Literal["full", "4bit"]
AskedWeights = Literal["auto", "full", "4bit"]


def trains_in_4bit(recipe: Mapping[str, Any]) -> bool:
    """Whether a recipe, as a version's manifest keeps it, trains beside weights in 4 bit."""
    return bool(recipe.get("trainer", {}).get("load_in_4bit"))


def weights_here(asked: AskedWeights, trained_in_4bit: bool) -> Weights:
    """What this machine answers and judges with.

    Args:
        asked: ``"auto"`` takes 4 bits on a GPU for what was trained in 4 bits.

    Raises:
        InhouseError: as :func:`check_weights`.
    """
    from .base_model import best_device

    device = best_device()
    if asked == "auto":
        chosen: Weights = "4bit" if device != "cpu" and trained_in_4bit else "full"
        check_weights(chosen, device, "The adapter is trained in 4 bit")
        return chosen
    check_weights(asked, device)
    return asked


def check_weights(weights: Weights, device: str, reason: str = "4 bit are asked for") -> None:
    """Whether a device computes with such weights.

    Args:
        reason: why they were chosen.

    Raises:
        InhouseError: it does not, or bitsandbytes is not installed.
    """
    if weights == "full":
        return
    if not device.startswith("cuda"):
        raise InhouseError(f"{reason}, which needs a GPU.", 'Leave engine.weights out, or set it to "full".')
    if not has_bitsandbytes():
        raise InhouseError(
            f"{reason}, so answers are made in 4 bit, and bitsandbytes is not installed.",
            "Install the extra with `pip install 'inhouse[gpu]'`, or set engine.weights = \"full\".",
        )


def has_bitsandbytes() -> bool:
    """Whether it is installed; it is not imported."""
    return importlib.util.find_spec("bitsandbytes") is not None


def loading_arguments(weights: Weights, device: str, dtype: Any) -> dict[str, Any]:
    """What ``from_pretrained`` is told.

    Args:
        dtype: the ``torch.dtype`` that 4-bit weights are multiplied in.
    """
    if weights == "full":
        return {}
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def is_in_4_bits(layer: Any) -> bool:
    """Whether a layer is one of bitsandbytes' linear layers with 4-bit weights."""
    loaded = sys.modules.get("bitsandbytes")
    return loaded is not None and type(layer) is loaded.nn.Linear4bit
