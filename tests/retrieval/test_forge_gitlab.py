"""GitLab's merge requests, from a server on loopback.

GitLab publishes no OpenAPI description of these routes in an npm or PyPI package, so each answer here is held against
the fields and parameters of its documentation, written down below: https://docs.gitlab.com/api/merge_requests/,
https://docs.gitlab.com/api/discussions/, https://docs.gitlab.com/api/projects/.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from inhouse_retrieval import Comment, Forge, PullRequestStore, ReviewComment, SyncReport, sync_pull_requests
from inhouse_retrieval.pull_requests.forge import Clock
from tests.retrieval.forges.server import TOKEN, ForgeServer, Reply

NOW = 1_750_000_000.0
SECRET = "glpat-" + "Zx81kQpL2mVn7TrYb4Wd"
HEAD = "e" * 40
PATCH = "@@ -1,3 +1,4 @@\n ctx\n-old\n+new\n+more\n end\n@@ -20 +21 @@\n-a\n+b\n"


def documented(**fields: str) -> Draft202012Validator:
    """An object with these fields and types (``?`` allows null); GitLab adds fields, never takes one away."""
    properties = {name: {"type": [kind.rstrip("?"), "null"][: 1 + kind.endswith("?")]} for name, kind in fields.items()}
    return Draft202012Validator({"type": "object", "required": list(fields), "properties": properties})


PROJECT = documented(id="integer", default_branch="string", path_with_namespace="string")
MERGE_REQUEST = documented(
    iid="integer", title="string", description="string?", state="string", created_at="string", updated_at="string",
    merged_at="string?", target_branch="string", author="object", sha="string?", merge_commit_sha="string?",
    squash_commit_sha="string?", web_url="string",
)  # fmt: skip
DIFF = documented(
    old_path="string", new_path="string", diff="string", new_file="boolean", renamed_file="boolean",
    deleted_file="boolean",
)  # fmt: skip
COMMIT = documented(id="string", title="string", message="string")
DISCUSSION = documented(id="string", individual_note="boolean", notes="array")
NOTE = documented(
    id="integer", body="string", author="object", created_at="string", updated_at="string", system="boolean"
)
POSITION = documented(
    base_sha="string", start_sha="string", head_sha="string", old_path="string", new_path="string",
    position_type="string", old_line="integer?", new_line="integer?",
)  # fmt: skip
PARAMETERS = {"state", "target_branch", "order_by", "sort", "page", "per_page"}


def note(body: str, author: int = 3, **values: Any) -> dict[str, Any]:
    moment = {"created_at": "2025-03-02T10:00:00.000Z", "updated_at": "2025-03-02T10:00:00.000Z"}
    person = {"id": author, "username": "ada", "name": "Ada", "state": "active"}
    return {"id": 1, "type": None, "body": body, "author": person, "system": False, **moment, **values}


def on(new_line: int | None, old_line: int | None, head: str = HEAD, path: str = "shop/a.py") -> dict[str, Any]:
    shas = {"base_sha": "b" * 40, "start_sha": "b" * 40, "head_sha": head}
    lines = {"position_type": "text", "new_line": new_line, "old_line": old_line}
    return {**shas, "old_path": path, "new_path": path, **lines}


class GitLabWorld:
    """``acme/tools/shop`` with one merge request for each way to land one."""

    per_page = 2

    def __init__(self) -> None:
        self.merge_requests = [
            self._merge_request(3, merge_commit_sha="3" * 40),
            self._merge_request(2, squash_commit_sha="2" * 40),
            self._merge_request(1, description=None),
        ]
        self.discussions: list[Any] = []

    def _merge_request(self, iid: int, **values: Any) -> dict[str, Any]:
        moment = f"2025-03-0{iid}T12:00:00.000Z"
        return {
            "iid": iid,
            "title": f"Offer vouchers {iid}",
            "description": "Customers\r\nasked.",
            "state": "merged",
            "created_at": "2025-03-01T09:00:00.000Z",
            "updated_at": moment,
            "merged_at": moment,
            "target_branch": "main",
            "author": {"id": 7, "username": "bob", "name": "Bob"},
            "sha": HEAD,
            "merge_commit_sha": None,
            "squash_commit_sha": None,
            "web_url": f"https://gitlab.example.org/acme/tools/shop/-/merge_requests/{iid}",
            **values,
        }

    def answer(self, path: str, query: dict[str, str]) -> Any:
        if path == "/projects/acme/tools/shop":
            return {"id": 5, "default_branch": "main", "path_with_namespace": "acme/tools/shop"}
        if path == "/projects/acme/tools/shop/merge_requests":
            assert (query["state"], query["target_branch"]) == ("merged", "main")
            assert (query["order_by"], query["sort"]) == ("updated_at", "desc")
            return self.merge_requests
        found = re.fullmatch(r"/projects/acme/tools/shop/merge_requests/3/(diffs|commits|discussions)", path)
        if found is None:
            return [] if re.search(r"/merge_requests/[12]/", path) else None
        kinds = {"new_file": False, "renamed_file": False, "deleted_file": False}
        return {
            "diffs": [
                {"old_path": "shop/a.py", "new_path": "shop/a.py", "diff": PATCH, **kinds},
                {"old_path": "b.py", "new_path": "b.py", "diff": "", **kinds, "deleted_file": True},
                {"old_path": "c.py", "new_path": "d.py", "diff": "", **kinds, "renamed_file": True},
            ],
            "commits": [
                {"id": "c2" * 20, "title": "More", "message": "More\n"},
                {"id": "c1" * 20, "title": "Offer vouchers", "message": "Offer vouchers\n"},
            ],
            "discussions": self.discussions,
        }[found[1]]

    def check(self, path: str, query: dict[str, str], content: Any) -> None:
        assert query.keys() <= PARAMETERS
        if path.endswith("%2Fshop"):
            PROJECT.validate(content)
            return
        kind = {"merge_requests": MERGE_REQUEST, "diffs": DIFF, "commits": COMMIT, "discussions": DISCUSSION}
        for item in content:
            kind[path.rpartition("/")[2]].validate(item)
            for said in item.get("notes", ()):
                NOTE.validate(said)
                if "position" in said:
                    POSITION.validate(said["position"])


async def sync(server: ForgeServer, store: PullRequestStore) -> SyncReport:
    async def no_sleep(seconds: float) -> None:
        pass

    forge = Forge("gitlab", "acme/tools/shop", server.url, TOKEN)
    return await sync_pull_requests(forge, store, clock=Clock(lambda: NOW, no_sleep))


def discussion(*notes: dict[str, Any]) -> dict[str, Any]:
    return {"id": "d", "individual_note": len(notes) == 1, "notes": list(notes)}


async def test_merge_requests_with_all_that_was_said(tmp_path: Path) -> None:
    world = GitLabWorld()
    world.discussions = [
        discussion(note(f"Is {SECRET} ours?\r\n🤔")),
        discussion(note("changed the description", system=True), note("Only for us", internal=True)),
        discussion(
            note("Why this?", type="DiffNote", position=on(3, None)),
            note("Because.", author=7, type="DiffNote", position=on(3, None)),
        ),
        discussion(note("Keep it", type="DiffNote", position=on(None, 20))),
        discussion(note("Outdated", type="DiffNote", position=on(2, None, head="0" * 40))),
        discussion(note("Far off", type="DiffNote", position=on(9, 9))),
    ]
    with PullRequestStore.in_state(tmp_path) as store, ForgeServer(world, "/api/v4").running() as server:
        report = await sync(server, store)
        assert (report.new, report.stored, report.missing) == (3, 3, {})
        assert all(request.headers["authorization"] == f"Bearer {TOKEN}" for request in server.requests)
        third, second, first = store.newest(10)
        again = await sync(server, store)
        assert again.unchanged == 3 and again.requests == again.not_modified == 3
    assert (third.number, second.number, first.number) == (3, 2, 1)
    assert (third.commit, second.commit, first.commit) == ("3" * 40, "2" * 40, HEAD)
    assert (third.description, first.description) == ("Customers\nasked.", "")
    assert [(file.path, file.status, file.additions, file.deletions) for file in third.files] == [
        ("shop/a.py", "modified", 3, 2),
        ("b.py", "removed", 0, 0),
        ("d.py", "renamed", 0, 0),
    ]
    assert [inner.subject for inner in third.commits] == ["Offer vouchers", "More"]
    when = datetime(2025, 3, 2, 10, tzinfo=UTC)
    assert third.comments == (Comment("", when, "Is [REDACTED GitLab token] ours?\n🤔"),)
    why, because, keep, outdated, far = third.review_comments
    hunk = "@@ -1,3 +1,4 @@\n ctx\n-old\n+new\n+more"
    assert why == ReviewComment("shop/a.py", 3, "new", hunk, "", when, "Why this?")
    assert (because.role, because.text) == ("author", "Because.")
    assert (keep.side, keep.line, keep.hunk) == ("old", 20, "@@ -20 +21 @@\n-a")
    assert outdated.hunk == "" and far.hunk == ""
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (SECRET, TOKEN, "Ada", "Only for us"):
        assert secret.encode() not in kept


async def test_its_limit_is_obeyed(tmp_path: Path) -> None:
    spent = {"RateLimit-Remaining": "0", "RateLimit-Reset": str(int(NOW) - 5)}
    with PullRequestStore.in_state(tmp_path) as store, ForgeServer(GitLabWorld(), "/api/v4").running() as server:
        server.instead = lambda number, path: Reply(429, {**spent, "Retry-After": "41"}) if number == 1 else None
        assert (await sync(server, store)).waited == 41
