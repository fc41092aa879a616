"""A review as SARIF 2.1.0, which code scanning and archives take.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from inhouse_server.review.change import Change
from inhouse_server.review.finding import Finding, Review
from inhouse_server.review.renderers.harmless import harmless_line
from inhouse_server.review.renderers.json_format import one_line
from inhouse_server.review.renderers.places import file_of, line_texts, related
from inhouse_server.review.renderers.text import message, sentences

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {"warning": "warning", "info": "note"}


def render(review: Review, change: Change, root: Path) -> str:
    """One run of the tool ``inhouse``. What it looked at and left out are its notifications."""
    rules = list(dict.fromkeys(finding.rule for finding in review.findings))
    notifications = [{"level": "note", "message": _message(harmless_line(said))} for said in sentences(review)]
    run = {
        "tool": {"driver": {"name": "inhouse", "rules": [_rule(name) for name in rules]}},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notifications}],
        "results": [_result(finding, rules.index(finding.rule), change) for finding in review.findings],
    }
    return one_line({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})


def _rule(name: str) -> dict[str, Any]:
    return {"id": name, "shortDescription": {"text": _literal(name.replace("-", " ").capitalize())}}


def _result(finding: Finding, rule: int, change: Change) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": rule,
        "level": _LEVELS[finding.severity],
        "message": _message(message(finding)),
        "locations": [_location(finding.path, finding.start_line, finding.end_line)],
        "partialFingerprints": {"inhouse/v1": finding.fingerprint},
    }
    if finding.also or finding.precedents:
        result["relatedLocations"] = [
            {"id": number, "message": _message(harmless_line(note)), **_location(path, first, last)}
            for number, (path, first, last, note) in enumerate(related(finding))
        ]
    if finding.replacement is not None:
        result["fixes"] = [_fix(finding, finding.replacement, line_texts(file_of(change, finding)))]
    return result


def _fix(finding: Finding, replacement: str, lines: list[str]) -> dict[str, Any]:
    """The lines with their ends are replaced; the last line of a file may have none."""
    region = {"startLine": finding.start_line, "startColumn": 1, "endLine": finding.end_line + 1, "endColumn": 1}
    if finding.end_line == len(lines):
        region |= {"endLine": finding.end_line, "endColumn": len(lines[-1]) + 1}
        replacement = replacement.removesuffix("\n").removesuffix("\r")
    change = {"deletedRegion": region, "insertedContent": {"text": replacement}}
    return {"artifactChanges": [{"artifactLocation": {"uri": _uri(finding.path)}, "replacements": [change]}]}


def _location(path: str, first: int, last: int) -> dict[str, Any]:
    region = {"startLine": first, "endLine": last}
    return {"physicalLocation": {"artifactLocation": {"uri": _uri(path)}, "region": region}}


def _uri(path: str) -> str:
    """Relative to the repository; the bytes of a path that is not UTF-8 are kept."""
    return quote(path.encode("utf-8", "surrogateescape"), safe="/")


def _message(markdown: str) -> dict[str, str]:
    return {"text": _literal(markdown)}


def _literal(text: str) -> str:
    """Braces are doubled, as a placeholder would need an argument (section 3.11.5).

    A link in plain text needs no Markdown around it and is one within code as well (section 3.11.6).
    """
    return text.replace("](", "] (").replace("{", "{{").replace("}", "}}")
