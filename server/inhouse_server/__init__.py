"""inhouse_server: the owner process and every surface that questions reach it through.

Importing this package is cheap: torch, chromadb and transformers are imported only once they are needed, and what is
named here on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inhouse_server.answers import CURRENT as CURRENT
    from inhouse_server.answers import AnswerEvent as AnswerEvent
    from inhouse_server.answers import AnswerFinished as AnswerFinished
    from inhouse_server.answers import Provenance as Provenance
    from inhouse_server.answers import Question as Question
    from inhouse_server.answers import Selection as Selection
    from inhouse_server.answers import Timings as Timings

__all__ = ["CURRENT", "AnswerEvent", "AnswerFinished", "Provenance", "Question", "Selection", "Timings"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from inhouse_server import answers

    value: object = getattr(answers, name)
    globals()[name] = value
    return value
