"""What can go wrong with a model server, told apart so that whoever has several of them can go on with another."""

from __future__ import annotations

from inhouse_retrieval.errors import InhouseError


class ServerLost(InhouseError):
    """The server is not reached, does not answer in time, or was lost."""


class ServerSlow(ServerLost):
    """The server took the connection and did not answer in time: it may be busy, or hang."""


class NotServed(InhouseError):
    """The server does not know the model or adapter."""


class Overloaded(InhouseError):
    """The server takes nothing more for now.

    Args:
        status: what it answered, 429 (asked too often) or 503 (too much to do).
        retry_s: seconds after which to try again.
    """

    def __init__(self, problem: str, status: int, retry_s: float) -> None:
        super().__init__(problem, f"Try again in {max(1, round(retry_s))} s.")
        self.status = status
        self.retry_s = retry_s


DEFAULT_RETRY_S = 5.0
LONGEST_RETRY_S = 3600.0


def retry_after(header: str | None) -> float:
    """Seconds of a ``Retry-After`` header; a date, which servers of models do not send, counts as none."""
    try:
        seconds = float(header or "")
    except ValueError:
        return DEFAULT_RETRY_S
    return min(max(seconds, 0.0), LONGEST_RETRY_S) if seconds == seconds else DEFAULT_RETRY_S
