"""Mail: an mbox file, such as the archive of a mailing list. Threads follow ``References`` and ``In-Reply-To``.

Of each message only what its writer said is kept: no attachments, no quoted text, no signature. Two passes: the first
one reads headers, so that one thread is held at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parseaddr
from operator import itemgetter
from pathlib import Path

from inhouse_retrieval.exports.thread import People, Post, Thread, cleaned, one_line, with_text
from inhouse_retrieval.html_pages import html_to_text
from inhouse_retrieval.snapshot import SkippedFile

_MAX_MESSAGE = 5_000_000
"""Bytes of a message that are read: the text comes before the attachments."""
_MAX_HEADERS = 200_000
_REPLY = re.compile(r"^(?:\s*(?:re|fwd?|aw|wg|sv|antw)\s*(?:\[\d+\])?:|\s*\[[\w ./-]{1,40}\])+", re.I)
_ATTRIBUTION = re.compile(
    r"^(?:On|Am|Le|El|Op|Il)\b.{4,200}\b(?:wrote|schrieb|écrit|escribió|schreef|scritto)\b.{0,80}:\s*$", re.I | re.S
)
_FORWARDED = re.compile(
    r"^(?:-{2,}\s*(?:original message|ursprüngliche nachricht|forwarded message)|begin forwarded message:|_{20,}$"
    r"|from:\s.+\n(?:sent|date|to):\s)",
    re.I | re.M,
)
_SEPARATOR = re.compile(rb"From \S+ .*\d{1,2}:\d{2}")
_ESCAPED = re.compile(rb"^>(>*From )", re.M)
"""A line of the text that would begin a message is written with a ``>`` before it."""
_IDENTIFIER = re.compile(r"<[^<>\s]{1,300}>")
_SENT_FROM = re.compile(r"^(?:sent from my|get outlook for|von meinem .{1,30} gesendet)\b.*", re.I | re.M)


@dataclass(frozen=True, slots=True)
class _Head:
    """Where a message lies, and what threads it."""

    begin: int
    end: int
    identifier: str
    referred: tuple[str, ...]


def read_mail(path: Path, shown: str) -> Iterator[Thread | SkippedFile]:
    """The threads of an mbox file, in the order in which they begin there.

    Args:
        shown: what the file is called in names and reasons.
    """
    try:
        heads = list(_heads(path))
    except OSError as error:
        yield SkippedFile(shown, f"cannot be read: {type(error).__name__}")
        return
    if not heads:
        yield SkippedFile(shown, "it holds no message that begins with 'From '")
    for thread in _threaded(heads):
        people = People()
        posts: list[tuple[datetime, Post]] = []
        title = ""
        with path.open("rb") as file:
            for head in thread:
                file.seek(head.begin)
                message = _parsed(_ESCAPED.sub(rb"\1", file.read(min(head.end - head.begin, _MAX_MESSAGE))))
                at = _moment(message) if message is not None else None
                if message is None or at is None:
                    yield SkippedFile(f"{shown}:{head.begin}", "no readable message with a date")
                elif _is_automatic(message):
                    yield SkippedFile(f"{shown}:{head.begin}", "sent by a program")
                else:
                    title = title or _REPLY.sub("", str(message.get("subject", "")))
                    role = people.role(parseaddr(str(message.get("from", "")))[1].lower())
                    posts.append((at, Post(role, at, _said(message))))
        if told := with_text(post for _, post in sorted(posts, key=itemgetter(0))):
            name = f"{shown}:{one_line(title) or thread[0].begin}"
            yield Thread("mail", name, one_line(title), told)


def _heads(path: Path) -> Iterator[_Head]:
    """Messages begin with a line ``From ADDRESS DATE`` after an empty one or at the beginning."""
    with path.open("rb") as file:
        begin = -1
        headers: list[bytes] = []
        in_headers, after_blank, at = False, True, 0
        while line := file.readline(_MAX_HEADERS):
            if after_blank and _SEPARATOR.match(line):
                if begin >= 0:
                    yield _head(begin, at, headers)
                begin, headers, in_headers = at + len(line), [], True
            elif in_headers:
                in_headers = bool(line.strip())
                if sum(map(len, headers[-50:])) < _MAX_HEADERS:
                    headers.append(line)
            after_blank = not line.strip()
            at += len(line)
        if begin >= 0:
            yield _head(begin, at, headers)


def _head(begin: int, end: int, headers: list[bytes]) -> _Head:
    message = _parsed(b"".join(headers))
    told = [str(message.get(name, "")) for name in ("message-id", "references", "in-reply-to")] if message else [""] * 3
    own = _IDENTIFIER.search(told[0])
    return _Head(begin, end, own[0] if own else f"<{begin}>", tuple(_IDENTIFIER.findall(" ".join(told[1:]))))


def _threaded(heads: list[_Head]) -> Iterator[list[_Head]]:
    """Messages that name each other, also through messages that are not there."""
    parent: dict[str, str] = {}

    def root(identifier: str) -> str:
        parent.setdefault(identifier, identifier)
        while parent[identifier] != identifier:
            parent[identifier] = parent[parent[identifier]]
            identifier = parent[identifier]
        return identifier

    for head in heads:
        for other in head.referred:
            parent[root(other)] = root(head.identifier)
    threads: dict[str, list[_Head]] = {}
    for head in heads:
        threads.setdefault(root(head.identifier), []).append(head)
    yield from threads.values()


def _parsed(data: bytes) -> EmailMessage | None:
    try:
        message = message_from_bytes(data, policy=policy.default)
    except (ValueError, LookupError, TypeError, IndexError, AttributeError, RecursionError):  # the parser's own faults
        return None
    return message if isinstance(message, EmailMessage) else None


def _moment(message: EmailMessage) -> datetime | None:
    try:
        found = message["date"].datetime
    except (AttributeError, ValueError, TypeError, IndexError):
        return None
    if not isinstance(found, datetime):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _is_automatic(message: EmailMessage) -> bool:
    return str(message.get("auto-submitted", "no")).strip().lower() not in ("no", "")


def _said(message: EmailMessage) -> str:
    try:
        body = message.get_body(("plain", "html"))
    except (AttributeError, KeyError, ValueError):
        body = None
    if body is None:
        return ""
    try:
        text = str(body.get_content())
    except (LookupError, ValueError, AttributeError):  # a character set that is unknown, or none of it
        raw = body.get_payload(decode=True)
        text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else ""
    if body.get_content_subtype() == "html":
        text = html_to_text(text)
    return cleaned(_without_quotes(text.replace("\r\n", "\n")))


def _without_quotes(text: str) -> str:
    if forwarded := _FORWARDED.search(text):
        text = text[: forwarded.start()]
    text = re.split(r"^-- ?$", text, maxsplit=1, flags=re.M)[0]
    text = _SENT_FROM.sub("", text)
    kept: list[str] = []
    for line in text.split("\n"):
        if not line.lstrip().startswith(">"):
            kept.append(line)
            continue
        # What announces a quotation may go over two lines, and an empty one may follow it.
        while kept and not kept[-1].strip():
            kept.pop()
        for lines in (1, 2):
            if len(kept) >= lines and _ATTRIBUTION.match("\n".join(kept[-lines:])):
                del kept[-lines:]
                break
    return "\n".join(kept)
