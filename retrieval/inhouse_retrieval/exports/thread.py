"""A conversation of people: what passes from the readers of exports to training."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from inhouse_retrieval.secrets import redact

_ADDRESS = re.compile(r"<?(?:mailto:)?[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+>?")
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True, slots=True)
class Post:
    """What one person wrote.

    Attributes:
        role: ``"member 1"``: a role, and which of the thread's people it is.
        at: when it was written or, where the export says so, last edited; ``None`` where nothing says whether its text
            is of then or of today.
    """

    role: str
    at: datetime | None
    text: str


@dataclass(frozen=True, slots=True)
class Thread:
    """Posts that belong together, in the order in which they were written, at least one.

    Attributes:
        name: the file and what names the thread there: ``slack.zip:general/1709290800.000100``.
        title: what it is about; for chat the channel.
        state: of a ticket, such as ``"Done"``; empty elsewhere.
        changed: of a ticket, when anything of it was last changed: its title and state are known as of then only.
        key: of a ticket, what it is called whatever its title.
    """

    source: Literal["chat", "ticket", "mail"]
    name: str
    title: str
    posts: tuple[Post, ...]
    state: str = ""
    changed: datetime | None = None
    key: str = ""

    @property
    def is_undated(self) -> bool:
        """Whether it is a ticket of which nothing says how old its title, description and state are."""
        return self.source == "ticket" and self.changed is None


def thread_until(thread: Thread, moment: datetime) -> Thread | None:
    """What stood in the thread at ``moment``; ``None`` when that was nothing, or cannot be told.

    Posts of later, and those edited later, are left out. A ticket that was changed later is left out whole: an export
    has its title, description and state as they are, not as they were. Where it does not say when they were changed,
    only the comments are left of a ticket, under its key.
    """
    if thread.changed is not None and thread.changed > moment:
        return None
    posts = tuple(post for post in thread.posts if post.at is not None and post.at <= moment)
    known = replace(thread, title=thread.key, state="") if thread.is_undated else thread
    return replace(known, posts=posts) if posts else None


class People:
    """Numbers the people of one thread as they come, so that nobody is named."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def role(self, person: str, role: str = "member") -> str:
        return f"{role} {self._numbers.setdefault(person, len(self._numbers) + 1)}"


def cleaned(text: str) -> str:
    """Text as it may be kept: redacted, without mail addresses, line ends as ``\\n``, no broken characters."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").encode("utf-8", "replace").decode()
    text = "\n".join(line.rstrip() for line in _ADDRESS.sub("[address]", redact(text)[0]).split("\n"))
    return _BLANK_LINES.sub("\n\n", text).strip()


def one_line(text: str) -> str:
    """A title, cleaned."""
    return " ".join(cleaned(text).split())


def with_text(posts: Iterable[Post]) -> tuple[Post, ...]:
    """The posts in which something is said."""
    return tuple(post for post in posts if post.text)


def read_moment(text: object) -> datetime | None:
    """A date of an export: ISO 8601, seconds since 1970, or Jira's ``01/Mar/24 9:30 AM``; UTC where no zone is told."""
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        return None
    told = str(text).strip()
    for form in ("", "%d/%b/%y %I:%M %p", "%d/%b/%Y %H:%M", "%d/%b/%y %H:%M", "%Y-%m-%d %H:%M", "%a %b %d %Y %H:%M:%S"):
        try:
            if form:
                return datetime.strptime(told, form).replace(tzinfo=UTC)
            if re.fullmatch(r"\d{9,10}(?:\.\d+)?", told):
                return datetime.fromtimestamp(float(told), UTC)
            found = datetime.fromisoformat(re.sub(r"([+-]\d{2})(\d{2})$", r"\1:\2", told))
            return found if found.tzinfo else found.replace(tzinfo=UTC)
        except (ValueError, OverflowError, OSError):
            continue
    return None
