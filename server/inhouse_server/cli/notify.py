"""Telling another system how a retraining ended: one POST to the webhook of ``[retrain]`` in `inhouse.toml`."""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import urlsplit

LIMIT_S = 10.0
"""For the whole call, however slowly the other side reads and answers."""


def notify(webhook: str, content: dict[str, Any]) -> str | None:
    """POST ``content`` as JSON. A redirect is not followed: the configuration named one address, and no other.

    Returns:
        Why it was not delivered, as a sentence without the address, which often carries a secret; ``None`` when it was.
    """
    outcome: list[str | None] = []
    # In a thread of its own: the timeouts of an HTTP client bound each read, and a slow answer has many.
    sender = threading.Thread(target=lambda: outcome.append(_post(webhook, content)), name="webhook", daemon=True)
    sender.start()
    sender.join(LIMIT_S)
    reason = outcome[0] if outcome else f"it took longer than {LIMIT_S:.0f} s"
    return reason and f"The webhook at {urlsplit(webhook).hostname} was not told of this run: {reason}."


def _post(webhook: str, content: dict[str, Any]) -> str | None:
    import httpx

    try:
        with httpx.stream("POST", webhook, json=content, timeout=LIMIT_S, follow_redirects=False) as answer:
            if answer.is_success:
                return None
            return f"it answered {answer.status_code}" + (", and no redirect is followed" if answer.is_redirect else "")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
        return f"{type(error).__name__} while calling it"
