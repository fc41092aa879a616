"""How a long job reports where it is, and how it is stopped.

A job calls ``progress(stage, done, total)`` often. Whoever started the job draws it, and stops the job by
raising :class:`~inhouse_retrieval.errors.Cancelled` from that call.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""``(stage, done, total)``; ``total`` is ``None`` while it is unknown."""


def no_progress(stage: str, done: int, total: int | None) -> None:
    """Report to nobody."""
