"""A review as GitHub takes it: the body of ``POST /repos/{owner}/{repo}/pulls/{number}/reviews``.

GitHub refuses all of a review when one comment stands on lines outside a hunk, or spans two of them.
https://docs.github.com/rest/pulls/reviews#create-a-review-for-a-pull-request
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inhouse_server.review.change import Change
from inhouse_server.review.finding import Finding, Review
from inhouse_server.review.renderers import text
from inhouse_server.review.renderers.forge_places import github_comment
from inhouse_server.review.renderers.harmless import code, harmless_line
from inhouse_server.review.renderers.json_format import one_line
from inhouse_server.review.renderers.places import file_of, hunk_around, lines_of


def render(review: Review, change: Change, root: Path) -> str:
    """Always a comment: it neither approves nor asks for changes.

    Without a commit of its own, GitHub takes the newest one of the pull request.
    """
    inside = [finding for finding in review.findings if _takes_comment(finding, change)]
    outside = [finding for finding in review.findings if finding not in inside]
    body: dict[str, Any] = {"commit_id": change.head_commit} if change.head_commit else {}
    said = [harmless_line(sentence) for sentence in text.sentences(review)]
    body |= {
        "body": "\n\n".join((*said, *map(_elsewhere, outside))),
        "event": "COMMENT",
        "comments": [_comment(finding) for finding in inside],
    }
    return one_line(body)


def _takes_comment(finding: Finding, change: Change) -> bool:
    return hunk_around(file_of(change, finding), finding.start_line, finding.end_line) is not None


def _comment(finding: Finding) -> dict[str, Any]:
    replacement, shown = text.offered(finding.replacement)
    body = "\n\n".join((text.remark(finding), *shown))
    return github_comment(finding.path, finding.start_line, finding.end_line, body, replacement)


def _elsewhere(finding: Finding) -> str:
    """A finding in the review's own text, where a suggestion cannot be applied and is only shown."""
    return "\n\n".join((code(lines_of(finding)), text.remark(finding), *text.instead(finding.replacement)))
