"""A thread as a conversation: what was asked and answered before, of all its pages."""

from __future__ import annotations

from typing import Any

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from inhouse_retrieval.errors import InhouseError
from inhouse_server.slack.text import read

NOT_ANSWERED = "Not answered: "
"""How a message of ours begins that is no answer; it is no turn of the conversation."""
MOST_TURNS = 200
_PAGE = 200
_MOST_PAGES = 50


def thread_before(web: WebClient, channel: str, root: str, ts: str, me: str) -> tuple[list[dict[str, str]], bool]:
    """``(turns before the message ts, whether one of them is ours)``; messages of one side in a row become one turn.

    Raises:
        InhouseError: Slack does not give the thread.
    """
    messages = [each for each in _messages(web, channel, root) if float(each.get("ts", "inf")) < float(ts)]
    turns: list[dict[str, str]] = []
    ours = False
    for message in messages:
        mine = message.get("user") == me
        ours = ours or mine
        text = read(str(message.get("text", "")), me)
        if not text or (mine and text.startswith(NOT_ANSWERED)) or (message.get("bot_id") and not mine):
            continue
        role = "assistant" if mine else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += "\n" + text
        else:
            turns.append({"role": role, "content": text})
    return turns[-MOST_TURNS:], ours


def _messages(web: WebClient, channel: str, root: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    for _ in range(_MOST_PAGES):
        try:
            page = web.conversations_replies(channel=channel, ts=root, limit=_PAGE, cursor=cursor or None)
        except SlackApiError as error:
            raise InhouseError(f"Slack does not give this thread ({error.response.get('error')}).") from error
        except (SlackClientError, OSError) as error:
            raise InhouseError(f"Slack does not give this thread ({type(error).__name__}).") from error
        found += page.get("messages") or []
        cursor = str((page.get("response_metadata") or {}).get("next_cursor") or "")
        if not cursor:
            return found
    raise InhouseError(f"This thread has more than {_PAGE * _MOST_PAGES} messages.")
