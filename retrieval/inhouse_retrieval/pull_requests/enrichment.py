"""What git tells of a change, together with what its forge tells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from inhouse_retrieval.pull_requests.pull_request import PullRequest
from inhouse_retrieval.pull_requests.store import PullRequestStore


def with_forge(changes: Iterable[PullRequest], store: PullRequestStore | None) -> list[PullRequest]:
    """``changes`` with the description, address, dates, comments and inner commits that the store has of them.

    Git stays the source of which commit landed, on which parent, and of what it changed. A number alone is not
    believed: a project that moved between forges counts anew. The commit that landed must be the same, or the title.
    A change that the store does not know stays as it is. A forge tells a description as it is now, and not when it was
    last edited.
    """
    return [_enriched(change, store) for change in changes]


def told_about(store: PullRequestStore | None, number: int | None, commit: str, title: str) -> PullRequest | None:
    """What the forge says of the change that git knows by ``number``, ``commit`` and ``title``; ``None`` when it knows
    no such change."""
    told = store.get(number) if store is not None and number is not None else None
    return told if told is not None and (told.commit == commit or told.title.strip() == title.strip()) else None


def _enriched(change: PullRequest, store: PullRequestStore | None) -> PullRequest:
    told = told_about(store, change.number, change.commit, change.title)
    if told is None:
        return change
    return replace(
        change,
        description=told.description.strip(),
        url=told.url or change.url,
        created_at=told.created_at or change.created_at,
        merged_at=told.merged_at or change.merged_at,
        comments=told.comments,
        review_comments=told.review_comments,
        commits=told.commits or change.commits,
        author_role=told.author_role,
    )


def said_until(change: PullRequest, moment: datetime) -> PullRequest:
    """The change with the comments that already had their text then."""
    return replace(
        change,
        comments=tuple(comment for comment in change.comments if comment.written_at <= moment),
        review_comments=tuple(comment for comment in change.review_comments if comment.written_at <= moment),
    )
