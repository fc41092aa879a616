"""`inhouse slack`: the Slack bot, a process of its own that holds Slack's tokens and asks the owner."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import typer

from inhouse_retrieval.errors import InhouseError
from inhouse_server.cli.backend import OwnerBackend, locate
from inhouse_server.cli.options import HERE, RepoOption
from inhouse_server.cli.terminal import start_logging

BOT_TOKEN = "SLACK_BOT_TOKEN"
APP_TOKEN = "SLACK_APP_TOKEN"


def slack(repo: RepoOption = HERE) -> None:
    """Answer in Slack, in the channels and for the users that [slack] names, until a signal comes."""
    from inhouse_server.state_dir import prepare_state_dir

    root, settings, state_dir = locate(repo)
    if not (settings.slack.channels or settings.slack.users):
        raise InhouseError(
            "Nobody may ask in Slack yet.", 'Name channels or users in [slack], such as channels = ["C0123456789"].'
        )
    bot_token, app_token = (_from_environment(name) for name in (BOT_TOKEN, APP_TOKEN))
    try:
        from inhouse_server.slack.bot import Allowed
        from inhouse_server.slack.connection import connected
    except ModuleNotFoundError as error:
        raise InhouseError("The Slack bot needs slack-bolt.", "Install it: pip install 'inhouse[slack]'.") from error
    prepare_state_dir(state_dir)
    start_logging(state_dir, "slack")
    allowed = Allowed(frozenset(settings.slack.channels), frozenset(settings.slack.users))
    with connected(settings.slack.url, bot_token, app_token, allowed, _Owner(root)) as me:
        typer.echo(f"Answering in Slack as {me}.", err=True)
        Event().wait()  # SIGTERM and Ctrl-C interrupt it


class _Owner:
    """Asks the owner that runs now, or starts one: it may come and go."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(
        self, question: str, history: Sequence[dict[str, str]], cancel: Event
    ) -> Iterator[str | dict[str, Any]]:
        from inhouse_server.owner import ensure_owner

        return OwnerBackend(ensure_owner(self._root)).ask(question, cancel=cancel, history=history)


def _from_environment(name: str) -> str:
    if not (value := os.environ.get(name)):
        raise InhouseError(
            f"The variable {name} is not set.", "Put the app's token there; it is read from nowhere else."
        )
    return value
