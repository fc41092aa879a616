"""Learning a repository: base models, prompts, data, fine-tuning, evaluation, the adapter registry, the
engine.

Names load on first use, so that importing the package costs nothing: torch comes in with the first model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base_model import BaseModel as BaseModel
    from .base_model import load_model as load_model
    from .base_model import load_tokenizer as load_tokenizer
    from .base_model import resolve_base_model as resolve_base_model
    from .engine import BASE as BASE
    from .engine import Engine as Engine
    from .engine import Finished as Finished
    from .engine import GenerationEvent as GenerationEvent
    from .engine import GenerationRequest as GenerationRequest
    from .engine import Message as Message
    from .engine import RowScore as RowScore
    from .engine import ScoredRow as ScoredRow
    from .engine import TextDelta as TextDelta
    from .prompts import SYSTEM as SYSTEM
    from .prompts import AnswerPrompt as AnswerPrompt
    from .prompts import build_answer_prompt as build_answer_prompt
    from .prompts import chat_ids as chat_ids
    from .prompts import chat_row as chat_row
    from .prompts import raw_row as raw_row
    from .registry import AdapterManifest as AdapterManifest
    from .registry import AdapterVersion as AdapterVersion
    from .registry import Registry as Registry
    from .transformers_engine import TransformersEngine as TransformersEngine

_MODULE_OF = {
    "AdapterManifest": "registry",
    "AdapterVersion": "registry",
    "AnswerPrompt": "prompts",
    "BASE": "engine",
    "BaseModel": "base_model",
    "Engine": "engine",
    "Finished": "engine",
    "GenerationEvent": "engine",
    "GenerationRequest": "engine",
    "Message": "engine",
    "Registry": "registry",
    "RowScore": "engine",
    "SYSTEM": "prompts",
    "ScoredRow": "engine",
    "TextDelta": "engine",
    "TransformersEngine": "transformers_engine",
    "build_answer_prompt": "prompts",
    "chat_ids": "prompts",
    "chat_row": "prompts",
    "load_model": "base_model",
    "load_tokenizer": "base_model",
    "raw_row": "prompts",
    "resolve_base_model": "base_model",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
