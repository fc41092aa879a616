"""inhouse_server: the owner process and every surface that questions reach it through.

Importing this package is cheap: torch, chromadb and transformers are imported only once they are needed.
"""

from __future__ import annotations

from inhouse_server.answers import (
    CURRENT,
    AnswerEvent,
    AnswerFinished,
    Provenance,
    Question,
    Selection,
    Timings,
)

__all__ = ["CURRENT", "AnswerEvent", "AnswerFinished", "Provenance", "Question", "Selection", "Timings"]
