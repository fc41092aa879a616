"""Who used the owner, when and how much: the audit log, added up by day and by token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

STRANGERS = "without a valid token"
_REFUSED = frozenset({401, 403, 429})
_OPENED = 101
"""A connection that stays open; what is asked over it is noted by itself."""


@dataclass(slots=True)
class Usage:
    """What was asked, and what models did for it.

    Attributes:
        requests: HTTP requests and questions of editors.
        answers: those that a model answered.
        completions: inline completions, which editors ask by themselves.
        refused: for want of a right, or beyond a limit.
        prompt_tokens, completion_tokens: read and written by models, the encoder's among them.
        last: ISO 8601 in UTC.
    """

    requests: int = 0
    answers: int = 0
    completions: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    last: str = ""

    def add(self, line: Mapping[str, Any]) -> None:
        """Count a line of the audit log."""
        count = line.get("count", 1)
        self.last = max(self.last, line["at"])
        self.prompt_tokens += line.get("prompt_tokens", 0)
        self.completion_tokens += line.get("completion_tokens", 0)
        if "count" in line:  # noted together, as only what an editor asks by itself is
            self.completions += count
            return
        self.requests += line["status"] != _OPENED
        self.answers += "completion_tokens" in line
        self.refused += line["status"] in _REFUSED


def add_up(
    lines: Iterable[Mapping[str, Any]], days: int, counts: Callable[[str | None], bool], now: datetime | None = None
) -> dict[str, Any]:
    """``{"since", "days": […], "callers": […]}``: by UTC day, oldest first, and by token, the busiest first.

    Args:
        lines: of the audit log, oldest first.
        days: how many to tell of, today's the last.
        counts: whether what was asked about a repository of this name counts; ``None`` where that has none.
    """
    today = (now or datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0)
    names = [f"{today - timedelta(days=back):%Y-%m-%d}" for back in range(days - 1, -1, -1)]
    by_day = {name: Usage() for name in names}
    by_token: dict[str | None, tuple[str, Usage]] = {}
    since: str | None = None
    for line in lines:
        day = str(line.get("at", ""))[:10]
        if "status" not in line or not counts(line.get("repository")):
            continue  # an act of an administrator on the command line, or of nobody's concern here
        since = since or day
        if day not in by_day:
            continue
        token = line.get("token")
        by_day[day].add(line)
        # A token keeps its name for life, and another may have had that name before.
        by_token.setdefault(token, (line.get("name") or STRANGERS, Usage()))[1].add(line)
    busiest = sorted(by_token.items(), key=lambda each: -each[1][1].requests)
    return {
        "since": since,
        "days": [{"day": name, **asdict(usage)} for name, usage in by_day.items()],
        "callers": [{"token": token, "name": name, **asdict(usage)} for token, (name, usage) in busiest],
    }
