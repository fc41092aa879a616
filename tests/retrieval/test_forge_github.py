"""GitHub's pull requests, from a server on loopback that holds every message against GitHub's own OpenAPI."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from inhouse_retrieval import Cancelled, Comment, Forge, InhouseError, PullRequestStore, SyncReport, sync_pull_requests
from inhouse_retrieval.progress import Progress, no_progress
from inhouse_retrieval.pull_requests.forge import MAX_RETRIES, Clock
from tests.retrieval.forges.github_world import GitHubWorld, day
from tests.retrieval.forges.openapi import EXTRACT, PACKAGE, VERSION, extract
from tests.retrieval.forges.server import TOKEN, ForgeServer, Reply
from tests.retrieval.trees import commit_all, git, write

NOW = 1_750_000_000.0
AWS_KEY = "AKIA" + "QWERTYUIOPASDFGH"


class FastClock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.time = NOW

    async def sleep(self, seconds: float) -> None:
        self.time += seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.time, self.sleep)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PullRequestStore]:
    with PullRequestStore.in_state(tmp_path) as store:
        yield store


@pytest.fixture
def server() -> Iterator[ForgeServer]:
    with ForgeServer(GitHubWorld(2)).running() as server:
        yield server


async def sync(
    server: ForgeServer, store: PullRequestStore, limit: int = 100, progress: Progress = no_progress
) -> SyncReport:
    forge = Forge("github", "acme/shop", server.url, TOKEN, "$INHOUSE_FORGE_TOKEN")
    return await sync_pull_requests(forge, store, limit, progress, FastClock().clock())


async def test_the_last_hundred_over_pages_and_then_only_what_changed(store: PullRequestStore) -> None:
    world = GitHubWorld(130, per_page=40)
    # Merged long ago, but talked about today: listed first, and yet not of the last hundred.
    world.pulls[3]["updated_at"] = day(500)
    world.pulls[128] |= {"merged_at": None}
    with ForgeServer(world).running() as server:
        report = await sync(server, store)
        assert (report.new, report.changed, report.unchanged, report.stored) == (100, 0, 0, 100)
        expected = [number for number in range(130, 0, -1) if number != 128][:100]
        assert [change.number for change in store.newest(1000)] == expected
        assert report.requests == len(server.requests) == 1 + 3 + 100 * 5
        assert all(request.headers["authorization"] == f"Bearer {TOKEN}" for request in server.requests)
        assert len(server.answered()) == len(set(server.answered()))

        again = await sync(server, store)
        assert (again.new, again.changed, again.unchanged) == (0, 0, 100)
        assert again.requests == again.not_modified == 4
        assert [request.status for request in server.requests[-4:]] == [304] * 4
        assert all("if-none-match" in request.headers for request in server.requests[-4:])

        world.say(60, "issue comments", body="Still true?", updated_at=day(400))
        world.pulls[60]["updated_at"] = day(400)
        later = await sync(server, store)
        assert (later.new, later.changed, later.unchanged) == (0, 1, 99)
        assert later.requests == 4 + 5
        assert [request.status for request in server.requests[-5:]] == [304, 304, 304, 304, 200]
        changed = store.get(60)
        assert changed is not None and [comment.text for comment in changed.comments] == ["Still true?"]


async def test_all_that_was_said_comes_clean_and_without_names(store: PullRequestStore, tmp_path: Path) -> None:
    world = GitHubWorld(1)
    world.pulls[1] |= {"body": f"Rotate\r\nthe key {AWS_KEY} 🔑\r\n", "title": f"Rotate {AWS_KEY}"}
    patch = f'@@ -1,2 +1,2 @@\n ctx\n-old\n+key = "{AWS_KEY}"'
    world.say(1, "files", filename="shop/key.py", status="modified", additions=1, deletions=1, patch=patch)
    world.say(1, "files", filename="logo.png", status="copied", additions=0, deletions=0)
    del world.parts[1, "files"][1]["patch"]
    world.say(1, "commits", sha="a" * 40)
    world.parts[1, "commits"][0]["commit"]["message"] = f"Use {AWS_KEY}\n\nCo-authored-by: Bob <bob@example.org>"
    world.say(
        1, "comments", path="shop/key.py", original_line=2, line=30, side="RIGHT", updated_at=day(5),
        diff_hunk=f'@@ -1,2 +1,2 @@\n ctx\n+key = "{AWS_KEY}"', body=f"Not {AWS_KEY}, please 🙏\r\nTwice.",
        author_association="COLLABORATOR", user={"id": 99},
    )  # fmt: skip
    world.say(1, "comments", path="shop/key.py", side="LEFT", original_line=2, body="Why?", user={"id": 7})
    world.say(1, "reviews", body="Good in all.", submitted_at=day(6), author_association="OWNER", user={"id": 98})
    world.say(1, "reviews", body="", submitted_at=day(6))
    world.say(1, "issue comments", body=f"token = '{AWS_KEY.lower()}9x'", updated_at=day(4), user={"id": 97})
    world.say(1, "issue comments", body="Coverage 81 %", updated_at=day(7), user={"id": 96, "type": "Bot"})
    world.say(1, "issue comments", body="half a \ud83d pair", updated_at=day(8))
    world.parts[1, "issue comments"][2]["user"] = None
    with ForgeServer(world).running() as server:
        await sync(server, store)
    change = store.get(1)
    assert change is not None
    assert change.description == "Rotate\nthe key [REDACTED AWS access key] 🔑\n"
    assert (change.author_role, change.commit, change.parent) == ("member", f"{1:040x}", "")
    assert change.merged_at == datetime(2000, 1, 2, 12, tzinfo=UTC)
    assert [(file.path, file.status, file.additions, file.deletions) for file in change.files] == [
        ("shop/key.py", "modified", 1, 1),
        ("logo.png", "added", 0, 0),
    ]
    assert change.files[0].patch.endswith('+key = "[REDACTED AWS access key]"') and change.files[1].patch == ""
    assert [(inner.id, inner.subject) for inner in change.commits] == [("a" * 40, "Use [REDACTED AWS access key]")]
    remark, question = change.review_comments
    assert (remark.path, remark.line, remark.side, remark.role) == ("shop/key.py", 2, "new", "collaborator")
    assert remark.text == "Not [REDACTED AWS access key], please 🙏\nTwice."
    assert remark.hunk.startswith("@@ -1,2 +1,2 @@\n ctx\n+key = ")
    assert (question.side, question.role) == ("old", "author")
    assert [(comment.role, comment.written_at.day) for comment in change.comments] == [
        ("collaborator", 5), ("owner", 7), ("bot", 8), ("collaborator", 9)
    ]  # fmt: skip
    assert change.comments[1] == Comment("owner", datetime(2000, 1, 7, 12, tzinfo=UTC), "Good in all.")
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (AWS_KEY, AWS_KEY.lower(), TOKEN, "octocat", "bob@example.org"):
        assert secret.encode() not in kept


@pytest.mark.parametrize(
    "at", [15, *(pytest.param(at, marks=pytest.mark.long) for at in (0, 1, 2, 3, 4, 8, 22, 31, 32))]
)
def test_a_killed_sync_goes_on_and_asks_nothing_again_that_was_answered(tmp_path: Path, at: int) -> None:
    root = tmp_path / "shop"
    root.mkdir()
    git(root, "init", "--quiet")
    write(root, {"a.py": "x = 1\n"})
    commit_all(root, "Begin")
    stuck, dead = threading.Event(), threading.Event()
    with ForgeServer(GitHubWorld(6, per_page=4)).running() as server:
        write(root, {"inhouse.toml": f'[forge]\nkind = "github"\nproject = "acme/shop"\nurl = "{server.url}"\n'})
        command = [sys.executable, "-m", "inhouse_server.cli", "sync", "--json", "--repo", str(root)]
        environment = {**os.environ, "INHOUSE_FORGE_TOKEN": TOKEN, "INHOUSE_LOG": "debug"}

        def before(number: int) -> None:
            if number == at:
                stuck.set()
                assert dead.wait(60)

        server.before = before
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
            assert stuck.wait(60)
            process.send_signal(signal.SIGKILL)
            assert process.wait(60) == -signal.SIGKILL
            told = process.stderr.read() if process.stderr else b""
        first = {request.path for request in server.requests[:at]}
        dead.set()

        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        second = [request.path for request in server.requests[at + 1 :]]
        assert first.isdisjoint(second) and len(second) == report["requests"] == 1 + 2 + 6 * 5 - at
        assert report["stored"] == 6
        logs = b"".join(path.read_bytes() for path in (root / ".inhouse" / "logs").iterdir())
        assert b"/repos/acme/shop/pulls" in logs
        assert TOKEN.encode() not in logs + told + done.stderr + done.stdout


def limited(status: int, body: str, **headers: str) -> Reply:
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body.encode())


@pytest.mark.parametrize(
    ("reply", "waited"),
    [
        (limited(403, '{"message": "You have exceeded a secondary rate limit."}', retry_after="37"), 37),
        (limited(403, '{"message": "You have exceeded a secondary rate limit."}'), 60),
        (limited(429, "{}", retry_after="5"), 5),
        (limited(403, "{}", x_ratelimit_remaining="0", x_ratelimit_reset=str(int(NOW) + 1800)), 1801),
        (limited(502, "<html>bad gateway</html>"), 1),
    ],
)
async def test_limits_are_obeyed_and_shown(
    server: ForgeServer, store: PullRequestStore, reply: Reply, waited: int
) -> None:
    server.instead = lambda number, path: reply if number == 2 else None
    told: list[tuple[str, int, int | None]] = []
    report = await sync(server, store, progress=lambda *at: told.append(at))
    assert report.waited == waited
    assert report.new == 2 and report.requests == 2 + 10 + 1
    waits = [at for at in told if at[0].startswith("waiting for the forge")]
    assert [done for _, done, _ in waits] == list(range(waited + 1)) and waits[0][2] == waited


async def test_nothing_is_asked_while_the_primary_limit_is_used_up(
    server: ForgeServer, store: PullRequestStore
) -> None:
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW) + 600)}

    def instead(number: int, path: str) -> Reply | None:
        if number != 3:
            return None
        own = server.reply(server.requests[3])
        return Reply(own.status, {**own.headers, **headers}, own.body)

    server.instead = instead
    report = await sync(server, store)
    assert report.waited == 601 and report.requests == 12


async def test_a_wait_can_be_cancelled(server: ForgeServer, store: PullRequestStore) -> None:
    server.instead = lambda number, path: limited(429, "{}", retry_after="3600")

    def progress(stage: str, done: int, total: int | None) -> None:
        if done == 3:
            raise Cancelled("Stop.")

    with pytest.raises(Cancelled):
        await sync(server, store, progress=progress)
    assert len(server.requests) == 1


@pytest.mark.parametrize("reply", [limited(403, "secondary rate limit"), limited(500, "")])
async def test_retries_end(server: ForgeServer, store: PullRequestStore, reply: Reply) -> None:
    server.instead = lambda number, path: reply
    with pytest.raises(InhouseError, match=rf"keeps answering with status {reply.status}.*goes on where it stopped"):
        await sync(server, store)
    assert len(server.requests) == MAX_RETRIES + 1


async def test_too_long_a_wait_is_not_waited_for(server: ForgeServer, store: PullRequestStore) -> None:
    for reply in (
        limited(429, "{}", retry_after="86400"),
        limited(403, "{}", x_ratelimit_remaining="0", x_ratelimit_reset="9" * 15),
    ):
        server.instead = lambda number, path, reply=reply: reply
        with pytest.raises(InhouseError, match=r"asks to wait for \d+ hours, which is too long"):
            await sync(server, store)


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (limited(401, '{"message": "Bad credentials"}'), r"does not accept the token of \$INHOUSE_FORGE_TOKEN"),
        (limited(404, '{"message": "Not Found"}'), r"no project acme/shop at 127\.0\.0\.1, or the token"),
        (limited(403, '{"message": "Resource not accessible by personal access token"}'), "forbids to read acme/shop"),
        (limited(418, ""), "status 418"),
        (limited(200, "<html>Sign in</html>"), "not what the GitHub API documents"),
        (limited(200, '{"a": 1}'), "not what the GitHub API documents"),
        (limited(200, "[[]]"), "not what the GitHub API documents"),
        (limited(200, '{"default_branch": null}'), "not what the GitHub API documents"),
    ],
)
async def test_a_refusal_is_told_plainly(server: ForgeServer, store: PullRequestStore, reply: Reply, told: str) -> None:
    server.instead = lambda number, path: reply
    with pytest.raises(InhouseError, match=told) as caught:
        await sync(server, store)
    assert caught.value.remedy and TOKEN not in str(caught.value)
    assert len(server.requests) == 1


async def test_a_forge_that_cannot_be_reached_is_told_plainly(store: PullRequestStore) -> None:
    with ForgeServer(GitHubWorld(1)).running() as server:
        pass
    with pytest.raises(InhouseError, match=r"cannot be reached \(ConnectError\)"):
        await sync(server, store)


async def test_neither_redirects_nor_links_take_the_token_elsewhere(store: PullRequestStore) -> None:
    with ForgeServer(GitHubWorld(3)).running() as elsewhere, ForgeServer(GitHubWorld(3)).running() as server:
        link = {"Link": f'<{elsewhere.url}/repos/acme/shop/pulls?page=2>; rel="next"'}

        def linked(number: int, path: str) -> Reply | None:
            own = server.reply(server.requests[-1])
            return Reply(own.status, {**own.headers, **link}, own.body) if number == 1 else None

        for instead in (
            lambda number, path: Reply(301, {"Location": f"{elsewhere.url}{path}"}),
            lambda number, path: Reply(302, {"Location": server.url.replace("http:", "https:") + path}),
            linked,
        ):
            server.requests.clear()
            server.instead = instead
            with pytest.raises(InhouseError, match=r"points to another address.*token must not go there"):
                await sync(server, store)
        assert elsewhere.requests == []


async def test_a_renamed_project_is_followed_at_the_same_address(server: ForgeServer, store: PullRequestStore) -> None:
    def instead(number: int, path: str) -> Reply | None:
        if path.startswith("/repos/acme/shop?old") or number % 2:
            return None
        return Reply(301, {"Location": path + ("&" if "?" in path else "?") + "page=1"})

    server.world.check = lambda path, query, content: None  # type: ignore[method-assign]
    server.instead = instead
    assert (await sync(server, store)).new == 2
    server.instead = lambda number, path: Reply(301, {"Location": path})
    with pytest.raises(InhouseError, match="redirects again and again"):
        await sync(server, store)


async def test_a_part_that_the_forge_does_not_give_is_told(server: ForgeServer, store: PullRequestStore) -> None:
    too_large = limited(422, '{"message": "Sorry, this diff is taking too long to generate."}')
    server.instead = lambda number, path: too_large if path.startswith("/repos/acme/shop/pulls/2/files") else None
    report = await sync(server, store)
    assert report.missing == {2: ["files"]} and report.stored == 2


async def test_a_pull_request_that_vanished_does_not_stand_in_the_way_forever(
    server: ForgeServer, store: PullRequestStore
) -> None:
    assert isinstance(server.world, GitHubWorld)
    server.instead = lambda number, path: limited(404, "{}") if "/pulls/1/" in path else None
    with pytest.raises(InhouseError, match="no project"):
        await sync(server, store)
    del server.world.pulls[1]
    assert (await sync(server, store)).stored == 1


async def test_a_full_page_of_comments_that_gets_a_second(store: PullRequestStore) -> None:
    world = GitHubWorld(1)
    for _ in range(100):
        world.say(1, "issue comments", body="+1")
    with ForgeServer(world).running() as server:
        await sync(server, store)
        world.say(1, "issue comments", body="the last word")
        world.pulls[1]["updated_at"] = day(400)
        await sync(server, store)
    change = store.get(1)
    assert change is not None and len(change.comments) == 101 and change.comments[-1].text == "the last word"


def test_an_old_listing_is_not_gone_on_with(store: PullRequestStore) -> None:
    begun = store.begin_sync(NOW, 3600)
    assert store.begin_sync(NOW + 3599, 3600) == begun
    anew = store.begin_sync(NOW + 3601, 3600)
    assert anew != begun
    store.end_sync()
    assert store.begin_sync(NOW + 3601, 3600) != anew


async def test_a_mistyped_project_costs_nothing(server: ForgeServer, store: PullRequestStore) -> None:
    await sync(server, store)
    count = len(store)
    with pytest.raises(InhouseError, match=r"are those of github .*, and not of github elsewhere"):
        store.belong_to("github elsewhere acme/shop")
    assert len(store) == count > 0


def test_a_damaged_store_is_told_plainly(tmp_path: Path) -> None:
    assert PullRequestStore.if_there(tmp_path) is None
    (tmp_path / "pull_requests.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(InhouseError, match=r"is damaged.*inhouse sync"):
        PullRequestStore.if_there(tmp_path)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"token": "two\nlines"}, r"\$T does not hold a token"),
        ({"token": "naïve"}, r"\$T does not hold a token"),
        ({"url": "http://git.example.org/api/v3", "token": "t"}, "would go to git.example.org unencrypted"),
        ({"url": "https://ada:pw@git.example.org"}, "is not one"),
        ({"url": "ftp://git.example.org"}, "is not one"),
        ({"url": "https://git.example.org/api\0"}, "is not one"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_sent(values: dict[str, str], told: str) -> None:
    with pytest.raises(InhouseError, match=told) as caught:
        Forge("github", "acme/shop", **values, token_source="$T")  # type: ignore[arg-type]
    assert "two\nlines" not in str(caught.value)
    assert "secret-token" not in repr(Forge("github", "acme/shop", token="secret-token"))


@pytest.mark.parametrize("project", ["shop", "acme/shop/x", "acme/..", "../shop", "acme/shop?x=1", ""])
async def test_a_project_that_is_none_is_refused(store: PullRequestStore, project: str) -> None:
    with pytest.raises(InhouseError, match="is not a project on GitHub"):
        await sync_pull_requests(Forge("github", project, "http://127.0.0.1:9"), store)


@pytest.mark.editors
def test_the_extract_is_what_github_publishes(tmp_path: Path) -> None:
    assert shutil.which("npm"), "npm is needed for this test: install it, or run `make test` alone"
    subprocess.run(["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent"], cwd=tmp_path, check=True, timeout=300)
    [archive] = tmp_path.glob("*.tgz")
    subprocess.run(["tar", "xzf", archive.name], cwd=tmp_path, check=True)
    package = tmp_path / "package"
    published = json.loads((package / "generated" / "api.github.com.json").read_text(encoding="utf-8"))
    licence = (package / "LICENSE").read_text(encoding="utf-8")
    assert json.loads(EXTRACT.read_text(encoding="utf-8")) == extract(published, licence)
