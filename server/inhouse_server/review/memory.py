"""What was shown before: fingerprints of findings, in the state directory, where no commenter can edit them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from inhouse_retrieval import StateUnwritable

FILE_NAME = "review.json"
_KEPT = 10_000
"""Newest fingerprints kept: years of reviews."""


class ShownFindings:
    """Fingerprints of the findings that were shown, in ``state_dir``.

    A damaged file counts as an empty one: the worst that follows is a finding shown twice.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE_NAME
        self._shown: dict[str, float] = {}
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self._shown = {str(name): float(moment) for name, moment in found.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            self._shown = {}

    def __contains__(self, fingerprint: object) -> bool:
        return fingerprint in self._shown

    def add(self, fingerprints: Iterable[str]) -> None:
        """Remember that these were shown.

        Raises:
            StateUnwritable: the file cannot be written.
        """
        now = time.time()
        self._shown |= dict.fromkeys(fingerprints, now)
        newest = sorted(self._shown.items(), key=lambda item: item[1])[-_KEPT:]
        partial = self._path.with_suffix(f".{os.getpid()}.partial")
        try:
            partial.write_text(json.dumps(dict(newest)), encoding="utf-8")
            partial.replace(self._path)
        except OSError as error:
            raise StateUnwritable(
                f"What was shown cannot be kept in {self._path}: {error.strerror}.", "Make the folder writable."
            ) from error
