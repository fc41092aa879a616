"""The account of a dataset while it is built: tokens read = trained + held out + dropped, by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from inhouse_retrieval import PullRequest, SkippedFile, redactions_in

from .documents import BOT
from .kinds import KINDS, Kind


class Account:
    """What became of every token that was read, and what was left out or redacted on the way.

    Attributes:
        read, held_out: tokens by kind.
        dropped: kind -> reason -> tokens.
        skipped: reason -> files that were not read.
        left_out: each file and piece that is not trained on, with its reason.
        redactions: where secrets were taken out, by kind and place, never by value.
    """

    def __init__(self) -> None:
        self.read: Counter[Kind] = Counter()
        self.held_out: Counter[Kind] = Counter()
        self.dropped: dict[Kind, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.skipped: Counter[str] = Counter()
        self.left_out: list[dict[str, Any]] = []
        self.redactions: list[dict[str, Any]] = []

    def drop(self, kind: Kind, name: str, part: int, tokens: int, reason: str) -> None:
        """A piece that was read and is not trained on."""
        self.dropped[kind][reason] += tokens
        self.left_out.append({"kind": kind, "name": name, "part": part, "tokens": tokens, "reason": reason})

    def skip(self, skipped: SkippedFile) -> None:
        """A file that is not read."""
        self.skipped[skipped.reason] += 1
        self.left_out.append({"kind": "file", "name": skipped.path, "reason": skipped.reason})

    def note_redactions(self, clean: str, name: str, with_lines: bool) -> None:
        """Note the marks in a redacted text: its reader has mostly redacted it already."""
        for found in redactions_in(clean):
            place = {"line": found.line} if with_lines else {}
            self.redactions.append({"name": name, **place, "secret": found.kind})

    def note_undated(self, ticket: str) -> None:
        """A ticket whose export does not say when it was changed; its tokens are among those held out."""
        reason = "held out: nothing says how old its title, description and state are"
        self.left_out.append({"kind": "thread", "name": ticket, "reason": reason})

    def note_omissions(self, change: PullRequest) -> None:
        """What the reader of changes did not hand over: the ends of very long patches, files of mass edits."""
        reasons = []
        if change.omitted_files:
            reasons.append(f"{change.omitted_files} files of the change were not read")
        if by_bots := sum(comment.role == BOT for comment in change.said):
            reasons.append(f"{by_bots} comments of bots")
        reasons += [
            f"{file.omitted_lines} lines of the patch of {printable(file.path)} were not read"
            for file in change.files
            if file.omitted_lines
        ]
        self.left_out += [{"kind": "change", "name": change.commit, "reason": reason} for reason in reasons]

    def tokens(self, trained: Mapping[Kind, int]) -> dict[str, Any]:
        """For the manifest."""
        return {
            kind: {
                "read": self.read[kind],
                "trained": trained.get(kind, 0),
                "held_out": self.held_out[kind],
                "dropped": dict(sorted(self.dropped[kind].items())),
            }
            for kind in KINDS
        }


def printable(path: str) -> str:
    """A file name without surrogates: one that is no UTF-8 reaches Python with them, and no tokenizer takes them."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
