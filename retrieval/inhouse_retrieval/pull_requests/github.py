"""Pull requests from GitHub's REST API, in the cloud (``https://api.github.com``) or on a GitHub Enterprise Server
(``https://HOST/api/v3``).

https://docs.github.com/en/rest/pulls/pulls. Comments come from three places: on lines (pull request comments), with a
review (its summary), and on the whole (issue comments).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from inhouse_retrieval.pull_requests.forge import Forge, ForgeConnection, Listed, default_branch
from inhouse_retrieval.pull_requests.git_history import MAX_FILES, shortened
from inhouse_retrieval.pull_requests.pull_request import PullRequest, Status

_LISTED = TypeAdapter(list[Listed])
_PULL_REQUEST = TypeAdapter(PullRequest)
_STATUS: Mapping[str, Status] = {"added": "added", "copied": "added", "removed": "removed", "renamed": "renamed"}


class GitHub:
    """The pull requests of one repository."""

    def __init__(self, forge: Forge, connection: ForgeConnection) -> None:
        self._connection = connection
        self._route = forge.route

    async def listing(self, version: str) -> AsyncIterator[Sequence[Listed]]:
        """Pages of closed pull requests into the default branch, the last changed first."""
        branch = ""
        async for page in self._connection.pages(self._route, version, default_branch):
            branch = page.items[0]
        query = {"state": "closed", "base": branch, "sort": "updated", "direction": "desc"}
        async for page in self._connection.pages(f"{self._route}/pulls", version, _listed, query):
            try:
                yield _LISTED.validate_python(page.items)
            except ValueError as error:
                raise self._connection.not_documented(f"{self._route}/pulls") from error

    async def details(self, listed: Listed) -> tuple[PullRequest, tuple[str, ...]]:
        """All of one pull request, and which parts of it GitHub would not give."""
        pull, issue = f"{self._route}/pulls/{listed.number}", f"{self._route}/issues/{listed.number}"
        version, author = listed.version, listed.author
        parts = {
            "files": await self._connection.part(f"{pull}/files", version, _file),
            "commits": await self._connection.part(f"{pull}/commits", version, _commit),
            "review comments": await self._connection.part(
                f"{pull}/comments", version, lambda item: _review_comment(item, author)
            ),
            "reviews": await self._connection.part(f"{pull}/reviews", version, lambda item: _review(item, author)),
            "comments": await self._connection.part(f"{issue}/comments", version, lambda item: _comment(item, author)),
        }
        items = {name: found for name, (found, _) in parts.items()}
        content = {
            "number": listed.number,
            "title": listed.title,
            "description": listed.description,
            "url": listed.url,
            "created_at": listed.created_at,
            "merged_at": listed.merged_at,
            "commit": listed.commit,
            "parent": "",
            "files": items["files"][:MAX_FILES],
            "omitted_files": max(len(items["files"]) - MAX_FILES, 0),
            "comments": sorted([*items["reviews"], *items["comments"]], key=lambda item: str(item["written_at"])),
            "review_comments": items["review comments"],
            "commits": items["commits"],
            "author_role": listed.author_role,
        }
        try:
            change = _PULL_REQUEST.validate_python(content)
        except ValueError as error:
            raise self._connection.not_documented(pull) from error
        return change, tuple(name for name, (_, missing) in parts.items() if missing)


def _listed(item: Any) -> dict[str, Any]:
    return {
        "number": item["number"],
        "title": item["title"],
        "description": item["body"] or "",
        "url": item["html_url"],
        "author": _user(item),
        "author_role": _role(item, None),
        "created_at": item["created_at"],
        "updated_at": item["updated_at"],
        "merged_at": item["merged_at"],
        "commit": item["merge_commit_sha"] or "",
        "head": item["head"]["sha"],
    }


def _file(item: Any) -> dict[str, Any]:
    patch, omitted = shortened(item.get("patch") or "")
    return {
        "path": item["filename"],
        "status": _STATUS.get(item["status"], "modified"),
        "patch": patch,
        "omitted_lines": omitted,
        "additions": item["additions"],
        "deletions": item["deletions"],
    }


def _commit(item: Any) -> dict[str, Any]:
    return {"id": item["sha"], "subject": item["commit"]["message"].strip().partition("\n")[0].rstrip()}


def _review_comment(item: Any, author: int | None) -> dict[str, Any]:
    # The hunk is that of the first version, so the line of then comes before today's.
    line = item.get("original_line") or item.get("line")
    return {
        "path": item["path"],
        "line": line,
        "side": "old" if item.get("side") == "LEFT" else "new",
        "hunk": item.get("diff_hunk") or "",
        **_comment(item, author),
    }


def _review(item: Any, author: int | None) -> dict[str, Any] | None:
    written_at = item.get("submitted_at")  # absent from a review that its author has not sent yet
    if not (item["body"] or "").strip() or not written_at:
        return None
    return {"role": _role(item, author), "written_at": written_at, "text": item["body"]}


def _comment(item: Any, author: int | None) -> dict[str, Any]:
    written_at = item.get("updated_at") or item["created_at"]
    return {"role": _role(item, author), "written_at": written_at, "text": item["body"] or ""}


def _role(item: Any, author: int | None) -> str:
    user = item["user"]
    if user is not None and user.get("type") == "Bot":
        return "bot"
    if author is not None and _user(item) == author:
        return "author"
    return str(item["author_association"]).lower().replace("_", " ")


def _user(item: Any) -> int | None:
    return item["user"]["id"] if item["user"] is not None else None  # a deleted account has none
