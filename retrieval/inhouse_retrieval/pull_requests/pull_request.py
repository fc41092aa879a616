"""What a pull request is to the rest of the house, wherever it was read from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Status = Literal["added", "modified", "removed", "renamed"]


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """One file of a change.

    Attributes:
        path: after the change; for a removed file, before.
        patch: unified diff from the first ``@@`` on; empty for binary files, pure renames and files that are
            not read (lock files, vendored code).
        omitted_lines: lines of the patch beyond the limit.
        additions: lines that the whole patch adds.
        deletions: lines that it takes away.
        former: the path before a rename or a copy; empty when it is the same.
    """

    path: str
    status: Status
    patch: str
    omitted_lines: int = 0
    additions: int = 0
    deletions: int = 0
    former: str = ""


@dataclass(frozen=True, slots=True)
class Comment:
    """What was said about a change as a whole.

    Attributes:
        role: who said it, never by name: ``author`` of the change, ``bot``, or how the forge relates the person to
            the project (GitHub: ``owner``, ``member``, ``collaborator``, ``contributor``, ``none``, …); empty where
            the forge does not tell.
        written_at: when it got the text that it has.
    """

    role: str
    written_at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class ReviewComment:
    """What was said about a line of a change; ``role`` and ``written_at`` as in :class:`Comment`.

    Attributes:
        line: 1-based; ``None`` for a remark about the whole file.
        side: the side of the diff that ``line`` counts on.
        hunk: the diff that was commented, from its ``@@`` to the commented line; empty where the forge has it no more.
    """

    path: str
    line: int | None
    side: Literal["new", "old"]
    hunk: str
    role: str
    written_at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class InnerCommit:
    """A commit inside a pull request, as its author made it."""

    id: str
    subject: str


@dataclass(frozen=True, slots=True)
class PullRequest:
    """A merged change.

    Attributes:
        number: ``None`` for a plain commit.
        created_at: when it was opened; where only git was asked, when its first commit was written.
        merged_at: when it landed on the branch.
        commit: the commit that landed it.
        parent: the commit it landed on; the diff goes from here. Empty where only the forge was asked.
        comments: on the change as a whole, oldest first; only a forge knows them.
        omitted_files: changed files beyond the limit, which ``files`` does not list.
        review_comments: on its lines, oldest first; only a forge knows them.
        commits: the commits inside it, oldest first; only a forge knows them.
        author_role: as in :class:`Comment`.
    """

    number: int | None
    title: str
    description: str
    url: str | None
    created_at: datetime | None
    merged_at: datetime | None
    commit: str
    parent: str
    files: tuple[ChangedFile, ...]
    comments: tuple[Comment, ...] = ()
    omitted_files: int = 0
    review_comments: tuple[ReviewComment, ...] = ()
    commits: tuple[InnerCommit, ...] = ()
    author_role: str = ""

    @property
    def said(self) -> tuple[Comment | ReviewComment, ...]:
        """All comments."""
        return (*self.comments, *self.review_comments)
