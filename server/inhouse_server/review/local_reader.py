"""The reading reviewer's model and index, taken hold of for one review in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from inhouse_retrieval import Passage, Progress
from inhouse_server.review.reviewer import Reader
from inhouse_server.workspace import Workspace
from inhouse_training import BASE


@contextmanager
def reading_workspace(root: Path, progress: Progress) -> Iterator[Reader]:
    """A reader over the repository at ``root``, its index brought up to date.

    Raises:
        Busy: an owner process holds the repository; its model cannot be borrowed yet.
        InhouseError: the model cannot be had.
    """
    with Workspace.open(root, "review") as workspace:
        workspace.refresh(progress)
        yield reader_of(workspace)


def reader_of(workspace: Workspace) -> Reader:
    """The workspace's current adapter and index as a reader."""

    def search(query: str, limit: int) -> Sequence[Passage]:
        return workspace.index.search(query, limit).passages

    settings = workspace.settings
    adapter = workspace.registry.current() or BASE
    return Reader(workspace.engine(), adapter, search, settings.answer.prompt_tokens, settings.review.tokens)
