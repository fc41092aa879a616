"""Letting a model of transformers attend in another way for a while, and which models can."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def attending(config: Any, name: str) -> Iterator[None]:
    """Let the model of this configuration attend as ``name``, registered with transformers, says meanwhile."""
    usual = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = usual


def why_not_exchanged(model: Any) -> str:
    """Why a model cannot attend by a full attention of ours, as a sentence; empty when it can."""
    config = model.config
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    if set(layers) != {"full_attention"} or getattr(config, "sliding_window", None):
        return "Some of its layers do not attend to everything."
    if not getattr(model, "_supports_attention_backend", False):
        return "Its attention cannot be exchanged."
    kinds = {str(each.rope_type) for each in model.modules() if hasattr(each, "rope_type")}
    if kinds - {"default", "linear", "llama3", "yarn"}:
        return "Its positions depend on how long a conversation is."
    odd = ("num_experts", "num_local_experts", "n_routed_experts", "kv_lora_rank", "attn_logit_softcapping")
    if any(getattr(config, name, None) for name in odd):
        return "It has experts, or an attention of its own kind."
    return ""
