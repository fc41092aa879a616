"""Pull requests as GitHub answers with them: the examples of its own OpenAPI with other contents."""

from __future__ import annotations

import re
from typing import Any

from .openapi import GitHubSchema

SCHEMA = GitHubSchema()
OWNER = {"login": "ada", "id": 7, "type": "User"}


def day(number: int) -> str:
    """A moment; larger numbers are later."""
    return f"{2000 + number // 336:04}-{number // 28 % 12 + 1:02}-{number % 28 + 1:02}T12:00:00Z"


class GitHubWorld:
    """``acme/shop`` with ``count`` merged pull requests; number n was merged, and changed last, on day n."""

    def __init__(self, count: int, per_page: int = 100) -> None:
        self.per_page = per_page
        self.pulls = {number: self._pull(number) for number in range(1, count + 1)}
        self.parts: dict[tuple[int, str], list[Any]] = {}

    def _pull(self, number: int) -> dict[str, Any]:
        pull: dict[str, Any] = SCHEMA.example("pull-request-simple-items")
        pull |= {
            "number": number,
            "title": f"Change {number}",
            "body": f"Why change {number}.",
            "html_url": f"https://github.com/acme/shop/pull/{number}",
            "state": "closed",
            "created_at": day(number - 1),
            "updated_at": day(number),
            "merged_at": day(number),
            "closed_at": day(number),
            "merge_commit_sha": f"{number:040x}",
            "author_association": "MEMBER",
            "user": {**pull["user"], **OWNER},
            "requested_teams": [],
        }
        return pull

    def say(self, number: int, kind: str, **values: Any) -> None:
        """Add a part to a pull request: of ``files``, ``commits``, ``comments``, ``reviews`` or ``issue comments``."""
        example = {
            "files": "diff-entry-items",
            "commits": "commit-items",
            "comments": "pull-request-review-comment-items",
            "reviews": "pull-request-review-items",
            "issue comments": "issue-comment-items",
        }
        item = SCHEMA.example(example[kind])
        item |= {key: {**item[key], **value} if key == "user" else value for key, value in values.items()}
        self.parts.setdefault((number, kind), []).append(item)

    def answer(self, path: str, query: dict[str, str]) -> Any:
        if path == "/repos/acme/shop":
            # The example lacks a field that the schema wants, in itself and in the repositories within.
            repository = SCHEMA.example("full-repository-default-response")
            within = ("source", "parent", "template_repository")
            kept = {key: value for key, value in repository.items() if key not in within}
            return {**kept, "language": "Python", "default_branch": "main"}
        if path == "/repos/acme/shop/pulls":
            assert query["base"] == "main" and query["state"] == "closed"
            assert (query["sort"], query["direction"]) == ("updated", "desc")
            return sorted(self.pulls.values(), key=lambda pull: pull["updated_at"], reverse=True)
        found = re.fullmatch(r"/repos/acme/shop/(pulls|issues)/(\d+)/(\w+)", path)
        if found is None or int(found[2]) not in self.pulls:
            return None
        kind = "issue comments" if found[1] == "issues" else found[3]
        return self.parts.get((int(found[2]), kind), [])

    def check(self, path: str, query: dict[str, str], content: Any) -> None:
        SCHEMA.check_request(path, query)
        SCHEMA.check_answer(path, content)
