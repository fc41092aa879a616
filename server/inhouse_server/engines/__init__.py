"""Engines that the server adds to the in-process one of ``inhouse_training``, behind the same protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .openai_engine import OpenAIEngine as OpenAIEngine


def __getattr__(name: str) -> object:
    if name == "OpenAIEngine":  # on first use: the openai client takes half a second to import
        from .openai_engine import OpenAIEngine

        return OpenAIEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
