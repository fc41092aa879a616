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
    """

    path: str
    status: Status
    patch: str
    omitted_lines: int = 0


@dataclass(frozen=True, slots=True)
class PullRequest:
    """A merged change.

    Attributes:
        number: ``None`` for a plain commit.
        created_at: when its first commit was written, as far as git knows.
        merged_at: when it landed on the branch.
        commit: the commit that landed it.
        parent: the commit it landed on; the diff goes from here.
        omitted_files: changed files beyond the limit, which ``files`` does not list.
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
    comments: tuple[str, ...] = ()
    omitted_files: int = 0
