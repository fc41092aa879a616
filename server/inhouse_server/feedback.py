"""What users said of answers: one line each in ``feedback.jsonl`` of the state directory."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from inhouse_retrieval import StateUnwritable, redact
from inhouse_server.answers import Provenance

FILE_NAME = "feedback.jsonl"


@dataclass(frozen=True, slots=True)
class Feedback:
    """A verdict on one answer.

    Attributes:
        provenance: of the answer.
        at: ISO 8601 in UTC.
    """

    question: str
    verdict: Literal["useful", "not useful"]
    note: str
    provenance: Provenance
    at: str


def keep_feedback(state_dir: Path, feedback: Feedback) -> None:
    """Append ``feedback``, secrets redacted.

    Raises:
        StateUnwritable: the file cannot be written.
    """
    said = asdict(feedback) | {"question": redact(feedback.question)[0], "note": redact(feedback.note)[0]}
    path = state_dir / FILE_NAME
    try:
        # One write in append mode: lines of two requests cannot mix.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, (json.dumps(said) + "\n").encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StateUnwritable(
            f"What you said cannot be kept in {path}: {error.strerror}.", "Free space there or make it writable."
        ) from error


def count_verdicts(state_dir: Path) -> dict[str | None, Counter[str]]:
    """Adapter version -> verdict -> how often; ``None`` stands for the base model alone."""
    counts: dict[str | None, Counter[str]] = {}
    with (
        contextlib.suppress(FileNotFoundError),
        (state_dir / FILE_NAME).open(encoding="utf-8", errors="replace") as kept,
    ):
        for line in kept:
            with contextlib.suppress(ValueError, TypeError, KeyError):  # cut short by a full disk
                said = json.loads(line)
                counts.setdefault(said["provenance"]["adapter"], Counter())[said["verdict"]] += 1
    return counts
