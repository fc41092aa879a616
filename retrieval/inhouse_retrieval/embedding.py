"""What an encoder is: text to unit vectors, for the dense leg of the search. The encoders are in ``encoders/``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

_DATA = re.compile(r"(?:[\d.,;:+\-xXeE\[\](){}\s]|[MmLlHhVvCcSsQqTtAaZz](?=[\s\d.,+-])){48,}|[A-Za-z0-9+/=]{120,}")
_REPEATED = re.compile(r"([^\w\s])\1{3,}")


def condense(text: str) -> str:
    """What an encoder reads of ``text``: long runs of numbers, encoded data or one repeated sign cut short.

    A drawing's path or a base64 picture costs hundreds of tokens and says nothing about the code around it.
    """
    text = _REPEATED.sub(r"\1\1\1", text)
    return _DATA.sub(lambda run: run[0] if not any(c.isdigit() for c in run[0]) else run[0][:24] + " … ", text)


class Encoder(Protocol):
    """Turns text into unit vectors. Methods may be called from any thread."""

    @property
    def name(self) -> str:
        """Changes whenever the vectors would: it is part of their cache key, and it is shown."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    def max_tokens(self) -> int:
        """Longest text that is read whole, in tokens as :meth:`count_tokens` counts them."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without the encoder's own special tokens."""

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 [len(texts), dimension]."""

    def encode_query(self, text: str) -> Vectors:
        """A unit vector, float32 [dimension]. Beyond ``max_tokens`` it is not read."""
