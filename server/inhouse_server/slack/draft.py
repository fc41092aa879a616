"""One message of ours that grows: edited while the answer streams, no oftener than Slack allows."""

from __future__ import annotations

import time
from threading import Event

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from inhouse_retrieval.errors import InhouseError
from inhouse_server.slack.text import LONGEST, answer_blocks, escaped, inert

EVERY_S = 1.5
"""Between two edits: `chat.update` is limited to about 50 a minute."""
_LAST_TRIES = 5
_GONE = frozenset({"message_not_found", "channel_not_found", "is_archived", "cant_update_message", "not_in_channel"})


class Draft:
    """A message in a thread.

    Args:
        stopping: set when the bot is to stop; the last edit is then tried once.

    Raises:
        InhouseError: Slack does not take the message.
    """

    def __init__(self, web: WebClient, channel: str, thread: str, stopping: Event, every_s: float = EVERY_S) -> None:
        self._web = web
        self._channel = channel
        self._stopping = stopping
        self._every_s = every_s
        self._shown = ""
        try:
            posted = web.chat_postMessage(
                channel=channel,
                thread_ts=thread,
                text="…",
                blocks=answer_blocks(""),
                parse="none",
                unfurl_links=False,
                unfurl_media=False,
            )
        except (SlackClientError, OSError) as error:
            raise InhouseError(f"Slack does not take the answer: {_reason(error)}.") from error
        self._ts = str(posted["ts"])
        self._next_at = time.monotonic() + every_s

    def grow(self, text: str) -> None:
        """Show ``text`` so far, unless the last edit was a moment ago.

        Raises:
            InhouseError: the message is gone.
        """
        if time.monotonic() < self._next_at or text == self._shown:
            return
        try:
            self._edit(text, "")
        except (SlackClientError, OSError) as error:
            if _reason(error) in _GONE:
                raise InhouseError(f"The message is gone ({_reason(error)}).") from error
            self._next_at = time.monotonic() + max(_wait_s(error), self._every_s)

    def finish(self, text: str, below: str = "") -> None:
        """The last edit; when Slack wants it later, it waits.

        Raises:
            InhouseError: Slack does not take it.
        """
        for left in range(_LAST_TRIES - 1, -1, -1):
            try:
                self._edit(text, below)
                return
            except (SlackClientError, OSError) as error:
                if not left or _reason(error) in _GONE or self._stopping.wait(max(_wait_s(error), 0.2)):
                    raise InhouseError(f"Slack does not take the end of the answer: {_reason(error)}.") from error

    def _edit(self, text: str, below: str) -> None:
        self._web.chat_update(
            channel=self._channel,
            ts=self._ts,
            text=escaped(inert(text)[:LONGEST]) or "…",
            blocks=answer_blocks(text, below),
            parse="none",
        )
        self._shown = text
        self._next_at = time.monotonic() + self._every_s


def _reason(error: Exception) -> str:
    return str(error.response.get("error")) if isinstance(error, SlackApiError) else type(error).__name__


def _wait_s(error: Exception) -> float:
    """What Slack's ``Retry-After`` says, of a refusal for too many requests."""
    if not isinstance(error, SlackApiError):
        return 0.0
    try:
        return min(float(error.response.headers.get("Retry-After") or 0), 120.0)
    except ValueError:
        return 0.0
