"""Webhooks: what is proven, what is queued, what survives, and that a pull request gets one review for each head."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from starlette.testclient import TestClient

from inhouse_retrieval import Clock, Forge, InhouseError
from inhouse_retrieval.pull_requests.forge import Kind
from inhouse_server.webhook.events import Ignored, Wanted, read_event
from inhouse_server.webhook.queue import MOST_TRIES, Queue
from inhouse_server.webhook.receiver import MAX_BYTES, make_receiver
from inhouse_server.webhook.signature import Signature
from inhouse_server.webhook.worker import Worker
from tests.retrieval.forges.server import TOKEN, ForgeServer, Reply
from tests.server.conftest import git
from tests.server.forge_pulls import GitHubPullWorld, GitLabPullWorld
from tests.server.hook_payloads import (
    HEAD,
    LATER,
    SECRET,
    github_comment,
    github_delivery,
    github_pull,
    gitlab_delivery,
    gitlab_merge,
    gitlab_note,
)
from tests.server.test_review import CLIENT, commit

PROJECT: dict[Kind, str] = {"github": "acme/shop", "gitlab": "acme/tools/shop"}


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    queue = Queue(tmp_path, 4)
    yield queue
    queue.close()


def receiver(queue: Queue, kind: Kind = "github") -> TestClient:
    return TestClient(make_receiver(kind, PROJECT[kind], Signature(kind, SECRET, "$SECRET"), queue))


def send(client: TestClient, delivery: tuple[bytes, dict[str, str]]) -> tuple[int, str]:
    answer = client.post("/webhook", content=delivery[0], headers=delivery[1])
    return answer.status_code, answer.json()["inhouse"]


# -- who may send --------------------------------------------------------------------------------------------


def test_only_a_proven_delivery_is_read(queue: Queue) -> None:
    client = receiver(queue)
    body, headers = github_delivery(github_pull())
    unproven: list[tuple[bytes, dict[str, str]]] = [
        (body, {**headers, "X-Hub-Signature-256": "sha256=" + "0" * 64}),
        (body, {**headers, "X-Hub-Signature-256": headers["X-Hub-Signature-256"].upper()}),
        (body, {name: value for name, value in headers.items() if name != "X-Hub-Signature-256"}),
        (body + b" ", headers),  # the same JSON, and not the same body
        (body, {**headers, "X-Gitlab-Token": SECRET, "X-Hub-Signature-256": ""}),
        (b"{broken", {**headers, "X-Hub-Signature-256": "sha256="}),
        github_delivery(github_pull(), secret="another-secret-altogether"),
    ]
    for delivery in unproven:
        assert send(client, delivery)[0] == 401
    assert queue.waiting() == []
    assert send(client, (body, headers)) == (202, "queued")
    assert queue.waiting() == [Wanted(77, HEAD, "review")]


def test_gitlab_sends_its_secret_token(queue: Queue) -> None:
    client = receiver(queue, "gitlab")
    assert send(client, gitlab_delivery(gitlab_merge(), secret="no" * 16))[0] == 401
    assert send(client, gitlab_delivery(gitlab_merge(), secret=""))[0] == 401
    assert send(client, gitlab_delivery(gitlab_merge())) == (202, "queued")


def test_everything_else_is_refused(queue: Queue) -> None:
    client = receiver(queue)
    body, headers = github_delivery(github_pull())
    assert client.get("/webhook").status_code == 405
    assert client.post("/", content=body, headers=headers).status_code == 404
    assert send(client, (b"x" * (MAX_BYTES + 1), headers))[0] == 413

    def pieces() -> Iterator[bytes]:  # no length is announced
        for _ in range(MAX_BYTES // 100_000 + 1):
            yield b"x" * 100_000

    assert client.post("/webhook", content=pieces(), headers=headers).status_code == 413
    nameless = {name: value for name, value in headers.items() if name != "X-GitHub-Delivery"}
    assert send(client, (body, nameless)) == (400, "the delivery has no id")
    for payload in ([], {}, {"repository": 3}, github_pull(head="main"), github_pull(number=-1), {"action": "x" * 9}):
        assert send(client, github_delivery(payload))[0] == 400
    deep = b"[" * 100_000
    _, deep_headers = github_delivery([])
    deep_headers["X-Hub-Signature-256"] = "sha256=" + hmac.new(SECRET.encode(), deep, hashlib.sha256).hexdigest()
    assert send(client, (deep, deep_headers))[0] == 400
    assert queue.waiting() == []


def test_a_short_secret_is_none() -> None:
    for secret in ("", "x" * 15):
        with pytest.raises(InhouseError, match="no secret of at least 16 characters"):
            Signature("github", secret, "$INHOUSE_WEBHOOK_SECRET")


# -- replays and room ----------------------------------------------------------------------------------------


def test_a_delivery_is_taken_once_under_its_name_and_under_its_body(queue: Queue) -> None:
    client = receiver(queue)
    first = github_delivery(github_comment("/inhouse review"), "issue_comment", name="one")
    assert send(client, first) == (202, "queued")
    assert send(client, first) == (200, "this delivery came before")
    renamed = (first[0], {**first[1], "X-GitHub-Delivery": "two"})
    assert send(client, renamed) == (200, "this delivery came before"), "the name is not signed"
    other = github_delivery(github_pull(), name="one")
    assert send(client, other) == (200, "this delivery came before")
    assert len(queue.waiting()) == 1


def test_one_review_waits_for_each_pull_request_and_a_done_head_is_done(queue: Queue) -> None:
    client = receiver(queue)
    assert send(client, github_delivery(github_pull())) == (202, "queued")
    assert send(client, github_delivery(github_pull("reopened"))) == (202, "this commit waits already")
    assert send(client, github_delivery(github_pull("synchronize", LATER))) == (202, "queued")
    assert queue.waiting() == [Wanted(77, LATER, "review")], "the push made the earlier review useless"
    job = queue.next()
    assert job is not None
    queue.finish(job, LATER, "posted", reviewed=True)
    assert send(client, github_delivery(github_pull("ready_for_review", LATER))) == (202, "reviewed before")
    assert queue.waiting() == []


def test_the_queue_is_bounded_and_a_refused_delivery_may_come_again(queue: Queue) -> None:
    client = receiver(queue)
    for number in (1, 2):
        command = github_comment("/inhouse review")
        command["issue"]["number"] = number
        assert send(client, github_delivery(command, "issue_comment"))[0] == 202
    command["issue"]["number"] = 3
    assert send(client, github_delivery(command, "issue_comment"))[0] == 503, "comments have half of the room"
    for number in (4, 5):
        assert send(client, github_delivery(github_pull(number=number)))[0] == 202
    last = github_delivery(github_pull(number=6))
    answer = client.post("/webhook", content=last[0], headers=last[1])
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "600")
    job = queue.next()
    assert job is not None
    queue.finish(job, "", "gone", reviewed=False)
    assert send(client, last) == (202, "queued")


def test_a_job_that_fails_waits_longer_each_time_and_is_given_up(queue: Queue) -> None:
    queue.accept(["a"], Wanted(1, HEAD, "review"))
    now = 0.0
    for _ in range(MOST_TRIES - 1):
        job = queue.next(now)
        assert job is not None and queue.retry(job, "the forge is down", now)
        assert queue.next(now + 59) is None
        now += 3600.0
    job = queue.next(now)
    assert job is not None and not queue.retry(job, "the forge is down", now)
    assert queue.waiting() == [] and queue.outcomes() == [(1, "given up: the forge is down")]


def test_a_damaged_queue_is_told(tmp_path: Path) -> None:
    (tmp_path / "webhook.sqlite").write_bytes(b"no database" * 200)
    with pytest.raises(InhouseError, match="is damaged"):
        Queue(tmp_path, 4)


# -- what is asked for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "payload", "wanted"),
    [
        ("pull_request", github_pull("closed"), "nothing to review"),
        ("pull_request", github_pull("labeled"), "nothing to review"),
        ("pull_request", github_pull("edited"), "nothing to review"),
        ("pull_request", github_pull(draft=True), "a draft"),
        ("pull_request", github_pull(state="closed"), "not open"),
        ("pull_request", {**github_pull(), "repository": {"full_name": "evil/shop"}}, "another project"),
        ("pull_request", github_pull("ready_for_review"), Wanted(77, HEAD, "review")),
        ("push", {}, "not an event"),
        ("", {}, "not an event"),
        ("issue_comment", github_comment("/inhouse review"), Wanted(77, "", "review")),
        ("issue_comment", github_comment("/inhouse pause\r\n", "OWNER"), Wanted(77, "", "pause")),
        ("issue_comment", github_comment("/inhouse review", "CONTRIBUTOR"), "no member"),
        ("issue_comment", github_comment("/inhouse review", "NONE"), "no member"),
        ("issue_comment", github_comment("/inhouse review", kind="Bot"), "no member"),
        ("issue_comment", github_comment("/inhouse review", sender=6), "no member"),
        ("issue_comment", {**github_comment("/inhouse review"), "action": "edited"}, "no new comment"),
        ("issue_comment", {**github_comment("/inhouse review"), "issue": {"number": 7}}, "no new comment"),
    ],
)
def test_github_events(event: str, payload: Any, wanted: Wanted | str) -> None:
    _is(read_event("github", "Acme/Shop", event, payload), wanted)


@pytest.mark.parametrize(
    ("event", "payload", "wanted"),
    [
        ("Merge Request Hook", gitlab_merge(), Wanted(77, HEAD, "review")),
        ("Merge Request Hook", gitlab_merge("update", LATER, oldrev=HEAD), Wanted(77, LATER, "review")),
        ("Merge Request Hook", gitlab_merge("update"), "nothing to review"),
        (
            "Merge Request Hook",
            {**gitlab_merge("update"), "changes": {"draft": {"previous": True, "current": False}}},
            Wanted(77, HEAD, "review"),
        ),
        ("Merge Request Hook", gitlab_merge(draft=True), "a draft"),
        ("Merge Request Hook", gitlab_merge("merge", state="merged"), "nothing to review"),
        ("Note Hook", gitlab_note("/inhouse review"), Wanted(77, "", "review", 5)),
        ("Note Hook", gitlab_note("/inhouse review", action="update"), "no new comment"),
        ("Note Hook", gitlab_note("/inhouse review", noteable_type="Issue"), "no new comment"),
        ("Note Hook", gitlab_note("/inhouse review", author=6), "somebody else"),
        ("Push Hook", {}, "not an event"),
    ],
)
def test_gitlab_events(event: str, payload: Any, wanted: Wanted | str) -> None:
    _is(read_event("gitlab", "acme/tools/shop", event, payload), wanted)


def _is(found: Wanted | Ignored, wanted: Wanted | str) -> None:
    if isinstance(wanted, str):
        assert isinstance(found, Ignored) and wanted in found.reason
    else:
        assert found == wanted


@pytest.mark.parametrize(
    "body",
    [
        "/inhouse", "/inhouse  review", "/INHOUSE review", "/inhouse review now", "please /inhouse review",
        "/inhouse approve", "/inhouse merge", "/inhouse review\n/inhouse merge", "> /inhouse review",
        "`/inhouse review`", "/inhouse\u00a0review", "/inhouse review\u200b", "\u202e/inhouse review",
        "<!-- -->/inhouse review", "/inhouse review; rm -rf /", "/inhouse review $(id)", "/inhouse\nreview",
        "/inhouse review --repo /", "", None, 3, ["/inhouse review"], "//inhouse review",
    ],
)  # fmt: skip
def test_a_command_is_one_letter_by_letter(body: Any) -> None:
    found = read_event("github", "acme/shop", "issue_comment", github_comment(cast("str", body)))
    assert found == Ignored("no command")


# -- the worker ----------------------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path: Path) -> tuple[Path, str]:
    """A clone whose origin has pull request 77, which is not fetched yet; and that pull request's head."""
    origin, work = tmp_path / "origin", tmp_path / "work"
    origin.mkdir()
    git(origin, "init", "--quiet", "--initial-branch=main")
    clients = {f"clients__thing{number}_py": CLIENT.format(name=number) for number in range(8)}
    commit(origin, "Begin", house__http_py="def get_json(kind, identifier):\n    return {}\n", **clients)
    git(tmp_path, "clone", "--quiet", str(origin), str(work))
    git(origin, "checkout", "--quiet", "-b", "change")
    more = CLIENT.format(name="more").replace("house.http", "house.web")
    head = commit(origin, "Offer more", clients__more_py=more, house__web_py="from house.http import get_json\n")
    git(origin, "update-ref", "refs/pull/77/head", head)
    git(origin, "update-ref", "refs/merge-requests/77/head", head)
    git(origin, "checkout", "--quiet", "main")
    return work, head


def forge_of(head: str, kind: Kind = "github") -> ForgeServer:
    lines = CLIENT.format(name="more").replace("house.http", "house.web").splitlines()
    patches = {"clients/more.py": "\n".join(("@@ -0,0 +1,5 @@", *(f"+{line}" for line in lines)))}
    world = GitHubPullWorld(head, dict(patches)) if kind == "github" else GitLabPullWorld(head, patches)
    return ForgeServer(world)


def settings_for(root: Path, server: ForgeServer, kind: Kind = "github") -> Forge:
    (root / "inhouse.toml").write_text(
        f'[forge]\nkind = "{kind}"\nproject = "{PROJECT[kind]}"\nurl = "{server.url}"\n[webhook]\nport = 0\n'
    )
    return Forge(kind, PROJECT[kind], server.url, TOKEN, "$INHOUSE_FORGE_TOKEN")


def worker(root: Path, forge: Forge, queue: Queue) -> Worker:
    async def no_sleep(seconds: float) -> None:
        pass

    return Worker(root, forge, queue, "INHOUSE_FORGE_TOKEN", Clock(lambda: 1_750_000_000.0, no_sleep))


def test_a_pull_request_is_fetched_reviewed_and_posted_once(clone: tuple[Path, str], queue: Queue) -> None:
    root, head = clone
    with forge_of(head).running() as server:
        reviewing = worker(root, settings_for(root, server), queue)
        queue.accept(["a"], Wanted(77, head, "review"))
        assert reviewing.work() and not reviewing.work()
        assert len(server.posted()) == 1 and server.posted()[0]["commit_id"] == head
        assert "Posted to #77: 1 remark" in queue.outcomes()[0][1]
        assert queue.accept(["b"], Wanted(77, head, "review")) == "done"


def test_a_pull_request_to_another_branch_is_compared_with_that_one(clone: tuple[Path, str], queue: Queue) -> None:
    root, head = clone
    origin = root.parent / "origin"
    git(origin, "checkout", "--quiet", "-b", "release")
    commit(origin, "Of the release alone", release_py="a = 1\n")
    git(origin, "checkout", "--quiet", "-b", "backport")
    more = CLIENT.format(name="more").replace("house.http", "house.web")
    head = commit(origin, "Offer more", clients__more_py=more)
    git(origin, "update-ref", "refs/pull/77/head", head)
    with forge_of(head).running() as server:
        assert isinstance(server.world, GitHubPullWorld)
        server.world.pull["base"]["ref"] = "release"
        queue.accept(["a"], Wanted(77, head, "review"))
        assert worker(root, settings_for(root, server), queue).work()
        [posted] = server.posted()
        assert "1 file, 1 hunk" in posted["body"] and "release.py" not in json.dumps(posted)


@pytest.mark.long
def test_a_worker_killed_after_posting_posts_no_second_time(clone: tuple[Path, str], tmp_path: Path) -> None:
    """The job is still in the queue, as after a kill between posting and noting it."""
    root, head = clone
    with forge_of(head).running() as server:
        forge = settings_for(root, server)
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            queue = Queue(tmp_path / name, 4)
            queue.accept(["a"], Wanted(77, head, "review"))
            assert worker(root, forge, queue).work()
        assert "was reviewed there already" in queue.outcomes()[0][1]
        assert len(server.posted()) == 1


@pytest.mark.long
def test_a_force_push_in_the_middle_is_reviewed_at_its_new_head(clone: tuple[Path, str], queue: Queue) -> None:
    root, head = clone
    with forge_of(head).running() as server:
        reviewing = worker(root, settings_for(root, server), queue)
        world = server.world
        assert isinstance(world, GitHubPullWorld)
        world.pull["head"]["sha"] = LATER  # the forge knows of it, and git does not yet
        queue.accept(["a"], Wanted(77, head, "review"))
        assert reviewing.work() and server.posted() == [] and len(queue.waiting()) == 1
        origin = root.parent / "origin"
        git(origin, "checkout", "--quiet", "change")
        git(origin, "commit", "--quiet", "--amend", "--message", "Offer more, again")
        later = git(origin, "rev-parse", "HEAD").strip()
        git(origin, "update-ref", "refs/pull/77/head", later)
        world.pull["head"]["sha"] = later
        queue.accept(["b"], Wanted(77, later, "review"))
        assert reviewing.work() and queue.waiting() == [], "the push took the place of what waited"
        assert [sent["commit_id"] for sent in server.posted()] == [later]


def test_what_is_closed_gone_or_paused_is_not_reviewed_and_a_forge_that_is_down_is_asked_again(
    clone: tuple[Path, str], queue: Queue
) -> None:
    root, head = clone
    with forge_of(head).running() as server:
        reviewing = worker(root, settings_for(root, server), queue)
        world = server.world
        assert isinstance(world, GitHubPullWorld)
        world.pull["state"] = "closed"
        queue.accept(["a"], Wanted(77, head, "review"))
        assert reviewing.work() and queue.outcomes(1) == [(77, "closed")]
        world.pull["state"] = "open"
        queue.accept(["b"], Wanted(78, head, "review"))
        assert reviewing.work() and queue.outcomes(1) == [(78, "gone, or not to be seen")]
        queue.accept(["c"], Wanted(77, "", "pause"))
        queue.accept(["d"], Wanted(77, head, "review"))
        assert reviewing.work() and reviewing.work() and queue.outcomes(1) == [(77, "paused by a member")]
        queue.accept(["e"], Wanted(77, "", "resume"))
        assert reviewing.work() and not queue.is_paused(77)
        for status in (500, 401):
            server.instead = lambda number, path, status=status: Reply(status)  # type: ignore[misc]
            queue.accept([f"f{status}"], Wanted(status, HEAD, "review"))
            assert reviewing.work() and Wanted(status, HEAD, "review") in queue.waiting()
        server.instead = lambda number, path: None
        git(root, "remote", "set-url", "origin", str(root / "nowhere"))
        queue.accept(["g"], Wanted(77, head, "review"))
        assert reviewing.work() and len(queue.waiting()) == 3, "it could not be fetched"
        assert server.posted() == []


@pytest.mark.parametrize(
    ("member", "outcome"),
    [
        ({"state": "active", "access_level": 40}, "paused"),
        ({"state": "active", "access_level": 20}, "a command of somebody who is no member"),
        ({"state": "blocked", "access_level": 50}, "a command of somebody who is no member"),
        (None, "a command of somebody who is no member"),
    ],
)
def test_gitlab_is_asked_who_is_a_member(
    clone: tuple[Path, str], queue: Queue, member: dict[str, Any] | None, outcome: str
) -> None:
    root, head = clone
    with forge_of(head, "gitlab").running() as server:

        def instead(number: int, path: str) -> Reply | None:
            if not path.endswith("/members/all/5"):
                return None
            return Reply(404) if member is None else Reply(200, body=json.dumps(member).encode())

        server.instead = instead
        queue.accept(["a"], Wanted(77, "", "pause", 5))
        assert worker(root, settings_for(root, server, "gitlab"), queue).work()
        assert queue.outcomes(1) == [(77, outcome)]
        assert queue.is_paused(77) == (outcome == "paused")


# -- the command ---------------------------------------------------------------------------------------------


def start(root: Path, *options: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """`inhouse webhook serve`, and where it receives."""
    process = subprocess.Popen(
        [sys.executable, "-m", "inhouse_server.cli", "webhook", "serve", "--repo", str(root), *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "INHOUSE_WEBHOOK_SECRET": SECRET, **environment},
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"http://\S+", line)
    assert found, line + process.stderr.read()
    return process, found[0]


def until(happened: Callable[[], bool]) -> None:
    """Look until it has; pytest's own time limit ends a wait in vain."""
    while not happened():
        time.sleep(0.05)


def test_what_was_accepted_survives_a_kill(clone: tuple[Path, str]) -> None:
    root, head = clone
    settings_for(root, ForgeServer(GitHubPullWorld(head, {})))
    process, url = start(root, "--no-worker")
    try:
        delivery = github_delivery(github_pull(head=head))
        assert httpx.post(url, content=delivery[0], headers=delivery[1]).status_code == 202
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    queue = Queue(root / ".inhouse", 4)
    assert queue.waiting() == [Wanted(77, head, "review")]
    assert send(receiver(queue), delivery) == (200, "this delivery came before")


@pytest.mark.long
def test_a_pushed_pull_request_gets_its_review_from_the_worker_alone(clone: tuple[Path, str]) -> None:
    """All of it: the forge tells, the worker fetches, reviews and posts; the receiver's children have the token, not
    its secret, and end with it."""
    root, head = clone
    with forge_of(head).running() as server:
        settings_for(root, server)
        process, url = start(root, INHOUSE_FORGE_TOKEN=TOKEN)
        try:
            [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            delivery = github_delivery(github_pull(head=head))
            assert httpx.post(url, content=delivery[0], headers=delivery[1]).status_code == 202
            queue = Queue(root / ".inhouse", 4)
            until(lambda: bool(queue.outcomes()) or process.poll() is not None)
            environment = Path(f"/proc/{child}/environ").read_text()
            assert TOKEN in environment and SECRET not in environment
            assert "Posted to #77" in queue.outcomes()[0][1] and len(server.posted()) == 1
        finally:
            process.kill()
            process.wait()
        until(lambda: not Path(f"/proc/{child}").exists())  # nobody will tell it anything any more


@pytest.mark.long
def test_without_a_forge_or_a_secret_nothing_listens(clone: tuple[Path, str]) -> None:
    from tests.server.command_line import inhouse

    root, head = clone
    settings_for(root, ForgeServer(GitHubPullWorld(head, {})))
    without = inhouse("webhook", "serve", "--repo", str(root), INHOUSE_FORGE_TOKEN=TOKEN)
    assert without.returncode == 1 and "$INHOUSE_WEBHOOK_SECRET holds no secret" in without.stderr
