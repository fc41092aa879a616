"""The versions of a base model that are in memory, each of them a model of its own."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection

from .model import Model

MODELS_KEPT = 2
"""Versions in memory at least: the current one, and the base or the version before."""
KEPT_BYTES = 2 << 30
"""More of them are kept up to this."""


class ModelsInMemory:
    """Implements :class:`~inhouse_training.batching.steps.Versions`: whoever was not asked for the longest makes room.

    :meth:`prepare` may be called at any time, and what only looks; the rest with the engine's turn held.

    Args:
        load: makes the model of a version, which takes seconds, or raises InhouseError.
    """

    def __init__(self, load: Callable[[str], Model]) -> None:
        self._make = load
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._ahead: dict[str, Model] = {}  # one at most, made before it is asked
        self._building = threading.Lock()  # while one is made; nobody waits for it who asks for others
        self._taking = threading.Lock()

    @property
    def versions(self) -> tuple[str, ...]:
        return (*self._models.copy(), *self._ahead.copy())

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in (*self._models.copy().values(), *self._ahead.copy().values()))

    def prepare(self, version: str) -> None:
        """Have a version ready, if it is not. Who was made ready before and was not asked for makes room.

        Raises:
            InhouseError: from ``load``.
        """
        if version in self._models:
            return
        with self._building:
            if version not in self._models and version not in self._ahead:
                made = self._make(version)
                with self._taking:
                    self._ahead = {version: made}

    def has(self, version: str) -> bool:
        if version in self._models:
            self._models.move_to_end(version)
        return version in self._models

    def can_add(self, in_use: Collection[str]) -> bool:
        sizes = [self._models[each].nbytes for each in in_use]
        return _fits(sizes)

    def add(self, version: str, in_use: Collection[str]) -> list[str]:
        """Take a version into use. Gives those that made room.

        Raises:
            InhouseError: from ``load``.
        """
        gone = []
        sizes = {name: each.nbytes for name, each in self._models.items()}
        for name in [each for each in sizes if each not in in_use]:
            if _fits(list(sizes.values())):
                break
            del self._models[name], sizes[name]
            gone.append(name)
        self._models[version] = self._made_ahead(version) or self._made_now(version)
        return gone

    def _made_ahead(self, version: str) -> Model | None:
        with self._taking:
            return self._ahead.pop(version, None)

    def _made_now(self, version: str) -> Model:
        with self._building:
            return self._made_ahead(version) or self._make(version)

    def row(self, version: str) -> int:
        return list(self._models).index(version)

    def of_row(self, row: int) -> Model:
        """The model whose :meth:`row` that is."""
        return list(self._models.values())[row]

    def __getitem__(self, version: str) -> Model:
        return self._models[version]

    def clear(self) -> None:
        self._models.clear()
        self._ahead = {}


def _fits(sizes: list[int]) -> bool:
    """Whether there is room for one more, which is as large as those that are there."""
    return len(sizes) < MODELS_KEPT or sum(sizes) + max(sizes) <= KEPT_BYTES
