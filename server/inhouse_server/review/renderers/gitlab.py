"""A review as GitLab takes it: bodies for ``POST /projects/:id/merge_requests/:iid/discussions``, one for each thread.

https://docs.gitlab.com/api/discussions/#create-a-merge-request-thread; which paths and lines it wants: gitlab#35935.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inhouse_retrieval import InhouseError
from inhouse_server.review.change import Change
from inhouse_server.review.finding import Finding, Review
from inhouse_server.review.renderers import text
from inhouse_server.review.renderers.forge_places import gitlab_position, gitlab_suggestion
from inhouse_server.review.renderers.harmless import code, harmless_line
from inhouse_server.review.renderers.json_format import one_line
from inhouse_server.review.renderers.places import file_of, hunk_around, lines_of


def render(review: Review, change: Change, root: Path) -> str:
    """Empty where nothing was found: every body opens a thread that somebody has to resolve.

    Raises:
        InhouseError: there are findings, and what was reviewed is not committed.
    """
    if review.findings and not change.head_commit:
        raise InhouseError(
            "GitLab places a remark on a commit, and what was reviewed is not committed.",
            "Commit it and review BASE..HEAD, or choose another format.",
        )
    discussions = [_discussion(finding, change) for finding in review.findings]
    if discussions:
        said = "\n\n".join(harmless_line(sentence) for sentence in text.sentences(review))
        discussions[0]["body"] += f"\n\n---\n\n{said}"
    return one_line(discussions)


def _discussion(finding: Finding, change: Change) -> dict[str, Any]:
    file = file_of(change, finding)
    if file is None or hunk_around(file, finding.start_line, finding.end_line) is None:
        # A thread without a position stands below the merge request; one outside the diff is shown nowhere.
        return {
            "body": "\n\n".join((code(lines_of(finding)), text.remark(finding), *text.instead(finding.replacement)))
        }
    commits = {"base_sha": change.base_commit, "start_sha": change.base_commit, "head_sha": change.head_commit}
    replacement, shown = text.offered(finding.replacement)
    suggestion = [*shown, *gitlab_suggestion(finding.start_line, finding.end_line, replacement)]
    return {
        "body": "\n\n".join((text.remark(finding), *suggestion)),
        "position": gitlab_position(file, finding.end_line, commits),
    }
