"""What the tools ask of the process that holds the repository. Results have the shape of the JSON contracts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from threading import Event
from typing import TYPE_CHECKING, Any

from inhouse_retrieval import InhouseError, Progress, SkippedFile
from inhouse_server.access import Work
from inhouse_server.answers import Question
from inhouse_server.json_contracts import answer_json, search_json
from inhouse_server.review.diff import read_change
from inhouse_server.review.renderers.json_format import review_json
from inhouse_server.review.reviewer import review
from inhouse_training import TextDelta
from inhouse_training.plain_text import without_comments

if TYPE_CHECKING:
    from inhouse_retrieval import Within
    from inhouse_server.workspace import Workspace


class InOwner:
    """The tools' backend over a held repository."""

    def __init__(self, workspace: Workspace, within: Within) -> None:
        self._workspace = workspace
        self._within = within

    def search(self, query: str, limit: int) -> dict[str, Any]:
        return search_json(self._workspace.index.search(query, limit, within=self._within), limit)

    def read_passage(self, path: str, start_line: int, end_line: int) -> dict[str, Any]:
        return read_passage(self._workspace, self._within, path, start_line, end_line)

    def ask(
        self, question: str, cancel: Event, worked: Callable[[Work], None], caller: str
    ) -> Iterator[str | dict[str, Any]]:
        text = ""
        for event in self._workspace.assistant(self._within, worked, caller).ask(Question(question), cancel):
            if isinstance(event, TextDelta):
                text += event.text
                yield event.text
            else:
                yield answer_json(text, event)

    def review(
        self, revisions: str | None, staged: bool, progress: Progress, cancel: Event, caller: str
    ) -> dict[str, Any]:
        return review_for_client(self._workspace, revisions, staged, progress, cancel, caller)


def read_passage(workspace: Workspace, within: Within, path: str, start_line: int, end_line: int) -> dict[str, Any]:
    """Lines as the index reads them: ``{"path", "start_line", "end_line", "total_lines", "text"}``.

    ``path`` names a file of the repository, or the page of a pull request as a search gives it. Lines are 1-based and
    inclusive; an ``end_line`` beyond the file stands for its last line. Secrets are redacted.

    Raises:
        InhouseError: there is no such file or line, or the index does not read the file.
    """
    repository = workspace.repository
    # What lies elsewhere is not told from what does not exist.
    is_name = "\0" not in path and _is_text(path) and within.holds(path)
    if is_name and within.everywhere and (page := workspace.index.pull_request_page(path)) is not None:
        return _lines(path, without_comments(page, keep_lines=True), start_line, end_line)
    read = repository.read_current(path) if is_name else None
    if read is None:
        raise InhouseError(f"There is no file {path!r} in the repository.", "Paths begin at the repository's root.")
    if not isinstance(read, SkippedFile) and not repository.is_listed(path):
        # git's own files, a repository inside this one, or what a .gitignore names.
        ignored = repository.is_ignored(path)
        read = SkippedFile(path, "ignored by git" if ignored else "not a file of this repository")
    if isinstance(read, SkippedFile):
        raise InhouseError(f"The file {path!r} is not read: {read.reason}.", "Ask about another file.")
    return _lines(path, read[1], start_line, end_line)


def _lines(path: str, text: str, start_line: int, end_line: int) -> dict[str, Any]:
    if not 1 <= start_line <= end_line:
        raise InhouseError(
            f"Lines {start_line} to {end_line} are no range.",
            "Lines count from 1, and the first is not after the last.",
        )
    lines = text.removesuffix("\n").split("\n")
    if start_line > len(lines):
        raise InhouseError(f"The file {path!r} ends at line {len(lines)}.", "Read lines that it has.")
    last = min(end_line, len(lines))
    return {
        "path": path,
        "start_line": start_line,
        "end_line": last,
        "total_lines": len(lines),
        "text": "\n".join(lines[start_line - 1 : last]),
    }


def review_for_client(
    workspace: Workspace, revisions: str | None, staged: bool, progress: Progress, cancel: Event, caller: str
) -> dict[str, Any]:
    """Review a range, what is staged, or all that is not on the main branch yet; the model reads if settings say so.

    Args:
        caller: id of whose review it is; the model reads each hunk when it is this caller's turn.

    Raises:
        SteppedAside: the model reads, and its memory is lent to a retraining.
        InhouseError: the change cannot be read, or the model cannot be had.
    """
    settings = workspace.settings
    change = read_change(workspace.repository, revisions, staged=staged, progress=progress)
    with workspace.using_model() if settings.review.reading else nullcontext():
        reader = workspace.reader(caller) if settings.review.reading else None
        house = workspace.known_house(change.base_commit, progress)
        return review_json(review(change, house, settings.review.findings, reader, cancel=cancel, progress=progress))


def _is_text(path: str) -> bool:
    """Not half of a surrogate pair, which JSON may spell and no path of the index holds."""
    return path == path.encode("utf-8", "replace").decode()
