"""Adapters that were not trained, for what does not depend on what an adapter knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inhouse_training import BaseModel, load_model


def random_adapter(base: BaseModel, folder: Path, **changed: Any) -> Path:
    """LoRA on all linear layers with random weights: it changes what the model says, a lot."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(7)
    usual = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "init_lora_weights": False}
    config = LoraConfig(**{**usual, **changed})
    get_peft_model(load_model(base, "cpu", torch.float32), config).save_pretrained(folder)
    return folder
