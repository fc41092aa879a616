"""A review on GitHub: one request, which GitHub takes as a whole or not at all.

https://docs.github.com/rest/pulls/reviews#create-a-review-for-a-pull-request
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from inhouse_retrieval import ForgeClient, ForgeRefusal
from inhouse_server.review.change import ReviewedFile, Status
from inhouse_server.review.posting.pull import Marker, Pull, hunks_of, marker_of
from inhouse_server.review.posting.request import PostRequest, Remark
from inhouse_server.review.renderers.forge_places import github_comment

_STATUS: dict[str, Status] = {"added": "added", "copied": "added", "removed": "removed", "renamed": "renamed"}


class GitHubPull:
    """One pull request."""

    def __init__(self, client: ForgeClient, route: str, number: int) -> None:
        self._client = client
        self._route = f"{route}/pulls/{number}"

    async def pull(self) -> Pull:
        found = await self._client.read(self._route)
        state = "merged" if found.get("merged_at") else found["state"]
        return Pull(state, found["head"]["sha"], found["base"]["ref"])

    async def files(self) -> Sequence[ReviewedFile]:
        return [
            ReviewedFile(
                item["filename"],
                item.get("previous_filename") or item["filename"],
                _STATUS.get(item["status"], "modified"),
                hunks_of(item.get("patch")),
            )
            for item in await self._client.read_all(f"{self._route}/files")
        ]

    async def markers(self) -> Sequence[Marker]:
        ours = await self._ours()
        reviews = await self._client.read_all(f"{self._route}/reviews")
        found = [marker_of(review["body"]) for review in reviews if review["user"] is not None and ours(review["user"])]
        return [marker for marker in found if marker is not None]

    async def _ours(self) -> Callable[[dict[str, Any]], bool]:
        """Who is the token's owner. An app's token, such as that of a job, may not ask; its reviews are a bot's."""
        try:
            me = (await self._client.read("/user"))["id"]
        except ForgeRefusal as refusal:
            if refusal.status not in (403, 404):
                raise
            return lambda user: bool(user["type"] == "Bot")
        return lambda user: bool(user["id"] == me)

    async def post(
        self,
        pull: Pull,
        request: PostRequest,
        beside: Sequence[tuple[Remark, ReviewedFile]],
        body: str,
        said: Collection[str],
        remember: Callable[[Iterable[str], bool], None],
    ) -> str:
        content = {
            "commit_id": request.head_commit,
            "event": request.event,
            "body": f"{body}\n\n{Marker(True, request.head_commit, tuple(said))}",
            "comments": [_comment(remark) for remark, _ in beside],
        }
        made = await self._client.write(f"{self._route}/reviews", content)
        remember(said, True)
        return str(made.get("html_url", "")) if isinstance(made, dict) else ""


def _comment(remark: Remark) -> dict[str, Any]:
    return github_comment(remark.path, remark.start_line, remark.end_line, remark.body, remark.replacement)
