"""A merged pull request as one Markdown page: what it was for, which files it changed, what reviewers said."""

from __future__ import annotations

import re
from collections.abc import Sequence

from inhouse_retrieval.history import HistoryChange
from inhouse_retrieval.pull_requests.pull_request import Comment, PullRequest, ReviewComment
from inhouse_retrieval.search import day_of
from inhouse_retrieval.secrets import redact

PAGE_VERSION = 1
"""Raise it when the same pull request would be written differently: every page is then written again."""
LONGEST_DESCRIPTION = 4_000
_LONGEST_REMARK = 1_500
_REMARKS = 20
_FILES = 30
_HIDDEN = re.compile(r"<!--.*?(?:-->|\Z)", re.S)
_IMAGE = re.compile(r"!\[([^\]]*)\]\([^)]*\)|<img\b[^>]*>", re.I)


def page_text(change: HistoryChange, told: PullRequest | None) -> str:
    """The page, secrets redacted.

    Comments that a template hides and images are left out, and what bots said. Whatever is cut says so.

    Args:
        told: what the forge says of it, where that is known.
    """
    address = f" {told.url}" if told is not None and told.url else ""
    parts = [
        f"# Pull request #{change.number}: {_one_line(change.title)}",
        f"Merged on {day_of(change.landed)} as {change.commit[:12]}.{address}",
    ]
    if description := _readable(told.description if told is not None else change.description, LONGEST_DESCRIPTION):
        parts.append(description)
    if change.files:
        listed = [f"- {_one_line(path)}" for path in change.files[:_FILES]]
        if len(change.files) > _FILES:
            listed.append(f"- and {len(change.files) - _FILES} more")
        parts.append("## Files changed\n\n" + "\n".join(listed))
    said = [remark for remark in (told.said if told is not None else ()) if remark.role != "bot"]
    if said:
        parts.append(_review(said))
    return redact("\n\n".join(parts) + "\n")[0]


def _review(said: Sequence[Comment | ReviewComment]) -> str:
    parts = ["## Review"]
    for remark in said[:_REMARKS]:
        who = f"{remark.role or 'somebody'}, {remark.written_at.date().isoformat()}"
        if isinstance(remark, ReviewComment):
            line = f":{remark.line}" if remark.line is not None else ""
            who += f", on {_one_line(remark.path)}{line}"
        parts.append(f"{who}:\n\n{_readable(remark.text, _LONGEST_REMARK)}")
    if len(said) > _REMARKS:
        parts.append(f"{len(said) - _REMARKS} more remarks are on the forge.")
    return "\n\n".join(parts)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _readable(text: str, longest: int) -> str:
    """``text`` as Markdown that loads nothing, without what nobody sees, and not longer than ``longest``."""
    text = _IMAGE.sub(lambda image: image[1] or "", _HIDDEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    if len(text) <= longest:
        return text
    return f"{text[:longest].rstrip()}\n\n(cut here; {len(text) - longest} more characters)"
