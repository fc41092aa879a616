"""A question over a connection that is open already, such as an editor's: counted, and noted when it has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from inhouse_retrieval.errors import InhouseError
from inhouse_server.access.audit import Work


@dataclass(slots=True)
class Noting:
    """What is noted of a question.

    Attributes:
        work: ``None`` until a model did some.
        status: as that of an HTTP answer, where it went well.
    """

    work: Work | None = None
    status: int = 200


Asking = Callable[[str], AbstractContextManager[Noting]]
"""Called with the name of a question, around its answer.

Raises:
    TooMuch: on entering.
"""


class TooMuch(InhouseError):
    """A token asked more than it may."""


class TooOften(TooMuch):
    """More in a minute."""

    def __init__(self, wait_s: float) -> None:
        super().__init__("This token has asked too much in the last minute.", f"Ask again in {max(1, wait_s):.0f} s.")


class TooManyOpen(TooMuch):
    """More at once."""

    def __init__(self) -> None:
        super().__init__("This token has too many requests open.", "Ask again when one of them has been answered.")


@contextmanager
def uncounted(what: str) -> Iterator[Noting]:
    """Where nobody counts."""
    yield Noting()
