"""A review as reviewdog's rdjsonl, one diagnostic a line. Its columns count the bytes of UTF-8, and from 1.

https://github.com/reviewdog/reviewdog/tree/master/proto/rdf
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inhouse_server.review.change import Change
from inhouse_server.review.finding import Finding, Review
from inhouse_server.review.renderers.harmless import harmless_line
from inhouse_server.review.renderers.json_format import one_line
from inhouse_server.review.renderers.places import file_of, line_texts, related
from inhouse_server.review.renderers.text import message

_SEVERITIES = {"warning": "WARNING", "info": "INFO"}


def render(review: Review, change: Change, root: Path) -> str:
    """Nothing at all where nothing was found: the format has no place for what was looked at."""
    lines = [one_line(_diagnostic(finding, line_texts(file_of(change, finding)))) for finding in review.findings]
    return "".join(f"{line}\n" for line in lines)


def _diagnostic(finding: Finding, lines: list[str]) -> dict[str, Any]:
    diagnostic: dict[str, Any] = {
        # reviewdog puts the message into a comment as Markdown.
        "message": message(finding),
        "location": {"path": finding.path, "range": _range(finding.start_line, finding.end_line, lines)},
        "severity": _SEVERITIES[finding.severity],
        "source": {"name": "inhouse"},
        "code": {"value": finding.rule},
    }
    if finding.also or finding.precedents:
        diagnostic["related_locations"] = [
            {"message": harmless_line(note), "location": {"path": path, "range": _whole(first, last)}}
            for path, first, last, note in related(finding)
        ]
    if finding.replacement is not None:
        diagnostic["suggestions"] = [_suggestion(finding, finding.replacement, lines)]
    return diagnostic


def _suggestion(finding: Finding, replacement: str, lines: list[str]) -> dict[str, Any]:
    """With columns, an empty text would leave an empty line; only a range without them takes the lines away."""
    if not replacement:
        return {"range": _whole(finding.start_line, finding.end_line), "text": ""}
    text = replacement.removesuffix("\n").removesuffix("\r")
    return {"range": _range(finding.start_line, finding.end_line, lines), "text": text}


def _range(first: int, last: int, lines: list[str]) -> dict[str, Any]:
    """From the first byte of the first line to after the last byte of the last one."""
    if not 1 <= last <= len(lines):
        return _whole(first, last)
    width = len(lines[last - 1].encode("utf-8", "surrogateescape"))
    return {"start": {"line": first, "column": 1}, "end": {"line": last, "column": width + 1}}


def _whole(first: int, last: int) -> dict[str, Any]:
    return {"start": {"line": first}, "end": {"line": last}}
