"""What the fleet knows of one server. The fleet's lock guards it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from inhouse_retrieval.errors import InhouseError
from inhouse_server.engines.openai_engine import OpenAIEngine
from inhouse_server.vllm.client import VllmClient

TRY_AGAIN_S = 60.0
"""After a server refused an adapter, or computed something else, it is asked again this much later."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a version is not ready at a server, and when that is looked at again."""

    reason: str
    again_at: float


@dataclass(slots=True, eq=False)
class ServerState:
    """One server.

    Attributes:
        up: it answered when it was asked last, and serves the base model.
        slow: it did not answer in time when it was asked last.
        other_base: its base model was found to be another one; it is not up until a check has passed.
        problem: why it is not up.
        loaded: versions that it says it has; kept while it is not reached.
        ready: those of them that were checked since it was last lost.
        untold: those of ``ready`` whose check could not have noticed that the adapter is left out.
        failed: versions that it refused, or computed wrongly.
        answering: requests under way, by the name of the version.
    """

    client: VllmClient
    engine: OpenAIEngine
    up: bool = False
    slow: bool = False
    other_base: bool = False
    problem: str = "It was not asked yet."
    loaded: set[str] = field(default_factory=set)
    ready: set[str] = field(default_factory=set)
    untold: set[str] = field(default_factory=set)
    failed: dict[str, Failure] = field(default_factory=dict)
    answering: dict[str, int] = field(default_factory=dict)

    @property
    def busy(self) -> int:
        """Requests under way."""
        return sum(self.answering.values())

    def lost(self, error: InhouseError) -> None:
        """It must be asked, and what it has checked again, before it answers anything: it may have been restarted."""
        self.up, self.problem = False, str(error)
        self.ready.clear()
        self.untold.clear()

    def fail(self, version: str, error: InhouseError) -> None:
        """Leave ``version`` alone for a while."""
        self.ready.discard(version)
        self.failed[version] = Failure(str(error), time.monotonic() + TRY_AGAIN_S)

    def waits(self, version: str) -> bool:
        """Whether ``version`` failed a moment ago."""
        failure = self.failed.get(version)
        return failure is not None and time.monotonic() < failure.again_at
