"""A review on GitLab: a thread for each remark, then one note about the whole.

GitLab takes them one by one, so each carries a marker, and one that is there already is not posted again.
https://docs.gitlab.com/api/discussions/#create-a-merge-request-thread; which paths and lines it wants: gitlab#35935.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from inhouse_retrieval import ForgeClient
from inhouse_server.review.change import ReviewedFile, Status
from inhouse_server.review.posting.pull import Marker, Pull, hunks_of, marker_of
from inhouse_server.review.posting.request import PostRequest, Remark
from inhouse_server.review.renderers.forge_places import gitlab_position, gitlab_suggestion

_REFS = ("base_sha", "start_sha", "head_sha")


class GitLabPull:
    """One merge request."""

    def __init__(self, client: ForgeClient, route: str, number: int) -> None:
        self._client = client
        self._route = f"{route}/merge_requests/{number}"

    async def pull(self) -> Pull:
        found = await self._client.read(self._route)
        refs = found["diff_refs"] or {}  # not there before GitLab made the diff
        state = "open" if found["state"] == "opened" else found["state"]
        diff_refs = tuple((name, refs[name]) for name in _REFS if name in refs)
        return Pull(state, found["sha"], found["target_branch"], diff_refs)

    async def files(self) -> Sequence[ReviewedFile]:
        return [
            ReviewedFile(item["new_path"], item["old_path"], _status(item), hunks_of(item["diff"]))
            for item in await self._client.read_all(f"{self._route}/diffs")
        ]

    async def markers(self) -> Sequence[Marker]:
        me = (await self._client.read("/user"))["id"]
        discussions = await self._client.read_all(f"{self._route}/discussions")
        notes = [note for discussion in discussions for note in discussion["notes"]]
        found = [marker_of(note["body"]) for note in notes if note["author"] is not None and note["author"]["id"] == me]
        return [marker for marker in found if marker is not None]

    async def post(
        self,
        pull: Pull,
        request: PostRequest,
        beside: Sequence[tuple[Remark, ReviewedFile]],
        body: str,
        said: Collection[str],
        remember: Callable[[Iterable[str], bool], None],
    ) -> str:
        for remark, file in beside:
            marker = Marker(False, request.head_commit, (remark.fingerprint,))
            position = gitlab_position(file, remark.end_line, dict(pull.diff_refs))
            content = {"body": f"{_body(remark)}\n\n{marker}", "position": position}
            await self._client.write(f"{self._route}/discussions", content)
            remember([remark.fingerprint], False)
        marker = Marker(True, request.head_commit, tuple(said))
        await self._client.write(f"{self._route}/notes", {"body": f"{body}\n\n{marker}"})
        remember(said, True)
        return ""


def _status(item: Any) -> Status:
    kinds: tuple[tuple[Status, str], ...] = (
        ("added", "new_file"),
        ("removed", "deleted_file"),
        ("renamed", "renamed_file"),
    )
    return next((status for status, key in kinds if item[key]), "modified")


def _body(remark: Remark) -> str:
    return "\n\n".join((remark.body, *gitlab_suggestion(remark.start_line, remark.end_line, remark.replacement)))
