"""What a user is told when something is wrong: one sentence with the problem, one with the remedy."""

from __future__ import annotations


class InhouseError(Exception):
    """A problem that the user can do something about. Surfaces print it as it is, never a traceback.

    Args:
        problem: one sentence that says what is wrong.
        remedy: one sentence that says what to do; may be empty when nothing can be done.
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem} {remedy}".strip())
        self.problem = problem
        self.remedy = remedy


class NotARepository(InhouseError):
    """The folder is not inside a git work tree."""


class NoCommits(InhouseError):
    """The repository has no commit yet, so there is nothing to learn from."""


class Busy(InhouseError):
    """Another inhouse process holds this repository's state."""


class StateUnwritable(InhouseError):
    """The state directory cannot be written: read-only, or the disk is full."""


class VectorsUnreachable(InhouseError):
    """The server that holds the vectors does not answer, or must not be used. Searches go by words meanwhile."""


class Cancelled(InhouseError):
    """The user or a signal stopped the job; what was finished is kept."""

    exit_code = 130
