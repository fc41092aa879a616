"""One base model in memory for every repository that answers with it, and no adapter of one for another.

An adapter is known to the model as ``repository/version``: its folder is looked up in the registry of that repository
alone, and a repository's :class:`RepositoryEngine` can name no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING

from inhouse_server.admission import Admission
from inhouse_server.lending import Lending
from inhouse_training import (
    BASE,
    GenerationEvent,
    GenerationRequest,
    HeldMemory,
    Message,
    Registry,
    RowScore,
    ScoredRow,
)

if TYPE_CHECKING:
    from inhouse_training import InProcessEngine
    from inhouse_training.base_model import BaseModel
    from inhouse_training.engine_choice import Batched
    from inhouse_training.fill_in import FillIn
    from inhouse_training.weights import Weights


class BaseModels:
    """The base models of this process, each loaded once. Methods may be called from any thread.

    Args:
        waiting: answers that may wait for them, of all repositories together.

    Attributes:
        admission: counts those answers, whichever repository they are of: they wait for the same models.
        lending: lends the memory of all these models, so that no repository is answered meanwhile.
    """

    def __init__(self, waiting: int) -> None:
        self.admission = Admission(self._at_once, waiting)
        self.lending = Lending()
        self.lending.holds(self._unload, lambda: None)  # the repositories load them again
        self._loading = Lock()
        self._loaded: dict[tuple[BaseModel, Batched, Weights], InProcessEngine] = {}
        self._registries: dict[str, Registry] = {}
        self._used: dict[str, tuple[BaseModel, Batched, Weights]] = {}  # by each repository

    def engine(
        self,
        base_model: str,
        repository: str,
        registry: Registry,
        batched: Batched = "auto",
        weights: Weights = "full",
    ) -> RepositoryEngine:
        """The engine of a repository; loads its base model, with these weights, unless another repository has. What it
        used before, and no other repository uses, is let go.

        Args:
            repository: its name in this process; each belongs to one registry.
            batched, weights: as :func:`~inhouse_training.load_engine` takes them.

        Raises:
            InhouseError: the base model cannot be had.
        """
        from inhouse_training import load_engine, resolve_base_model

        base = resolve_base_model(base_model)
        with self._loading:
            if self._registries.setdefault(repository, registry) is not registry:
                raise AssertionError(f"two registries cannot both be of {repository!r}")
            wanted = self._used[repository] = (base, batched, weights)
            for unused in [each for each in self._loaded if each not in self._used.values()]:
                self._loaded.pop(unused).close()
            if wanted not in self._loaded:
                self._loaded[wanted] = load_engine(base, self._folder, batched, weights)
            return RepositoryEngine(self._loaded[wanted], repository)

    def _unload(self) -> None:
        with self._loading:
            models = [*self._loaded.values()]
            self._loaded.clear()
        for model in models:
            model.close()

    def _at_once(self) -> int:
        """Answers that are made at once; one while nothing is loaded."""
        return sum(model.streams for model in list(self._loaded.values())) or 1

    def _folder(self, adapter: str) -> Path:
        """The verified folder of ``repository/version``; a repository's name has no slash."""
        repository, _, version = adapter.partition("/")
        return self._registries[repository].verify(version)


class RepositoryEngine:
    """Implements :class:`~inhouse_training.engine.Engine` for one repository, on a model that several may share."""

    def __init__(self, model: InProcessEngine, repository: str) -> None:
        self._model = model
        self._prefix = f"{repository}/"

    @property
    def base_model(self) -> str:
        return self._model.base_model

    @property
    def weights(self) -> Weights:
        return self._model.weights

    @property
    def context_tokens(self) -> int:
        return self._model.context_tokens

    @property
    def loaded_adapters(self) -> tuple[str, ...]:
        """Versions of this repository that are in memory."""
        here = (adapter for adapter in self._model.loaded_adapters if adapter.startswith(self._prefix))
        return tuple(adapter.removeprefix(self._prefix) for adapter in here)

    def held_memory(self) -> HeldMemory:
        """What this process holds of the device that the model is on."""
        return self._model.held_memory()

    @property
    def streams(self) -> int:
        """Answers that the model makes at once, those of other repositories among them."""
        return self._model.streams

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return self._model.count_tokens(messages)

    def stream(self, request: GenerationRequest, cancel: Event) -> Iterator[GenerationEvent]:
        """Generate; see the protocol."""
        return self._model.stream(replace(request, adapter=self._named(request.adapter)), cancel)

    def fill_in(self, asked: FillIn, cancel: Event) -> Iterator[GenerationEvent]:
        """Write what stands between two pieces of a file; see :meth:`InProcessEngine.fill_in`."""
        return self._model.fill_in(replace(asked, adapter=self._named(asked.adapter)), cancel)

    def prepare(self, adapter: str) -> None:
        """Have what answers with this adapter ready; see :meth:`InProcessEngine.prepare`."""
        self._model.prepare(self._named(adapter))

    def score(self, rows: Sequence[ScoredRow], adapter: str = BASE) -> list[RowScore]:
        """Negative log-likelihood of labelled tokens; see the protocol."""
        return self._model.score(rows, self._named(adapter))

    def _named(self, version: str) -> str:
        return version if version == BASE else f"{self._prefix}{version}"
