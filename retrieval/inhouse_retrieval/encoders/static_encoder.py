"""Static models: a table of word vectors whose mean is the text's vector (model2vec, Tulkens and van Dongen, 2024)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from inhouse_retrieval.embedding import Vectors, condense
from inhouse_retrieval.errors import InhouseError

if TYPE_CHECKING:
    from inhouse_retrieval.encoders.choice import EncoderSpec


class StaticEncoder:
    """A model2vec model, or a static one of sentence-transformers, on the CPU."""

    def __init__(self, spec: EncoderSpec) -> None:
        self._spec = spec
        self._folder = spec.folder
        self.name = spec.name
        self.dimension = spec.folder.dimension
        self.max_tokens = spec.max_tokens
        self._lock = threading.Lock()
        self._model: Any = None

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._folder.count([condense(text) for text in texts])

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        return self._encode([self._spec.document_prompt + condense(text) for text in texts])

    def encode_query(self, text: str) -> Vectors:
        unit: Vectors = self._encode([self._spec.query_prompt + text])[0]
        return unit

    def _encode(self, texts: list[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        with self._lock:  # its tokenizer is told anew at each call how long a text may be
            if self._model is None:
                self._model = _load_model(self._spec)
            found = self._model.encode(texts, max_length=self._folder.max_tokens, use_multiprocessing=False)
        vectors: Vectors = np.asarray(found, np.float32)
        # A text of unknown words alone has no direction, and is like nothing.
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        units: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        return units


def _load_model(spec: EncoderSpec) -> Any:
    from model2vec import StaticModel

    try:
        model = StaticModel.from_pretrained(spec.folder.path)
    except Exception as error:  # the library passes on whatever its readers raise
        raise InhouseError(
            f"The encoder in {spec.folder.path} cannot be loaded: {str(error).strip().splitlines()[0]}.",
            "Fetch or copy it again.",
        ) from error
    if model.dim != spec.folder.dimension:
        raise InhouseError(
            f"The encoder in {spec.folder.path} gives vectors of {model.dim} numbers, its configuration says "
            f"{spec.folder.dimension}.",
            "Mend hidden_dim in its config.json, or copy it again.",
        )
    return model
