"""An optional second look: a cross-encoder reads the question with each of the best passages and orders them anew.

Nogueira and Cho, "Passage Re-ranking with BERT" (arXiv 1901.04085). It is off unless `[reranker]` names a model, since
one made for web pages often makes a ranking of code worse: `inhouse eval retrieval` says whether it is worth its time.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inhouse_retrieval.encoders.model_folder import find_folder, places
from inhouse_retrieval.errors import InhouseError
from inhouse_retrieval.passage import Passage

_log = logging.getLogger(__name__)
_BATCH = 4
"""Pairs scored between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class RerankerChoice:
    """A cross-encoder as it is configured.

    Attributes:
        name: a folder, or the name of a model in the hub's cache on this machine.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        passages: how many of the best passages it looks at.
        deadline_ms: how long that may take in one search.
        max_tokens: of a question and a passage together, where the model reads so many; what is longer is cut.
        trust_remote_code: the model's name once more, when code that comes with it may run.
    """

    name: str
    revision: str | None = None
    device: str = "cpu"
    passages: int = 20
    deadline_ms: int = 300
    max_tokens: int = 320
    trust_remote_code: str | None = None


@dataclass(frozen=True, slots=True)
class Reranked:
    """Passages in their new order, and how many of them were scored in time."""

    passages: tuple[Passage, ...]
    scored: int
    looked_at: int


class Reranker:
    """A cross-encoder. It loads in the background; a search that comes before it is ready is not held up.

    Args:
        clock: seconds, growing.

    Raises:
        InhouseError: the model is not on this machine.
    """

    def __init__(self, choice: RerankerChoice, clock: Callable[[], float] = time.perf_counter) -> None:
        if choice.trust_remote_code not in (None, choice.name):
            raise InhouseError(
                f"trust_remote_code names {choice.trust_remote_code!r}, but the reranker is {choice.name!r}.",
                "Name the model whose code may run, or remove the setting.",
            )
        self.choice = choice
        self._folder, _ = find_folder("reranker", choice.name, choice.revision)
        if not (self._folder / "config.json").is_file():
            raise InhouseError(
                f"There is no reranker in {self._folder}.", "Give the folder of a cross-encoder; it holds config.json."
            )
        self._clock = clock
        self._ready = threading.Event()
        self._loading: threading.Thread | None = None
        self._failed: InhouseError | None = None
        self._starting = threading.Lock()
        self._scoring = threading.Lock()
        self._model: Any = None
        self._batch_seconds = 0.0

    def load(self) -> None:
        """Wait until the model is loaded.

        Raises:
            InhouseError: it cannot be.
        """
        self._begin_loading().join()
        if self._failed is not None:
            raise self._failed

    def rerank(self, question: str, passages: Sequence[Passage]) -> Reranked:
        """The first passages by the model's score, as far as it gets in time; the others keep their place.

        Raises:
            InhouseError: the model could not be loaded.
        """
        deadline = self._clock() + self.choice.deadline_ms / 1000
        first = passages[: self.choice.passages]
        scores: list[float] = []
        self._begin_loading()
        if self._failed is not None:
            raise self._failed
        if self._ready.is_set() and self._scoring.acquire(timeout=self.choice.deadline_ms / 1000):
            try:
                scores = self._scores(question, first, deadline)
            finally:
                self._scoring.release()
        order = sorted(range(len(scores)), key=lambda at: -scores[at])
        ranked = [first[at] for at in order] + list(passages[len(scores) :])
        return Reranked(behind_newer_code(ranked), len(scores), len(first))

    def _scores(self, question: str, passages: Sequence[Passage], deadline: float) -> list[float]:
        """Of as many of the first passages as ``deadline`` allows: no batch begins that would end after it."""
        scores: list[float] = []
        for at in range(0, len(passages), _BATCH):
            began = self._clock()
            if began + self._batch_seconds > deadline:
                break
            scores += self._predict([(question, f"{p.path}\n{p.text}") for p in passages[at : at + _BATCH]])
            # Of the last few: the machine may be busier now than when it was measured first.
            self._batch_seconds += 0.5 * (self._clock() - began - self._batch_seconds)
        return scores

    def _predict(self, pairs: list[tuple[str, str]]) -> list[float]:
        return [float(score) for score in self._model.predict(pairs, batch_size=_BATCH, show_progress_bar=False)]

    def _begin_loading(self) -> threading.Thread:
        with self._starting:
            if self._loading is None:
                self._loading = threading.Thread(target=self._load, name="reranker-loading", daemon=True)
                self._loading.start()
            return self._loading

    def _load(self) -> None:
        try:
            self._model = _load_model(self.choice, self._folder)
            pairs = [("how long does a batch take", "word " * self.choice.max_tokens)] * _BATCH
            for _ in range(2):  # the first one warms up
                began = self._clock()
                self._predict(pairs)
                self._batch_seconds = self._clock() - began
            self._ready.set()
        except InhouseError as error:
            self._failed = error
        except Exception as error:  # of transformers, of torch, or of what a model's own code needs
            _log.warning("the reranker cannot be loaded", exc_info=True)
            self._failed = InhouseError(
                f"The reranker in {self._folder} cannot be loaded: {str(error).strip().splitlines()[0]}",
                "Fetch or copy it again, or remove [reranker] from inhouse.toml.",
            )


def behind_newer_code(passages: Sequence[Passage]) -> tuple[Passage, ...]:
    """Each wiki page that came before the newer code that it describes, put right behind it."""
    ordered = list(passages)
    for page in [passage for passage in passages if passage.newer_code]:
        code = next((passage for passage in ordered if passage.path == page.newer_code), None)
        if code is not None and ordered.index(page) < ordered.index(code):
            ordered.remove(page)
            ordered.insert(ordered.index(code) + 1, page)
    return tuple(ordered)


def _load_model(choice: RerankerChoice, folder: Path) -> Any:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import torch
    from sentence_transformers import CrossEncoder
    from transformers.utils import logging

    logging.disable_progress_bar()
    if choice.device.startswith("cuda") and not torch.cuda.is_available():
        raise InhouseError(
            "The reranker is to run on a GPU, and there is none here.", 'Set device = "cpu" in [reranker].'
        )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = CrossEncoder(
        str(folder),
        device=choice.device,
        max_length=min(choice.max_tokens, places(config) or choice.max_tokens),
        local_files_only=True,
        trust_remote_code=choice.trust_remote_code is not None,
    )
    if model.num_labels != 1:
        raise InhouseError(
            f"The model in {folder} gives {model.num_labels} labels and no score.",
            "Name a cross-encoder made for ranking.",
        )
    return model
