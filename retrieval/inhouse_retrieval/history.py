"""The repository's own history as something to search: what was once said about a change, and the files it touched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from inhouse_retrieval.pull_requests.messages import read_message
from inhouse_retrieval.repository import Repository
from inhouse_retrieval.secrets import redact

MAX_CHANGES = 5_000
"""Newest changes on the first-parent history that are read: years of most repositories."""
MAX_CHANGED_FILES = 50
"""A change of more files is a mass edit: it says nothing about any of them."""
_MARK = "\x1e"
_STATUS = re.compile(r"\n?[A-Z]\d*$")


@dataclass(frozen=True, slots=True)
class HistoryChange:
    """One step of the first-parent history: a pull request that landed, or a plain commit.

    Attributes:
        parents: how many it has; the first commit, and the edge of a shallow clone, has none.
        landed: when it was committed, in seconds since 1970.
        number: of the pull request, ``None`` for a plain commit.
        files: paths after the change (before it, for a deleted file).
        renamed: former path -> new path.
    """

    commit: str
    parents: int
    landed: int
    number: int | None
    title: str
    description: str
    files: tuple[str, ...]
    renamed: dict[str, str]


def read_changes(
    repository: Repository, until: str = "HEAD", since: str | None = None, limit: int = MAX_CHANGES
) -> Iterator[HistoryChange]:
    """The newest ``limit`` changes up to ``until``, newest first, secrets redacted.

    Args:
        since: leave out what this commit's history holds.

    Raises:
        InhouseError: there is no commit ``until``.
    """
    revisions = [repository.commit_id(until), *([f"^{since}"] if since else [])]
    out = repository.git(
        "log", "-z", "--first-parent", "-m", "--name-status", "--find-renames", "--no-show-signature",
        "--encoding=UTF-8", f"--max-count={limit}", f"--format={_MARK}%H%x1f%P%x1f%ct%x1f%B", *revisions, "--",
    )  # fmt: skip
    fields = iter(out.decode("utf-8", "replace").split("\0"))
    head: list[str] | None = None
    files: list[str] = []
    renamed: dict[str, str] = {}
    for field in fields:
        if field.startswith(_MARK):
            if head is not None:
                yield _change(head, files, renamed)
            head, files, renamed = field[1:].split("\x1f", 3), [], {}
        elif _STATUS.match(field):
            path = next(fields)
            if field.lstrip("\n")[0] in "RC":
                former, path = path, next(fields)
                if field.lstrip("\n")[0] == "R":
                    renamed[former] = path
            files.append(path)
    if head is not None:
        yield _change(head, files, renamed)


class Touching(Protocol):
    """A change as far as its files go."""

    @property
    def files(self) -> tuple[str, ...]: ...
    @property
    def renamed(self) -> dict[str, str]: ...


def todays_names(changes: Iterable[Touching]) -> Iterator[list[str]]:
    """For each change, newest first, its files under today's names."""
    today: dict[str, str] = {}
    for change in changes:
        yield list(dict.fromkeys(today.get(path, path) for path in change.files))
        for former, path in change.renamed.items():
            today[former] = today.get(path, path)


def _change(head: list[str], files: list[str], renamed: dict[str, str]) -> HistoryChange:
    commit, parents, landed, message = head
    count = len(parents.split())
    number, title, description = read_message(message.strip(), count)
    return HistoryChange(
        commit, count, int(landed), number, redact(title)[0], redact(description)[0], tuple(files), renamed
    )
