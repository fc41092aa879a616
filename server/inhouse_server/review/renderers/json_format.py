"""A review as one line of JSON: the contract that scripts rely on, with the text as it was found."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inhouse_server.review.change import Change
from inhouse_server.review.finding import Finding, Review

_SURROGATE = re.compile(r"[\ud800-\udfff]")


def render(review: Review, change: Change, root: Path) -> str:
    """Fields are added to it, and never renamed or taken away."""
    return one_line(review_json(review))


def review_json(review: Review) -> dict[str, Any]:
    """The contract before it is written down."""
    return {
        "base": review.base,
        "head": review.head,
        "head_commit": review.head_commit,
        "findings": [_finding(finding) for finding in review.findings],
        "coverage": asdict(review.coverage),
        "more": review.more,
        "repeated": review.repeated,
        "dropped": review.dropped,
        "notes": review.notes,
        "provenance": {"base_model": review.base_model, "adapter": review.adapter},
    }


def one_line(value: object) -> str:
    """JSON without a line end in it. A path that is not UTF-8 holds lone surrogates, which only an escape can write."""
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "path": finding.path,
        "start_line": finding.start_line,
        "end_line": finding.end_line,
        "severity": finding.severity,
        "rule": finding.rule,
        "message": finding.message,
        "replacement": finding.replacement,
        "precedents": [asdict(place) for place in finding.precedents],
        "changes": finding.changes,
        "also": [{"start_line": first, "end_line": last} for first, last in finding.also],
        "score": finding.score,
        "fingerprint": finding.fingerprint,
    }
