"""Merge requests from GitLab's REST API, version 4 (``https://HOST/api/v4``); GitLab 15.7 or newer.

https://docs.gitlab.com/api/merge_requests/. GitLab does not say how a commenter stands to the project, so a role is
``author`` or empty. A comment carries its position but no diff: its hunk is cut out of the merge request's own diff,
where the comment was made on that very version. Internal notes, which not every member may see, and system notes are
left out.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from inhouse_retrieval.pull_requests.forge import Forge, ForgeConnection, Listed, default_branch
from inhouse_retrieval.pull_requests.git_history import MAX_FILES, count_lines, shortened
from inhouse_retrieval.pull_requests.pull_request import PullRequest

_LISTED = TypeAdapter(list[Listed])
_PULL_REQUEST = TypeAdapter(PullRequest)
_HUNK = re.compile(r"@@ -(?P<old>\d+)(?:,\d+)? \+(?P<new>\d+)(?:,\d+)? @@")


class GitLab:
    """The merge requests of one project."""

    def __init__(self, forge: Forge, connection: ForgeConnection) -> None:
        self._connection = connection
        self._route = forge.route

    async def listing(self, version: str) -> AsyncIterator[Sequence[Listed]]:
        """Pages of merged merge requests into the default branch, the last changed first."""
        branch = ""
        async for page in self._connection.pages(self._route, version, default_branch):
            branch = page.items[0]
        query = {"state": "merged", "target_branch": branch, "order_by": "updated_at", "sort": "desc"}
        async for page in self._connection.pages(f"{self._route}/merge_requests", version, _listed, query):
            try:
                yield _LISTED.validate_python(page.items)
            except ValueError as error:
                raise self._connection.not_documented(f"{self._route}/merge_requests") from error

    async def details(self, listed: Listed) -> tuple[PullRequest, tuple[str, ...]]:
        """All of one merge request, and which parts of it GitLab would not give."""
        route, version = f"{self._route}/merge_requests/{listed.number}", listed.version
        parts = {
            "files": await self._connection.part(f"{route}/diffs", version, _file),
            "commits": await self._connection.part(f"{route}/commits", version, _commit),
            "comments": await self._connection.part(
                f"{route}/discussions", version, lambda item: _notes(item, listed.author)
            ),
        }
        files: list[dict[str, Any]] = parts["files"][0]
        notes = [note for discussion in parts["comments"][0] for note in discussion]
        patches = {file["path"]: file["patch"] for file in files}
        content = {
            "number": listed.number,
            "title": listed.title,
            "description": listed.description,
            "url": listed.url,
            "created_at": listed.created_at,
            "merged_at": listed.merged_at,
            "commit": listed.commit,
            "parent": "",
            "files": files[:MAX_FILES],
            "omitted_files": max(len(files) - MAX_FILES, 0),
            "comments": [note["comment"] for note in notes if note["position"] is None],
            "review_comments": [
                {**note["comment"], **_place(note["position"], patches, listed.head)}
                for note in notes
                if note["position"] is not None
            ],
            "commits": parts["commits"][0][::-1],  # GitLab lists the newest first
            "author_role": listed.author_role,
        }
        try:
            change = _PULL_REQUEST.validate_python(content)
        except ValueError as error:
            raise self._connection.not_documented(route) from error
        return change, tuple(name for name, (_, missing) in parts.items() if missing)


def _listed(item: Any) -> dict[str, Any]:
    return {
        "number": item["iid"],
        "title": item["title"],
        "description": item["description"] or "",
        "url": item["web_url"],
        "author": item["author"]["id"] if item["author"] is not None else None,
        "author_role": "",
        "created_at": item["created_at"],
        "updated_at": item["updated_at"],
        "merged_at": item["merged_at"],
        # By merge commit, by squash, or fast-forward.
        "commit": item["merge_commit_sha"] or item["squash_commit_sha"] or item["sha"] or "",
        "head": item["sha"] or "",
    }


def _file(item: Any) -> dict[str, Any]:
    kinds = {"added": "new_file", "removed": "deleted_file", "renamed": "renamed_file"}
    patch, omitted = shortened(item["diff"])
    additions, deletions = count_lines(item["diff"])
    return {
        "path": item["new_path"],
        "status": next((status for status, key in kinds.items() if item[key]), "modified"),
        "patch": patch,
        "omitted_lines": omitted,
        "additions": additions,
        "deletions": deletions,
    }


def _commit(item: Any) -> dict[str, Any]:
    return {"id": item["id"], "subject": item["title"]}


def _notes(item: Any, author: int | None) -> list[dict[str, Any]]:
    found = []
    for note in item["notes"]:
        if note["system"] or note.get("internal") or note.get("confidential"):
            continue
        by_author = author is not None and note["author"] is not None and note["author"]["id"] == author
        comment = {
            "role": "author" if by_author else "",
            "written_at": note.get("updated_at") or note["created_at"],
            "text": note["body"],
        }
        position = note.get("position")
        keys = ("new_path", "old_path", "new_line", "old_line", "head_sha")
        kept = {key: position.get(key) for key in keys} if position is not None else None
        found.append({"comment": comment, "position": kept})
    return found


def _place(position: Mapping[str, Any], patches: Mapping[str, str], head: str) -> dict[str, Any]:
    side = "old" if position["new_line"] is None and position["old_line"] is not None else "new"
    line = position[f"{side}_line"]
    path = position["new_path"] or position["old_path"]
    hunk = _hunk_until(patches.get(path, ""), side, line) if line is not None and position["head_sha"] == head else ""
    return {"path": path, "line": line, "side": side, "hunk": hunk}


def _hunk_until(patch: str, side: str, wanted: int) -> str:
    """The hunk of ``patch`` that has the line ``wanted``, down to that line; empty when none has it."""
    kept: list[str] = []
    numbers = {"old": 0, "new": 0}
    for text in patch.split("\n"):
        if header := _HUNK.match(text):
            kept = [text]
            numbers = {name: int(header[name]) for name in ("old", "new")}
            continue
        kept.append(text)
        on = {"-": ("old",), "+": ("new",), "\\": ()}.get(text[:1], ("old", "new"))
        if side in on and numbers[side] == wanted:
            return "\n".join(kept)
        for name in on:
            numbers[name] += 1
    return ""
