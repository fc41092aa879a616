"""Rows on disk while it is not known yet which of them are taken, and in which order.

A memory-mapped file would do as well, but each page of it that was read counts as memory of the process: in the end as
much as the dataset is large. Here a row is read when it is asked for, and forgotten again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_IDS = ("input_ids", "labels")


class RowSpool:
    """Rows in the order in which they were appended, in a file that is removed with :meth:`close`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b")
        self._places: list[tuple[int, int, int]] = []  # where a row begins, its tokens, the bytes of its other columns

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row: ``input_ids`` and ``labels`` of equal length, and columns that JSON can hold."""
        ids = np.array([row[column] for column in _IDS], "<i4")
        rest = json.dumps({name: value for name, value in row.items() if name not in _IDS}).encode("ascii")
        begins = self._file.tell()
        self._file.write(ids.tobytes() + rest)
        self._places.append((begins, ids.shape[1], len(rest)))

    def read(self, number: int) -> dict[str, Any]:
        """The row that was appended as ``number``, counted from 0; nothing is appended after the first one is read."""
        begins, tokens, rest = self._places[number]
        self._file.seek(begins)
        ids = np.frombuffer(self._file.read(2 * 4 * tokens), "<i4").reshape(2, tokens).tolist()
        return {**dict(zip(_IDS, ids, strict=True)), **json.loads(self._file.read(rest))}

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
        self._path.unlink()
