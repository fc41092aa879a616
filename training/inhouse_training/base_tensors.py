"""What a base model is, without loading it: its configuration, its layers, and its weights one at a time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .base_model import BaseModel, unreadable

TensorOf = Callable[[str], torch.Tensor]
"""A tensor by its name."""


def config_of(base: BaseModel) -> Any:
    """A base model's configuration.

    Raises:
        InhouseError: it cannot be read.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(base.path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise unreadable(base, error) from None


def hollow_model(config: Any) -> Any:
    """A model without its weights, which are on torch's ``meta`` device."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


class BaseTensors:
    """The tensors of a base model's files.

    Attributes:
        names: of all of them.

    Raises:
        InhouseError: the files cannot be read.
    """

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        self._files: dict[str, Path] = {}
        try:
            for file in _files_of(base.path):
                with safe_open(file, framework="pt") as tensors:
                    self._files.update(dict.fromkeys(tensors.keys(), file))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise unreadable(base, error) from None
        self.names = frozenset(self._files)

    @contextlib.contextmanager
    def opened(self) -> Iterator[TensorOf]:
        """Gives each as its file has it, or raises InhouseError."""
        with contextlib.ExitStack() as files:
            opened: dict[Path, Any] = {}

            def tensor_of(name: str) -> torch.Tensor:
                file = self._files.get(name)
                if file is None:
                    raise unreadable(self._base, ValueError(f"it holds no {name}"))
                try:
                    if file not in opened:
                        opened[file] = files.enter_context(safe_open(file, framework="pt"))
                    tensor: torch.Tensor = opened[file].get_tensor(name)
                except (OSError, SafetensorError) as error:
                    raise unreadable(self._base, error) from None
                return tensor

            yield tensor_of


def _files_of(folder: Path) -> list[Path]:
    """The files of weights that transformers reads, too."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists() or not index.exists():
        return [whole]
    shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [folder / name for name in sorted(set(shards))]
