"""Whatever sentence-transformers can load, on a CPU or a GPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from inhouse_retrieval.embedding import Vectors, condense
from inhouse_retrieval.errors import InhouseError

if TYPE_CHECKING:
    from inhouse_retrieval.encoders.choice import EncoderSpec

_BATCH = 4
"""Texts that one thread encodes at once: larger batches are slower, with more padding and a colder cache."""
_GPU_BATCH = 64
_MAX_THREADS = 8


class SentenceEncoder:
    """A sentence-transformers model. It loads, and torch with it, at the first text."""

    def __init__(self, spec: EncoderSpec) -> None:
        self._spec = spec
        self._folder = spec.folder
        self.name = spec.name
        self.dimension = spec.folder.dimension
        self.max_tokens = spec.max_tokens
        self._lock = threading.Lock()
        self._model: Any = None
        self._threads: ThreadPoolExecutor | None = None

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._folder.count([condense(text) for text in texts])

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        return self._encode([condense(text) for text in texts], self._spec.document_prompt)

    def encode_query(self, text: str) -> Vectors:
        unit: Vectors = self._encode([text], self._spec.query_prompt)[0]
        return unit

    def _encode(self, texts: list[str], prompt: str) -> Vectors:
        model, threads = self._loaded()

        def encode(part: list[str], size: int) -> Any:
            return model.encode(
                part, prompt=prompt or None, batch_size=size, normalize_embeddings=True, show_progress_bar=False
            )

        if threads is None:
            vectors: Vectors = np.asarray(encode(texts, _GPU_BATCH), np.float32)
            return vectors
        parts = [texts[at : at + _BATCH] for at in range(0, len(texts), _BATCH)]
        return np.concatenate(list(threads.map(lambda part: encode(part, _BATCH), parts))).astype(np.float32)

    def _loaded(self) -> tuple[Any, ThreadPoolExecutor | None]:
        with self._lock:
            if self._model is None:
                self._model = _load_model(self._spec)
                self._threads = _single_threads() if self._spec.device == "cpu" else None
            return self._model, self._threads


def _load_model(spec: EncoderSpec) -> Any:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    if spec.device.startswith("cuda") and not torch.cuda.is_available():
        raise InhouseError(
            "The encoder is to run on a GPU, and there is none here.", 'Set device = "cpu" in [encoder].'
        )
    try:
        model = SentenceTransformer(
            str(spec.folder.path),
            device=spec.device,
            local_files_only=True,
            trust_remote_code=spec.trust_remote_code,
        )
    except Exception as error:  # of transformers, of torch, or of what a model's own code needs
        raise InhouseError(
            f"The encoder in {spec.folder.path} cannot be loaded: {str(error).strip().splitlines()[0]}",
            "Fetch or copy it again; one that comes with code of its own needs trust_remote_code in [encoder].",
        ) from error
    model = model.half() if spec.precision == "float16" else model.float()
    model.max_seq_length = spec.folder.max_tokens
    if (given := model.get_embedding_dimension()) != spec.folder.dimension:
        raise InhouseError(
            f"The encoder in {spec.folder.path} gives vectors of {given} numbers, its configuration says "
            f"{spec.folder.dimension}.",
            "Fetch or copy it again.",
        )
    return model


def _single_threads() -> ThreadPoolExecutor:
    """A thread for each core, in each of which torch uses that core alone.

    One batch a core is 10 to 20 % faster than one batch on all cores, and far less disturbed by other
    programs: nothing waits for the slowest core in the middle of a layer.
    """
    import torch

    count = min(_MAX_THREADS, len(os.sched_getaffinity(0)))
    all_started = threading.Barrier(count + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        all_started.wait()

    before = torch.get_num_threads()
    threads = ThreadPoolExecutor(count, thread_name_prefix="encoder")
    started = [threads.submit(begin) for _ in range(count)]
    all_started.wait()
    # The setting holds for the thread that made it and for threads still to come: give those the old one
    # back.
    torch.set_num_threads(before)
    for future in started:
        future.result()
    return threads
