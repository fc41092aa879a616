"""Socket Mode: the bot reaches out to Slack over a WebSocket, so nothing of the house is reachable from outside."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from slack_bolt import App
from slack_bolt.adapter.socket_mode import SocketModeHandler
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from inhouse_retrieval.errors import InhouseError
from inhouse_server.slack.bot import Allowed, Asking, Bot

log = logging.getLogger(__name__)

AT_ONCE = 8
_TIMEOUT_S = 10


@contextlib.contextmanager
def connected(url: str, bot_token: str, app_token: str, allowed: Allowed, ask: Asking) -> Iterator[str]:
    """Hear and answer until the block ends; gives the bot's own user id.

    Raises:
        InhouseError: Slack is not reached, or refuses a token.
    """
    web = WebClient(token=bot_token, base_url=url, timeout=_TIMEOUT_S)
    with _plainly("the bot's token"):
        me = str(web.auth_test()["user_id"])
    bot = Bot(web, me, allowed, ask)
    answering = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="slack")
    app = App(client=web, token_verification_enabled=False, listener_executor=answering, logger=log)

    def hear(event: dict[str, Any]) -> None:
        bot.hear(event)

    app.event("app_mention")(hear)
    app.event("message")(hear)
    handler = SocketModeHandler(app, app_token)
    try:
        with _plainly("the app-level token"):
            handler.client.connect()
        yield me
    finally:
        bot.stop()
        # It waits for its workers, of which one may just be waiting for Slack.
        leaving = threading.Thread(target=handler.client.close, name="slack-leaving", daemon=True)
        leaving.start()
        leaving.join(2)
        answering.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _plainly(what: str) -> Iterator[None]:
    try:
        yield
    except SlackApiError as error:
        raise InhouseError(
            f"Slack refuses {what}: {error.response.get('error')}.", "Correct it, and the app's scopes."
        ) from error
    except (SlackClientError, OSError) as error:
        raise InhouseError(
            f"Slack is not reached ({type(error).__name__}: {error}).", "Look at the network, or at slack.url."
        ) from error
