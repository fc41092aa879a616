"""How log lines are written: as text or as JSON, and never with a credential in them.

At debug level HTTP and WebSocket libraries log the headers that they send and receive.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime

_CREDENTIAL = re.compile(
    r"(?P<kept>bearer\s+|basic\s+|[?&]token=|inhouse-\d+=|api[-_]?key['\"]?\s*[:=,]\s*b?['\"]?)[^\s'\"&;,)\\]+"
    r"|inhouse_[0-9a-f]{12}_[\w-]{43}",
    re.IGNORECASE,
)


def without_credentials(text: str) -> str:
    """``text`` with what follows ``Bearer`` and its like taken out."""
    return _CREDENTIAL.sub(lambda found: f"{found['kept'] or ''}[removed]", text)


class PlainLines(logging.Formatter):
    """One line a record, and its traceback."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return without_credentials(super().format(record))


class JsonLines(logging.Formatter):
    """One JSON object a record: ``at``, ``level``, ``logger``, ``message``, and ``error`` with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_credentials(record.getMessage()),
        }
        if record.exc_info:
            line["error"] = without_credentials(self.formatException(record.exc_info))
        return json.dumps(line)
