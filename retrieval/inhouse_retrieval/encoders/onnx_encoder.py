"""BERT encoders in 8 bits by onnxruntime, without torch: the default."""

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

_MAX_THREADS = 8
_GRAPH_VERSION = 1
"""Raise it with every change of :mod:`~inhouse_retrieval.encoders.bert_graph` that moves vectors."""


class OnnxEncoder:
    """A BERT encoder on the CPU, one text a core at a time. Its weights are read at the first text."""

    def __init__(self, spec: EncoderSpec) -> None:
        self._spec = spec
        self._folder = spec.folder
        self.name = f"{spec.name}, onnxruntime {_GRAPH_VERSION}"
        self.dimension = spec.folder.dimension
        self.max_tokens = spec.max_tokens
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._folder.count([condense(text) for text in texts])

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        return self._loaded().vectors([self._spec.document_prompt + condense(text) for text in texts])

    def encode_query(self, text: str) -> Vectors:
        unit: Vectors = self._loaded().vectors([self._spec.query_prompt + text])[0]
        return unit

    def _loaded(self) -> _Running:
        with self._lock:
            if self._running is None:
                self._running = _Running(self._spec)
            return self._running


class _Running:
    """A loaded model and a thread for each core.

    Each text keeps one core busy from end to end. That is faster than a text on all cores, and far less disturbed by
    other programs: nothing waits for the slowest core in the middle of a layer.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        import onnxruntime

        from inhouse_retrieval.encoders.bert_graph import bert_model

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        folder = spec.folder
        try:
            model = bert_model(folder.path, folder.config, folder.pooling)
            self._session: Any = onnxruntime.InferenceSession(model.graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the weights do not fit the configuration, in one of many ways
            raise InhouseError(
                f"The encoder in {folder.path} cannot be loaded: {str(error).strip().splitlines()[0]}.",
                "Fetch or copy it again.",
            ) from error
        self._words, self._places = model.words, model.places
        self._tokenizer = folder.tokenizer(truncate_at=folder.max_tokens)
        count = min(_MAX_THREADS, len(os.sched_getaffinity(0)))
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="encoder")

    def vectors(self, texts: list[str]) -> Vectors:
        """Unit vectors, float32 [len(texts), dimension]."""
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        found = np.concatenate(list(self._threads.map(self._vector, encoded)))
        units: Vectors = found / np.linalg.norm(found, axis=1, keepdims=True)
        return units

    def _vector(self, ids: list[int]) -> Vectors:
        embedded = self._words[ids] + self._places[: len(ids)]
        vector: Vectors = self._session.run(None, {"embedded": embedded[None]})[0]
        return vector
