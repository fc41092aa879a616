"""Where a remark stands and how a suggestion is written, as each forge wants it; for the renderers and for what posts.

https://docs.github.com/rest/pulls/reviews#create-a-review-for-a-pull-request
https://docs.gitlab.com/api/discussions/#create-a-merge-request-thread; which paths and lines it wants: gitlab#35935.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inhouse_server.review.change import ReviewedFile
from inhouse_server.review.renderers import text
from inhouse_server.review.renderers.harmless import fence
from inhouse_server.review.renderers.places import old_line

_MOST_LINES_ABOVE = 100
"""That a suggestion of GitLab may replace above the line that it is anchored to; it takes no more."""


def github_comment(path: str, first: int, last: int, body: str, replacement: str | None) -> dict[str, Any]:
    """A comment of a GitHub review, on lines ``first`` to ``last`` as the change leaves them."""
    said = [body] if replacement is None else [body, fence(text.whole_lines(replacement), "suggestion")]
    comment: dict[str, Any] = {"path": path, "body": "\n\n".join(said), "line": last, "side": "RIGHT"}
    return comment | ({"start_line": first, "start_side": "RIGHT"} if first < last else {})


def gitlab_position(file: ReviewedFile, line: int, commits: Mapping[str, str]) -> dict[str, Any]:
    """The position of a GitLab thread: on the last line of a remark, which a suggestion counts from.

    Args:
        commits: ``base_sha``, ``start_sha`` and ``head_sha``.
    """
    position: dict[str, Any] = {
        "position_type": "text",
        **commits,
        "old_path": file.path if file.status == "added" else file.former,
        "new_path": file.path,
        "new_line": line,
    }
    before = old_line(file, line)
    return position if before is None else position | {"old_line": before}


def gitlab_suggestion(first: int, last: int, replacement: str | None) -> list[str]:
    """A suggestion for a GitLab thread; one that is too long is only shown."""
    if replacement is None or last - first > _MOST_LINES_ABOVE:
        return text.instead(replacement)
    return [fence(text.whole_lines(replacement), f"suggestion:-{last - first}+0")]
