"""A review as a Markdown document, to read in an editor or to put anywhere that shows Markdown."""

from __future__ import annotations

import difflib
from itertools import islice
from pathlib import Path

from inhouse_retrieval import redact
from inhouse_server.review.change import Change
from inhouse_server.review.finding import Finding, Review
from inhouse_server.review.renderers import text
from inhouse_server.review.renderers.harmless import code, fence, harmless_line, visible
from inhouse_server.review.renderers.places import lines_of


def render(review: Review, change: Change, root: Path) -> str:
    """Findings, then what was left out and what was not read."""
    parts = [f"# Review of {code(review.head)} against {code(review.base)}", harmless_line(text.headline(review))]
    for finding in review.findings:
        parts += [f"## {code(lines_of(finding))}", text.remark(finding)]
        if finding.replacement is not None:
            parts.append(fence(visible(difference(finding)), "diff"))
    parts += [harmless_line(sentence) for sentence in (*text.left_out(review), *review.notes)]
    for title, rows in (("Not read", _unread(review)), ("Not read by the model", map(code, review.coverage.unseen))):
        if listed := "\n".join(f"- {row}" for row in rows):
            parts.append(f"## {title}\n\n{listed}")
    if read_by := text.provenance(review):
        parts.append(f"---\n\n{harmless_line(read_by)}")
    return "\n\n".join(parts) + "\n"


def difference(finding: Finding) -> str:
    """What the replacement does to the finding's lines, each with its sign and on its own line, without secrets."""
    before, after = (_lines(side) for side in (finding.anchor, finding.replacement or ""))
    without_names = islice(difflib.unified_diff(before, after, n=2, lineterm=""), 2, None)
    return redact("\n".join(line for line in without_names if not line.startswith("@@")))[0]


def _lines(block: str) -> list[str]:
    """Only ``\\n`` and ``\\r\\n`` end a line: code may hold every other line separator."""
    lines = block.replace("\r\n", "\n").removesuffix("\n").split("\n")
    return lines if block else []


def _unread(review: Review) -> list[str]:
    return [f"{code(path)}: {harmless_line(reason)}" for path, reason in review.coverage.unread.items()]
