"""One open pull request on GitHub and on GitLab, for a forge on loopback that can be posted to.

Both refuse what the forge refuses: GitHub a whole review for one comment outside a hunk, GitLab a thread without its
line. GitHub's messages are held against its OpenAPI; GitLab publishes none, so its bodies are held against the fields
of its documentation: https://docs.gitlab.com/api/discussions/, https://docs.gitlab.com/api/notes/.
"""

from __future__ import annotations

import re
from typing import Any

from jsonschema import Draft202012Validator

from tests.retrieval.forges.github_world import SCHEMA

ME, STRANGER = 7, 8


def new_lines(patch: str) -> list[set[int]]:
    """The lines of the new side, for each hunk."""
    hunks: list[set[int]] = []
    number = 0
    for line in patch.split("\n"):
        if header := re.match(r"@@ -\S+ \+(\d+)", line):
            number = int(header[1])
            hunks.append(set())
        elif line[:1] in ("+", " "):
            hunks[-1].add(number)
            number += 1
    return hunks


class GitHubPullWorld:
    """``acme/shop`` with pull request 77; ``app`` says that the token is an app's, which may not ask who it is."""

    per_page = 100

    def __init__(self, head: str, patches: dict[str, str | None], app: bool = False) -> None:
        self.app = app
        self.pull: dict[str, Any] = SCHEMA.example("pull-request")
        self.pull |= {"number": 77, "state": "open", "merged_at": None, "requested_teams": []}
        self.pull["head"]["sha"], self.pull["base"]["ref"] = head, "main"
        self.patches = patches
        self.reviews: list[dict[str, Any]] = []

    def answer(self, path: str, query: dict[str, str]) -> Any:
        if path == "/user":
            return None if self.app else {**SCHEMA.example(USER), "id": ME}
        if path == "/repos/acme/shop/pulls/77":
            return self.pull
        if path == "/repos/acme/shop/pulls/77/files":
            return [self._file(name, patch) for name, patch in self.patches.items()]
        return self.reviews if path == "/repos/acme/shop/pulls/77/reviews" else None

    def _file(self, name: str, patch: str | None) -> dict[str, Any]:
        item: dict[str, Any] = {**SCHEMA.example("diff-entry-items"), "filename": name, "status": "modified"}
        del item["patch"]
        return item if patch is None else {**item, "patch": patch}

    def review(self, body: str, user: int = ME) -> dict[str, Any]:
        made: dict[str, Any] = SCHEMA.example("pull-request-review")
        made |= {"id": len(self.reviews) + 1, "body": body, "state": "COMMENTED"}
        made["user"] |= {"id": user, "type": "Bot" if self.app and user == ME else "User"}
        self.reviews.append(made)
        return made

    def take(self, path: str, content: Any) -> tuple[int, Any]:
        assert path == "/repos/acme/shop/pulls/77/reviews"
        SCHEMA.check_body(path, content)
        assert content["event"] == "COMMENT" and content["commit_id"] == self.pull["head"]["sha"]
        for comment in content["comments"]:
            first, last = comment.get("start_line", comment["line"]), comment["line"]
            assert "start_line" not in comment or first < last
            hunks = new_lines(self.patches.get(comment["path"]) or "")
            if comment["side"] != "RIGHT" or not any({first, last} <= hunk for hunk in hunks):
                return 422, {"message": "Unprocessable Entity", "errors": ["Line could not be resolved"]}
        made = self.review(content["body"])
        SCHEMA.check_answer(path, made, "post")
        return 200, made

    def check(self, path: str, query: dict[str, str], content: Any) -> None:
        SCHEMA.check_request(path, query)
        SCHEMA.check_answer(path, content)


USER = "private-user-response-with-public-and-private-profile-information"
_TEXT, _LINE, _SHA = (
    {"type": "string", "minLength": 1},
    {"type": "integer", "minimum": 1},
    {"pattern": "^[0-9a-f]{40}$"},
)
_POSITION = {
    "type": "object",
    "required": ["position_type", "base_sha", "start_sha", "head_sha", "old_path", "new_path", "new_line"],
    "additionalProperties": False,
    "properties": {
        "position_type": {"const": "text"}, "base_sha": _SHA, "start_sha": _SHA, "head_sha": _SHA,
        "old_path": _TEXT, "new_path": _TEXT, "new_line": _LINE, "old_line": _LINE,
    },
}  # fmt: skip
THREAD = Draft202012Validator(
    {
        "type": "object",
        "required": ["body", "position"],
        "additionalProperties": False,
        "properties": {"body": _TEXT, "position": _POSITION},
    }
)
NOTE = Draft202012Validator(
    {"type": "object", "required": ["body"], "additionalProperties": False, "properties": {"body": _TEXT}}
)


class GitLabPullWorld:
    """``acme/tools/shop`` with merge request 77."""

    per_page = 2

    def __init__(self, head: str, patches: dict[str, str]) -> None:
        self.refs = {"base_sha": "b" * 40, "start_sha": "c" * 40, "head_sha": head}
        self.merge_request: dict[str, Any] = {
            "iid": 77, "state": "opened", "sha": head, "target_branch": "main", "diff_refs": self.refs
        }  # fmt: skip
        self.patches = patches
        self.notes: list[dict[str, Any]] = []

    def answer(self, path: str, query: dict[str, str]) -> Any:
        kinds = {"new_file": False, "renamed_file": False, "deleted_file": False}
        return {
            "/user": {"id": ME},
            "/projects/acme/tools/shop/merge_requests/77": self.merge_request,
            "/projects/acme/tools/shop/merge_requests/77/diffs": [
                {"old_path": name, "new_path": name, "diff": patch, **kinds} for name, patch in self.patches.items()
            ],
            "/projects/acme/tools/shop/merge_requests/77/discussions": [
                {"id": str(note["id"]), "individual_note": True, "notes": [note]} for note in self.notes
            ],
        }.get(path)

    def take(self, path: str, content: Any) -> tuple[int, Any]:
        kind = path.removeprefix("/projects/acme/tools/shop/merge_requests/77/")
        {"discussions": THREAD, "notes": NOTE}[kind].validate(content)
        if kind == "discussions":
            position = content["position"]
            assert {name: position[name] for name in self.refs} == self.refs
            if not any(position["new_line"] in hunk for hunk in new_lines(self.patches.get(position["new_path"], ""))):
                return 400, {"message": '400 Bad request - Note {:line_code=>["can\'t be blank"]}'}
        return 201, self.note(content["body"])

    def note(self, body: str, author: int = ME) -> dict[str, Any]:
        made = {"id": len(self.notes) + 1, "body": body, "author": {"id": author}, "system": False}
        self.notes.append(made)
        return made

    def check(self, path: str, query: dict[str, str], content: Any) -> None:
        assert query.keys() <= {"page", "per_page"}
