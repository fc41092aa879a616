"""Raw text: files, wiki pages and merged changes in the article's formats, split at line boundaries into pieces that
fit a row.

The formats are those of "Fine-tune an Instruct model over raw text data" (Towards Data Science, 2024)::

    - File: PATH                      PR #12: Show the renewal date
    Content:                          URL: https://…
    …                                 Description: …
                                      Created at: 2024-02-26T11:39:03Z
                                      Merged at: 2024-02-27T09:12:44Z
                                      Author: member
                                      Commits:
                                      - Ask the account for its date
                                      …
                                      Comment (member): …
                                      File: PATH, Status: modified
                                      Changes: @@ -0,0 +1,5 @@
                                      …
                                      Review comment (member) on line 4:
                                      > +the line
                                      …

A wiki page is its own text under a line that names it. The article says that comments were in its data but not how;
here those on the whole change come before its files, and those on lines after the patch that they are about. The
author's role, and the commits where there are several, are ours.

A thread of chat, tickets or mail has a line on what it is, then what each person said under their role and the day.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from inhouse_retrieval import PullRequest, ReviewComment, Thread
from inhouse_retrieval.chunking import best_cut
from inhouse_retrieval.outline import Outline, outline

from .kinds import Kind
from .prompts import literal_ids, literal_starts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


BOT = "bot"
"""Role of a commenter that is a program."""

INNER_COMMITS = 20
"""Subjects of commits inside a change that are learned; the first ones."""

_TITLE_CHARACTERS = 200
_LEAST_PIECE = 16


@dataclass(frozen=True, slots=True)
class Section:
    """Part of a document; ``header`` is repeated when the body is cut."""

    header: str
    body: str


@dataclass(frozen=True, slots=True)
class Document:
    """One text to learn from.

    Attributes:
        name: the path of the file or page, the change's commit id, or the export and the thread in it.
        header: opens every piece.
        topic: what a conversation is about, where that is not the file itself.
        origin: where it comes from, as :func:`inhouse_training.provenance.origin` says it.
    """

    kind: Kind
    name: str
    header: str
    sections: tuple[Section, ...]
    topic: str = ""
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a document that fits one row.

    Attributes:
        part: 0 for the first piece.
        first_line: 1-based line of the (first) section's body that this piece begins with.
        source_tokens: tokens of the document that are in this piece; a repeated header counts once per
        document.
        last: whether the document ends here.
    """

    document: Document
    part: int
    first_line: int
    text: str
    source_tokens: int
    last: bool


def file_document(path: str, text: str) -> Document:
    """A file of the snapshot as raw text."""
    return Document("file", path, f"- File: {path}\nContent:\n", (Section("", text),))


def page_document(path: str, text: str) -> Document:
    """A wiki page as raw text."""
    return Document("page", path, f"- Wiki page: {page_title(path, text)}\nContent:\n", (Section("", text),))


def page_title(path: str, text: str) -> str:
    """A page's first line as its title, when that is a heading (``# …``, or underlined), else its path as words."""
    lines = [line.strip() for line in text.lstrip("\ufeff").split("\n")]
    if lines[0] == "---" and "---" in lines[1:]:  # front matter
        lines = lines[lines.index("---", 1) + 1 :]
    lines = [line for line in lines if line][:2]
    title = ""
    if lines and lines[0].startswith("# "):
        title = lines[0].strip("# ")
    elif len(lines) == 2 and len(lines[1]) >= 3 and not lines[1].strip("=-~"):
        title = lines[0]
    parts = PurePosixPath(path).with_suffix("").parts
    if parts[0] == "..":  # of another folder: its name says nothing
        parts = parts[parts.count("..") + 1 :]
    return shorten(title) or re.sub(r"[-_]+", " ", " ".join(parts)).strip() or path


def change_document(change: PullRequest) -> Document:
    """A merged change as raw text: a pull request, or a plain commit where the repository has no pull
    requests. What bots said is left out."""
    title = shorten(change.title)
    opening = (
        f"PR #{change.number}: {title}\n" if change.number is not None else f"Commit {change.commit[:12]}: {title}\n"
    )
    if change.url is not None:
        opening += f"URL: {change.url}\n"
    about = f"Description: {change.description or None}\n"
    if change.number is not None:
        about += f"Created at: {_moment(change.created_at)}\n"
    about += f"Merged at: {_moment(change.merged_at)}\n"
    if change.author_role:
        about += f"Author: {change.author_role}\n"
    sections = [Section("", about)]
    if len(change.commits) > 1:  # a single one says what the title says
        listed = "".join(f"- {shorten(commit.subject)}\n" for commit in change.commits[:INNER_COMMITS])
        sections.append(Section("Commits:\n", listed))
    sections += [
        Section(f"Comment{_by(comment.role)}: ", _ended(comment.text))
        for comment in change.comments
        if comment.role != BOT
    ]
    remarks = [comment for comment in change.review_comments if comment.role != BOT]
    paths = {file.path for file in change.files}
    for file in change.files:
        header = f"File: {file.path}, Status: {file.status}\nChanges: "
        sections.append(Section(header, _ended(file.patch)))
        sections += [_remark(comment, "") for comment in remarks if comment.path == file.path]
    sections += [_remark(comment, f" {comment.path}") for comment in remarks if comment.path not in paths]
    return Document("change", change.commit, opening, tuple(sections))


def thread_document(thread: Thread) -> Document:
    """Exported chat, a ticket or mail as raw text."""
    what = {"chat": "Chat in", "ticket": "Ticket", "mail": "Mail"}[thread.source]
    header = (
        f"- {what} {shorten(thread.title)}".rstrip()
        + "\n"
        + (f"State: {shorten(thread.state)}\n" if thread.state else "")
    )
    posts = []
    for post in thread.posts:
        day = f", {post.at.astimezone(UTC):%Y-%m-%d}" if post.at is not None else ""
        posts.append(Section(f"{post.role}{day}:\n", _ended(post.text)))
    return Document("thread", thread.name, header, tuple(posts))


def added_lines(patch: str) -> str:
    """The lines that a unified diff adds, without their ``+``."""
    lines: list[str] = []
    in_hunk = False
    for line in patch.split("\n"):  # git's line ends; str.splitlines knows many more
        if line.startswith("@@"):
            in_hunk = True
        elif in_hunk and line.startswith("+"):
            lines.append(line[1:] + "\n")
    return "".join(lines).strip("\n")


def _remark(comment: ReviewComment, path: str) -> Section:
    """A comment under the line that it is about."""
    place = path + (f" line {comment.line}" if comment.line is not None else "")
    line = comment.hunk.rpartition("\n")[2]
    quoted = f"> {line}\n" if line and not line.startswith("@@") else ""
    header = f"Review comment{_by(comment.role)}{' on' if place else ''}{place}:\n"
    return Section(header, quoted + _ended(comment.text))


def _by(role: str) -> str:
    return f" ({role})" if role else ""


def shorten(title: str) -> str:
    """The title on one line, cut where it stops being one."""
    line = " ".join(title.split())
    return line if len(line) <= _TITLE_CHARACTERS else line[: _TITLE_CHARACTERS - 1] + "…"


def count_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Tokens of the text alone, without special tokens."""
    return len(literal_ids(tokenizer, text))


def split_document(document: Document, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> tuple[int, list[Piece]]:
    """Cut a document into pieces of at most ``max_tokens`` tokens (without special tokens): files and pages where the
    least is taken apart, patches between hunks, and all else between lines.

    What is longer than a piece is cut further: a hunk between lines, its own ``@@`` repeated, and a line between
    tokens, so that nothing is lost.

    Returns:
        The tokens of the whole document, and the pieces, whose ``source_tokens`` sum to it. No pieces when
        the headers alone take more than half of ``max_tokens``.
    """
    opening = count_tokens(tokenizer, document.header)
    headers = [count_tokens(tokenizer, section.header) for section in document.sections]
    lines = [_token_lines(tokenizer, section.body) for section in document.sections]
    total = opening + sum(headers) + sum(tokens for body in lines for _, tokens, _ in body)
    if max_tokens < _LEAST_PIECE or opening + max(headers, default=0) > max_tokens // 2:
        return total, []

    pieces: list[Piece] = []
    text, used, source, first_line = document.header, opening, opening, 1

    def close(last: bool = False) -> None:
        nonlocal text, used, source
        pieces.append(Piece(document, len(pieces), first_line, text, source, last))
        text, used, source = document.header, opening, 0

    for section, header, body in zip(document.sections, headers, lines, strict=True):
        if used > opening and used + header + (body[0][1] if body else 0) > max_tokens:
            close()
            first_line = 1
        text, used, source = text + section.header, used + header, source + header
        parts = list(_fitting(tokenizer, body, max_tokens - opening - header))
        cuts = _Cuts(document, section, parts)
        at = 0
        while at < len(parts):
            end, filled = at, used
            while end < len(parts) and filled + parts[end][1] <= max_tokens:
                filled += parts[end][1]
                end += 1
            if end == at and used == opening + header:
                end += 1  # a part of a line may be a little longer: a character of several tokens stays whole
            if at < end < len(parts):
                end = cuts.best(at, end)
            for line, tokens, _ in parts[at:end]:
                text, used, source = text + line, used + tokens, source + tokens
            if end < len(parts):
                close()
                first_line = parts[end][2]
                text, used = text + section.header, used + header
                hunk = cuts.hunk_of(end)
                if hunk and used + (size := count_tokens(tokenizer, hunk)) + parts[end][1] <= max_tokens:
                    text, used = text + hunk, used + size
            at = end
    close(last=True)
    return total, pieces


class _Cuts:
    """Where a section that is too long for its piece is cut.

    Args:
        parts: its lines, of which a long one may be several.
    """

    def __init__(self, document: Document, section: Section, parts: Sequence[Line]) -> None:
        self._path = document.name if document.kind in ("file", "page") else ""
        self._parts = parts
        self._patch = section.body.startswith("@@ ")
        self._lines = section.body.split("\n")
        self._outline: Outline | None = None

    def best(self, at: int, end: int) -> int:
        """The part to begin the next piece with: the one at ``end``, or one of the last half of ``at..end``."""
        parts = self._parts
        if parts[end][2] == parts[end - 1][2]:  # in the middle of a line
            return end
        if self._patch:
            hunks = (index for index in range(end, at + (end - at) // 2, -1) if parts[index][0].startswith("@@ "))
            return next(hunks, end)
        if not self._path:
            return end
        if self._outline is None:
            self._outline = outline(self._path, self._lines)
        first, last = parts[at][2] - 1, parts[end][2] - 1
        row = best_cut(self._lines, self._outline, first, last, 0.5) if last < len(self._lines) else last
        return next((index for index in range(at + 1, end) if parts[index][2] == row + 1), end)

    def hunk_of(self, index: int) -> str:
        """The ``@@`` line of the hunk that goes on at a part; empty where a hunk begins there, or in no patch."""
        if not self._patch or self._parts[index][0].startswith("@@ "):
            return ""
        return next(part[0] for part in reversed(self._parts[:index]) if part[0].startswith("@@ "))


Line = tuple[str, int, int]
"""A line with its end, its tokens, and its 1-based number."""


def _fitting(tokenizer: PreTrainedTokenizerBase, lines: Sequence[Line], limit: int) -> Iterator[Line]:
    for text, tokens, number in lines:
        if tokens <= limit:
            yield text, tokens, number
            continue
        starts = token_starts(tokenizer, text)
        cuts = sorted({0, *starts[limit::limit], len(text)})
        left = tokens
        for begin, end in pairwise(cuts):
            # The last part takes the remainder, so that the parts sum to the line however the tokens fell.
            share = bisect_left(starts, end) - bisect_left(starts, begin)
            share = left if end == len(text) else min(share, left)
            left -= share
            yield text[begin:end], share, number


def _token_lines(tokenizer: PreTrainedTokenizerBase, text: str) -> list[Line]:
    """Lines, each with the tokens that begin in it: they sum to the tokens of the whole text."""
    starts = token_starts(tokenizer, text)
    lines: list[Line] = []
    begin = 0
    for number, line in enumerate(text.split("\n"), start=1):
        end = min(begin + len(line) + 1, len(text))
        if end > begin:
            lines.append((text[begin:end], bisect_left(starts, end) - bisect_left(starts, begin), number))
        begin = end
    return lines


def token_starts(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The character at which each token of the text begins; special tokens left out."""
    return literal_starts(tokenizer, text)


def _ended(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def _moment(moment: datetime | None) -> str:
    return "None" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
