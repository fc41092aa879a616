"""What reviewers said about similar code before: the forge's review comments, for the reading reviewer, and as
precedents of what either reviewer finds.

They come from ``inhouse sync``. A comment is about similar code when it was made on the same file, or when the words of
the line that it is about are among those of the hunk.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from inhouse_retrieval import PullRequest, PullRequestStore, index_terms, read_message, redact
from inhouse_server.review.change import ReviewedFile
from inhouse_server.review.finding import Finding, Precedent
from inhouse_training.plain_text import hidden_characters, plain_text

_BOT = "bot"
_REQUESTS = 2_000
_LEAST = 0.4
_SAME_FILE = 0.5
_ALIKE = 0.6
"""Of the words of a remark's line, for a finding to be about such code."""
_LEAST_WORDS = 2
_SHOWN = 2
_LINES = 3
"""The end of the commented hunk: the line itself and what stands above it."""
_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class PastRemark:
    """One review comment.

    Attributes:
        number, change: the pull request that it was made on, such as ``"#12 Retry payments"``.
        line: the code that it is about, without its sign.
        altered: text that no reader sees was taken out.
    """

    number: int | None
    change: str
    path: str
    line: str
    text: str
    altered: bool = False


class PastRemarks:
    """Review comments of the past, searched by file and by words. Those of bots are left out."""

    def __init__(self, requests: Iterable[PullRequest]) -> None:
        self._known: list[tuple[PastRemark, frozenset[str]]] = []
        for request in requests:
            for comment in request.review_comments:
                text = plain_text(comment.text)
                if comment.role == _BOT or not text:
                    continue
                lines = [line[1:] for line in comment.hunk.split("\n") if not line.startswith("@@")][-_LINES:]
                line = lines[-1].strip() if lines else ""
                called = f"#{request.number} {plain_text(request.title)}"
                altered = "<!--" in comment.text or hidden_characters(comment.text) > 0
                remark = PastRemark(request.number, called, comment.path, line, text[:_CHARACTERS], altered)
                self._known.append((remark, _words("\n".join(lines))))

    @classmethod
    def of(cls, state_dir: Path) -> PastRemarks:
        """Those that ``inhouse sync`` read; none when it never ran."""
        store = PullRequestStore.if_there(state_dir)
        if store is None:
            return cls(())
        with store:
            return cls(store.newest(_REQUESTS))

    def about(self, path: str, code: str, limit: int, title: str = "") -> list[PastRemark]:
        """The remarks that are most about ``code`` of ``path``, best first; of those equally so, the newest.

        Args:
            title: of the change under review, or its commit's subject; its own comments do not count.
        """
        words = _words(code)
        scored: list[tuple[float, PastRemark]] = []
        for remark, about in self._known:
            shared = len(about & words) / len(about) if about else 0.0
            score = shared + _SAME_FILE * (remark.path == path)
            if score >= _LEAST and not _is_on(remark, title):
                scored.append((score, remark))
        return _best(scored, limit)

    def on_such_code(self, code: str, limit: int, title: str = "") -> list[PastRemark]:
        """The remarks on a line most of whose words ``code`` holds, in whatever file, best first."""
        words = _words(code)
        scored: list[tuple[float, PastRemark]] = []
        for remark, _ in self._known:
            about = _words(remark.line)
            shared = len(about & words) / max(len(about), _LEAST_WORDS)
            if shared >= _ALIKE and not _is_on(remark, title):
                scored.append((shared, remark))
        return _best(scored, limit)


def _is_on(remark: PastRemark, title: str) -> bool:
    """Whether it was made on the change of this title."""
    number = read_message(title, 2)[0] or read_message(title, 1)[0]
    return remark.number == number or remark.change.partition(" ")[2] == title


def _best(scored: list[tuple[float, PastRemark]], limit: int) -> list[PastRemark]:
    return [remark for _, remark in sorted(scored, key=lambda pair: -pair[0])[:limit]]


def with_past_remarks(finding: Finding, file: ReviewedFile, remarks: PastRemarks, title: str) -> Finding:
    """The finding with the past changes in which a reviewer remarked on such code, and with the line where that still
    stands in this file. What was said is not repeated: it was written by anyone, and stands at the change.
    """
    said = remarks.on_such_code(finding.anchor, _SHOWN, title)
    changes = [redact(f"{each.change} (a reviewer's remark on {plain_text(each.path)})")[0] for each in said]
    places = [
        Precedent(file.path, line, line, redact(f"a reviewer remarked on this line in {remark.change}")[0])
        for remark in said
        if remark.path == file.path and (line := _only_line(file, remark.line))
    ]
    return replace(finding, precedents=(*finding.precedents, *places), changes=(*finding.changes, *changes))


def _only_line(file: ReviewedFile, text: str) -> int | None:
    """The line of the file that has this text, when it is a single one."""
    found = [number for number, line in enumerate(file.shown_lines, start=1) if line.strip() == text]
    return found[0] if len(found) == 1 and text else None


def _words(code: str) -> frozenset[str]:
    return frozenset(word for word in index_terms(code).split() if len(word) > 2)
