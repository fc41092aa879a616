"""In how many bits the base model's weights are held while it answers and is judged.

- ``"full"``: as many as :func:`~inhouse_training.base_model.best_dtype` says.
- ``"4bit"``, on a GPU: NF4 with double quantisation, as QLoRA trains (Dettmers et al., 2023, arXiv:2305.14314), by
  bitsandbytes. An adapter of such a run was fitted to these weights, and a card of 16 GB holds no 7B model otherwise.
- ``"8bit"``, on a processor: answers only, computed by OpenVINO (:mod:`~inhouse_training.eight_bits`) more than twice
  as fast as in full. Judging is in full: a token's loss is a few thousandths of a nat higher in 8 bits
  (docs/measurements.md), less than any gate looks at.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from inhouse_retrieval import InhouseError

if TYPE_CHECKING:
    from pathlib import Path

    from .base_model import BaseModel

log = logging.getLogger(__name__)

Weights = Literal["full", "8bit", "4bit"]
AskedWeights = Literal["auto", "full", "8bit", "4bit"]


def trains_in_4bit(recipe: Mapping[str, Any]) -> bool:
    """Whether a recipe, as a version's manifest keeps it, trains beside weights in 4 bit."""
    return bool(recipe.get("trainer", {}).get("load_in_4bit"))


def weights_here(asked: AskedWeights, trained_in_4bit: bool) -> Weights:
    """What this machine judges with.

    Args:
        asked: ``"auto"`` takes 4 bits on a GPU for what was trained in 4 bits. ``"8bit"`` is about answers, and is
            ``"auto"`` here.

    Raises:
        InhouseError: as :func:`check_weights`.
    """
    from .base_model import best_device

    device = best_device()
    if asked == "auto" or asked == "8bit":
        chosen: Weights = "4bit" if device != "cpu" and trained_in_4bit else "full"
        check_weights(chosen, device, "The adapter is trained in 4 bit")
        return chosen
    check_weights(asked, device)
    return asked


def answering_weights(
    asked: AskedWeights,
    trained_in_4bit: bool,
    base: BaseModel,
    adapter: Path | None = None,
) -> Weights:
    """What this machine answers with: what it judges with, and on a processor 8 bits.

    Args:
        asked: ``"auto"`` takes 8 bits on a processor that says it has AVX2, if the base model can be had in them, with
            the adapter that is current.
        adapter: its folder; ``None`` where there is none.

    Raises:
        InhouseError: as :func:`check_weights`.
    """
    from .base_model import best_device, cpu_flags

    if asked == "8bit":
        check_weights(asked, best_device())
        return asked
    chosen = weights_here(asked, trained_in_4bit)
    if asked != "auto" or best_device() != "cpu" or "avx2" not in cpu_flags():
        return chosen
    if reason := openvino_problem() or _why_not_in_8_bits(base, adapter):
        log.warning("%s is answered with full weights, not in 8 bits, so more slowly: %s", base.name, reason)
        return chosen
    return "8bit"


def _why_not_in_8_bits(base: BaseModel, adapter: Path | None) -> str | None:
    from safetensors import SafetensorError

    from .eight_bits.tensors import why_not_in_8_bits

    try:
        return why_not_in_8_bits(base, adapter)
    except (OSError, ValueError, SafetensorError):
        return None  # the adapter is damaged: whoever asks for it is told


def check_weights(weights: Weights, device: str, reason: str = "4 bit are asked for") -> None:
    """Whether a device computes with such weights.

    Args:
        reason: why 4 bit were chosen.

    Raises:
        InhouseError: it does not, or bitsandbytes or OpenVINO is not installed.
    """
    if weights == "full":
        return
    if weights == "8bit":
        if device != "cpu":
            raise InhouseError("8 bits are computed on a processor only.", "Leave engine.weights out.")
        if problem := openvino_problem():
            raise InhouseError(
                f"8 bits are asked for. {problem}",
                "Run `pip install 'openvino>=2026.4,<2026.5'`, or set engine.weights = \"full\".",
            )
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


def openvino_problem() -> str | None:
    """Why OpenVINO cannot be used here, in a sentence; imports it."""
    try:
        from .eight_bits import graph as graph
    except ImportError as error:
        return f"OpenVINO cannot be imported: {str(error).splitlines()[0]}."
    return None


def loading_arguments(weights: Weights, device: str, dtype: Any) -> dict[str, Any]:
    """What ``from_pretrained`` is told.

    Args:
        dtype: the ``torch.dtype`` that 4-bit weights are multiplied in.
    """
    if weights == "full":
        return {}
    if weights == "8bit":
        raise ValueError("8 bits are not computed by transformers")
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
