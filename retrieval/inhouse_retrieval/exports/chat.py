"""Chat: an export of Slack, as a folder or the zip file that it comes in.

The format is Slack's own ("How to read Slack data exports"): ``users.json``, ``channels.json``, and a JSON list of
messages for each day, ``CHANNEL/2024-03-01.json``. Replies name the first message of their thread, and may come on
later days. Messages outside threads are put together while they follow each other within an hour.
"""

from __future__ import annotations

import html
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from inhouse_retrieval.exports.archive import Archive
from inhouse_retrieval.exports.thread import People, Post, Thread, cleaned, with_text
from inhouse_retrieval.secrets import redact
from inhouse_retrieval.snapshot import SkippedFile

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\.json")
_PAUSE = timedelta(hours=1)
_TALK = 50
"""Messages of a talk at most, so that a channel without a pause is no single thread."""
_WRITTEN = frozenset({None, "thread_broadcast", "file_share", "me_message"})
"""Subtypes that people write; the others are joins, bots, topics and the like."""
_MENTION = re.compile(r"<(?P<mark>[@#!]?)(?P<what>[^<>|\n]{1,2000})(?:\|(?P<label>[^<>\n]{0,2000}))?>")

Message = dict[str, Any]


def read_chat(path: Path, shown: str) -> Iterator[Thread | SkippedFile]:
    """The threads of an export, channel after channel.

    Two passes over each channel: the first one notes where threads end, so that only open threads are held.

    Args:
        shown: what the export is called in names and reasons.
    """
    try:
        archive = Archive(path, shown)
    except (OSError, zipfile.BadZipFile) as error:
        yield SkippedFile(shown, f"no zip archive and no folder: {type(error).__name__}")
        return
    with archive:
        yield from archive.skipped
        roles = _roles(archive)
        days: dict[str, list[str]] = {}
        for name in archive.names:
            if len(PurePosixPath(name).parts) > 1 and _DAY.fullmatch(PurePosixPath(name).name):
                days.setdefault(str(PurePosixPath(name).parent), []).append(name)
        if not days:
            yield SkippedFile(shown, "it holds no channel with a file for each day")
        for channel, names in days.items():
            yield from _Channel(archive, shown, channel, roles).threads(names)


def _roles(archive: Archive) -> dict[str, str]:
    """User id -> role. An export without readable users has members only."""
    roles: dict[str, str] = {}
    for name in archive.names:
        if PurePosixPath(name).name == "users.json":
            for user in _items(archive.read(name)):
                if isinstance(user.get("id"), str):
                    roles[user["id"]] = _role(user)
    return roles


def _role(user: Message) -> str:
    if user.get("is_bot") or user.get("id") == "USLACKBOT":
        return ""
    if user.get("is_owner") or user.get("is_admin"):
        return "admin"
    return "guest" if user.get("is_restricted") else "member"


class _Channel:
    def __init__(self, archive: Archive, shown: str, channel: str, roles: dict[str, str]) -> None:
        self._archive = archive
        self._shown = shown
        self._channel = channel
        self._roles = roles

    def threads(self, days: list[str]) -> Iterator[Thread | SkippedFile]:
        ends: dict[str, int] = {}
        for day, name in enumerate(days):
            read = self._archive.read(name)
            if isinstance(read, SkippedFile):
                yield read
                continue
            messages = _parsed(read)
            if messages is None:
                yield SkippedFile(f"{self._shown}:{name}", "no JSON list of messages")
            for message in messages or ():
                if root := message.get("thread_ts"):
                    ends[str(root)] = day
        opened: dict[str, list[Message]] = {}
        talk: list[Message] = []
        for day, name in enumerate(days):
            for message in _items(self._archive.read(name)):
                if not self._is_written(message):
                    continue
                if root := message.get("thread_ts"):
                    opened.setdefault(str(root), []).append(message)
                    continue
                if talk and (_pause(talk[-1], message) > _PAUSE or len(talk) == _TALK):
                    yield from self._thread(talk)
                    talk = []
                talk.append(message)
            for root in [root for root in opened if ends[root] <= day]:
                yield from self._thread(opened.pop(root))
        yield from self._thread(talk)

    def _is_written(self, message: Message) -> bool:
        user = message.get("user")
        return (
            message.get("type", "message") == "message"
            and message.get("subtype") in _WRITTEN
            and not message.get("bot_id")
            and isinstance(user, str)
            and self._roles.get(user, "member") != ""
            and isinstance(message.get("text"), str)
            and _moment(message) is not None
        )

    def _thread(self, messages: Iterable[Message]) -> Iterator[Thread]:
        people = People()
        posts: list[Post] = []
        first = ""
        for message in sorted(messages, key=_written_at):
            at = _moment(message)
            if at is None:
                continue
            first = first or str(message.get("thread_ts") or message["ts"])
            role = people.role(message["user"], self._roles.get(message["user"]) or "member")
            posts.append(Post(role, at, cleaned(self._plain(redact(message["text"])[0], people))))
        if told := with_text(posts):
            name = f"{self._shown}:{self._channel}/{first}"
            yield Thread("chat", name, f"#{PurePosixPath(self._channel).name}", told)

    def _plain(self, text: str, people: People) -> str:
        def told(match: re.Match[str]) -> str:
            mark, what, label = match["mark"], match["what"], match["label"]
            if mark == "@":
                return f"@{people.role(what, self._roles.get(what) or 'member')}"
            if mark == "#":
                return f"#{label or what}"
            if mark == "!":
                return label or f"@{what.partition('^')[0]}"
            return f"{label} ({what})" if label and label != what else what

        return html.unescape(_MENTION.sub(told, text))


def _parsed(data: bytes) -> list[Message] | None:
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return [item for item in told if isinstance(item, dict)] if isinstance(told, list) else None


def _items(data: bytes | SkippedFile) -> list[Message]:
    return (_parsed(data) or []) if isinstance(data, bytes) else []


def _moment(message: Message) -> datetime | None:
    """When it was written or last edited."""
    edited = message.get("edited")
    stamp = edited.get("ts") if isinstance(edited, dict) else None
    try:
        return datetime.fromtimestamp(max(float(message["ts"]), float(stamp or 0)), UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def _written_at(message: Message) -> float:
    return float(message["ts"])


def _pause(before: Message, after: Message) -> timedelta:
    return timedelta(seconds=_written_at(after) - _written_at(before))
