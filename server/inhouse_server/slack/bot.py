"""Which messages are answered, and how."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, Protocol

from slack_sdk import WebClient

from inhouse_retrieval.errors import Cancelled, InhouseError
from inhouse_server.slack.draft import EVERY_S, Draft
from inhouse_server.slack.text import read, sources
from inhouse_server.slack.thread import NOT_ANSWERED, thread_before

log = logging.getLogger(__name__)

_REMEMBERED = 1000
_STOPPING = Cancelled("the bot is stopping.", "Ask again in a moment.")
LEAVE_S = 5.0
"""What answers under way may take to say that they were stopped."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Who is answered where, by Slack's ids. Nobody is, until something is named.

    Attributes:
        channels: conversations in which everybody is answered, or those of ``users`` where any are named.
        users: who may write to the bot directly.
    """

    channels: frozenset[str]
    users: frozenset[str]

    def admits(self, channel: str, user: str, direct: bool) -> bool:
        """Whether a message of ``user`` in ``channel`` is answered."""
        if direct:
            return user in self.users
        return channel in self.channels and (not self.users or user in self.users)


class Asking(Protocol):
    """What answers: pieces of text, then the answer contract."""

    def __call__(
        self, question: str, history: Sequence[dict[str, str]], cancel: Event
    ) -> Iterator[str | dict[str, Any]]: ...


class Bot:
    """Answers what it hears. Methods may be called from any thread.

    Args:
        me: the bot's own user id.
    """

    def __init__(self, web: WebClient, me: str, allowed: Allowed, ask: Asking, every_s: float = EVERY_S) -> None:
        self._web = web
        self._me = me
        self._allowed = allowed
        self._ask = ask
        self._every_s = every_s
        self._heard: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._answering: set[Event] = set()  # what cancels each answer under way
        self._stopping = Event()

    def hear(self, event: Mapping[str, Any]) -> None:
        """Answer an ``app_mention`` or ``message`` event, if it is meant for us; returns when it is answered."""
        channel, user, ts = (str(event.get(key, "")) for key in ("channel", "user", "ts"))
        direct = event.get("channel_type") == "im"
        if event.get("bot_id") or event.get("subtype") or user in ("", self._me) or not ts:
            return
        mentioned = event.get("type") == "app_mention"
        if not mentioned and not direct and (f"<@{self._me}>" in str(event.get("text")) or not event.get("thread_ts")):
            return  # a mention comes as an event of its own
        if not self._allowed.admits(channel, user, direct):
            log.info("a message in %s is not answered: neither it nor its writer is allowed", channel)
            return
        with self._lock:
            if (channel, ts) in self._heard or self._stopping.is_set():
                return  # Slack sends again what it thinks was lost
            self._heard[channel, ts] = None
            while len(self._heard) > _REMEMBERED:
                self._heard.popitem(last=False)
            self._answering.add(cancel := Event())
        try:
            self._answer(event, channel, ts, mentioned or direct, cancel)
        except InhouseError as error:
            log.warning("%s", error)
        except Exception:
            log.exception("a message was not answered")
        finally:
            cancel.set()
            with self._idle:
                self._answering.remove(cancel)
                self._idle.notify_all()

    def stop(self) -> None:
        """End what is being answered, saying so there; returns when that is done, or after ``LEAVE_S``."""
        self._stopping.set()
        with self._idle:
            for cancel in self._answering:
                cancel.set()
            self._idle.wait_for(lambda: not self._answering, LEAVE_S)

    def _answer(self, event: Mapping[str, Any], channel: str, ts: str, asked: bool, cancel: Event) -> None:
        root = str(event.get("thread_ts") or ts)
        history: list[dict[str, str]] = []
        note = ""
        if root != ts:
            try:
                history, ours = thread_before(self._web, channel, root, ts, self._me)
            except InhouseError as error:
                if not asked:
                    raise
                note, ours = f"{error} It was answered without what was said before.", True
            if not asked and not ours:
                return  # other people's thread
        draft = Draft(self._web, channel, root, self._stopping, self._every_s)
        question = read(str(event.get("text", "")), self._me)
        text = ""
        try:
            if not question:
                raise InhouseError("there is no question.", "Ask something about the repository.")
            for piece in self._ask(question, history, cancel):
                if isinstance(piece, str):
                    text += piece
                    draft.grow(text)
                else:
                    below = sources(piece) + (f"\n{note}" if note else "")
                    draft.finish(piece["answer"].strip() or "There is no answer.", below)
                    return
            raise _STOPPING
        except Exception as error:
            problem = _STOPPING if self._stopping.is_set() else error
            known = isinstance(problem, InhouseError)
            draft.finish(NOT_ANSWERED + (str(problem) if known else "something went wrong; the bot's log says more."))
            if not known:
                raise
