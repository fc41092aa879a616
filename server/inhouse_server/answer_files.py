"""Answers kept as Markdown files, for editors that open a document. No torch, no pygls: the relay writes them, too."""

from __future__ import annotations

import datetime
import re
import uuid
from pathlib import Path

from inhouse_retrieval.errors import InhouseError, StateUnwritable

_KEPT = 200
"""Older answers are deleted: their names begin with their time."""
_NAME = re.compile(r"\d{8}-\d{6}-[a-z0-9-]{1,60}\.md")


def answers_folder(state_dir: Path) -> Path:
    return state_dir / "answers"


def answer_name(question: str) -> str:
    """Name of a Markdown file after the time and the question."""
    slug = re.sub(r"[^a-z0-9]+", "-", question.lower())[:48].strip("-") or "question"
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"{now}-{slug}-{uuid.uuid4().hex[:4]}.md"


def write_answer(folder: Path, name: str, text: str) -> Path:
    """Write an answer into the folder of answers; the oldest ones go.

    Raises:
        InhouseError: ``name`` is not one of :func:`answer_name`, and could lie anywhere.
        StateUnwritable: it cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise InhouseError(f"{name!r} is not the name of an answer.")
    file = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob("*.md"))[: -_KEPT + 1]:
            old.unlink(missing_ok=True)
        file.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise StateUnwritable(
            f"The answer cannot be written to {folder}: {error.strerror}.",
            "Free some space or change state_dir.",
        ) from error
    return file
