"""Review replies: a hunk of a past change, answered by what a reviewer said of it.

Question and answer are those of the reading reviewer (:mod:`~inhouse_training.review_prompt`): the hunk with its signs,
where it is known the code around it, and a list of remarks that each quote the lines that they are about. A remark
becomes one only where the reviewer's own answer could say it: on a line that the change adds, and no longer than a
finding may be. Most hunks deserve no remark, so for each that got one another of the same change that got none is
answered by the empty list; else a model would learn that there is always something to say.

The hunk is that which was commented. Where the same lines landed, it is the whole hunk that landed, since else the
remark would always be about the last line that is shown.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from inhouse_retrieval import PullRequest, Repository, ReviewComment, redact

from .dataset_account import printable
from .documents import BOT, shorten
from .engine import Message
from .plain_text import plain_line, plain_text, visible
from .prompts import chat_row, code_block
from .review_prompt import (
    AROUND_LINES,
    LONGEST_BETTER,
    LONGEST_REMARK,
    MOST_REMARKS,
    Remark,
    review_answer,
    review_messages,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_REMARKS = "no reviewer's remark on the learned changes; inhouse sync reads them"

_AUTHOR = "author"
_CONFIDENCE = 8
"""Nobody tells how sure a reviewer was; below 5 a finding is not shown."""
_SUGGESTED = "This should be written otherwise."
_LEAST_WORDS = 2
_LEAST_QUOTE = 8
"""Characters of a line that can be found again."""
_KNOWN_BY = 4
"""Lines up to the commented one by which a hunk that landed is known."""
_SHORTER = (80, 40, 20, 10)
"""Lines of a hunk that does not fit as a whole, up to the last remark."""
_MARGIN = 16
_HEAD = re.compile(r"^@@ -\d+(?:,\d+)? \+(\d+)(?:,\d+)? @@.*$")
_SUGGESTION = re.compile(r"^```suggestion[^\n]*\n((?:(?![ \t]*```)[^\n]*\n){0,200}+)[ \t]*```[ \t]*$", re.M)
_QUOTED = re.compile(r"^>.*$", re.M)


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines of a unified diff with their signs; ``start`` is the first one's number in the new file."""

    start: int
    lines: tuple[str, ...]

    @property
    def length(self) -> int:
        """Lines of the new file that it covers."""
        return sum(not line.startswith("-") for line in self.lines)


@dataclass(frozen=True, slots=True)
class Review:
    """A hunk and what was said of it.

    Attributes:
        at: of the last remark in ``hunk.lines``; of a hunk without one, its last line.
        around: first line and text of the code around the hunk as it landed; ``None`` where that is not known.
    """

    commit: str
    title: str
    path: str
    hunk: Hunk
    at: int
    remarks: tuple[Remark, ...]
    around: tuple[int, str] | None

    @property
    def name(self) -> str:
        """``COMMIT:PATH:LINE``."""
        line = self.hunk.start + max(sum(not each.startswith("-") for each in self.hunk.lines[: self.at + 1]) - 1, 0)
        return f"{self.commit}:{self.path}:{line}"


@dataclass(frozen=True, slots=True)
class UnusedComment:
    """A comment that teaches nothing, and why."""

    name: str
    text: str
    reason: str


def read_reviews(repository: Repository, changes: Sequence[PullRequest], seed: int) -> Iterator[Review | UnusedComment]:
    """What reviewers said of each change, and as many hunks that they passed, in order."""
    for change in changes:
        if not change.review_comments:
            continue
        landed = {file.path: _hunks(file.patch) for file in change.files}
        paths = sorted(landed)
        places = [(change.commit, path) for path in paths]
        texts = dict(zip(paths, repository.iter_texts_at(places), strict=True))
        said: dict[tuple[str, Hunk], list[tuple[int, Remark]]] = defaultdict(list)
        threads: set[tuple[str, str]] = set()
        for number, comment in enumerate(change.review_comments):
            place = (comment.path, comment.hunk or str(number))
            reason, remark = _remark(comment, place in threads)
            threads.add(place)
            if remark is not None:
                hunk, at = _as_landed(_hunks(comment.hunk)[-1], landed.get(comment.path, ()))
                if len(said[comment.path, hunk]) < MOST_REMARKS:
                    said[comment.path, hunk].append((at, remark))
                    continue
                reason = f"more than {MOST_REMARKS} remarks on a hunk"
            yield UnusedComment(f"{change.commit}:{printable(comment.path)}#{number}", comment.text, reason)
        title = redact(shorten(change.title))[0]
        for (path, hunk), remarks in said.items():
            remarks.sort(key=lambda each: each[0])
            around = _around(hunk, texts.get(path)) if hunk in landed.get(path, ()) else None
            found = tuple(remark for _, remark in remarks)
            yield Review(change.commit, title, printable(path), hunk, remarks[-1][0], found, around)
        commented = {comment.path for comment in change.review_comments}
        passed = [
            Review(change.commit, title, printable(path), hunk, len(hunk.lines) - 1, (), _around(hunk, texts[path]))
            for path in paths
            if path not in commented
            for hunk in landed[path]
            if any(line.startswith("+") for line in hunk.lines)
        ]
        yield from sorted(passed, key=lambda each: _draw(each.name, seed))[: len(said)]


def review_row(
    tokenizer: PreTrainedTokenizerBase,
    count_tokens: Callable[[Sequence[Message]], int],
    review: Review,
    max_tokens: int,
) -> tuple[list[int], list[int], tuple[Message, ...]] | None:
    """``(input_ids, labels, messages)`` of a row of at most ``max_tokens`` tokens; ``None`` when not even the lines
    before the remark fit. As in the product the code around goes first, then a part of the hunk."""
    answer = Message("assistant", review_answer(review.remarks))
    budget = max_tokens - count_tokens([Message("user", answer.content)]) - _MARGIN
    for shorter in (review, replace(review, around=None), *(_cut(review, lines) for lines in _SHORTER)):
        if shorter is None:
            continue
        asked = _messages(shorter)
        if count_tokens(asked) <= budget:
            ids, labels = chat_row(tokenizer, (*asked, answer))
            return (ids, labels, (*asked, answer)) if len(ids) <= max_tokens else None
    return None


def _messages(review: Review) -> tuple[Message, ...]:
    hunk, path = review.hunk, plain_line(review.path)
    last = hunk.start + hunk.length - 1
    code = ""
    if review.around is not None:
        first, text = review.around
        code = code_block(path, first, first + text.count("\n"), visible(text))
    patch = code_block(path, hunk.start, last, visible("\n".join(hunk.lines)))
    return review_messages(plain_line(review.title), patch, code)


def _remark(comment: ReviewComment, is_reply: bool) -> tuple[str, Remark | None]:
    """The remark that a comment makes; else why it makes none."""
    hunks = _hunks(comment.hunk)
    text = plain_text(comment.text)
    better = _SUGGESTION.search(text)
    problem = " ".join(_QUOTED.sub("", _SUGGESTION.sub("", text)).split())
    if not problem and better:
        problem = _SUGGESTED  # an empty one would be no finding
    if comment.role == BOT:
        return "of a bot", None
    if is_reply:
        return "goes on with a thread", None
    if comment.role == _AUTHOR:
        return "of the change's author", None
    if not hunks:
        return "the forge has no diff of it", None
    line = hunks[-1].lines[-1]
    quote = visible(redact(line[1:])[0])
    if comment.side == "old" or not line.startswith("+") or len(quote.strip()) < _LEAST_QUOTE:
        return "not about an added line", None
    if len(re.findall(r"\w+", problem)) < _LEAST_WORDS:
        return "says too little", None
    replacement = redact(better[1].rstrip("\n"))[0] if better else ""
    if max(len(problem), len(quote)) > LONGEST_REMARK or len(replacement) > LONGEST_BETTER:
        return "longer than a finding may be", None
    return "", Remark(quote, redact(problem)[0], replacement, _CONFIDENCE)


def _hunks(patch: str) -> tuple[Hunk, ...]:
    found: list[tuple[int, list[str]]] = []
    for line in patch.split("\n"):
        if head := _HEAD.match(line):
            found.append((int(head[1]), []))
        elif found and line[:1] in ("+", "-", " "):
            found[-1][1].append(line)
    return tuple(Hunk(start, tuple(lines)) for start, lines in found if lines)


def _as_landed(hunk: Hunk, landed: Sequence[Hunk]) -> tuple[Hunk, int]:
    """The hunk that landed with the commented line in it, where one did, and the place of that line; else as it is."""
    wanted = hunk.lines[-_KNOWN_BY:]
    ends = [
        (each, end - 1)
        for each in landed
        for end in range(len(wanted), len(each.lines) + 1)
        if each.lines[end - len(wanted) : end] == wanted
    ]
    return ends[0] if len(ends) == 1 else (hunk, len(hunk.lines) - 1)


def _around(hunk: Hunk, text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    lines = text.removesuffix("\n").split("\n")
    first = max(1, hunk.start - AROUND_LINES)
    shown = lines[first - 1 : hunk.start + hunk.length - 1 + AROUND_LINES]
    return (first, "\n".join(shown)) if shown else None


def _cut(review: Review, count: int) -> Review | None:
    """At most ``count`` lines of the hunk, up to the last remark; ``None`` where that leaves one out."""
    begin = max(0, review.at + 1 - count)
    lines = review.hunk.lines[begin : review.at + 1]
    added = {visible(redact(line[1:])[0]) for line in lines if line.startswith("+")}
    if not added.issuperset(remark.quote for remark in review.remarks):
        return None
    start = review.hunk.start + sum(not line.startswith("-") for line in review.hunk.lines[:begin])
    return replace(review, hunk=Hunk(start, lines), at=len(lines) - 1, around=None)


def _draw(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()
