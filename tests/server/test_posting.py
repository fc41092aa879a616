"""Posting a review, to a forge on loopback: what is sent, what is never sent twice, and what does not leave."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from inhouse_retrieval import Clock, Forge, InhouseError
from inhouse_server.cli.app import app
from inhouse_server.review.finding import Coverage, Finding, Precedent, Review
from inhouse_server.review.posting.inert import why_it_acts
from inhouse_server.review.posting.memory import FILE_NAME, Posted
from inhouse_server.review.posting.post import Outcome, post
from inhouse_server.review.posting.request import read_request
from inhouse_server.review.renderers import render
from inhouse_server.review.renderers.harmless import harmless, harmless_line
from inhouse_training.plain_text import hidden_characters
from tests.retrieval.forges.server import TOKEN, ForgeServer, Reply
from tests.server.command_line import inhouse
from tests.server.conftest import git
from tests.server.forge_pulls import STRANGER, GitHubPullWorld, GitLabPullWorld
from tests.server.test_review import CLIENT, commit
from tests.server.test_review_renderers import HEAD, PATCH, PAY, ROOT, active, change, finding, review

HUNKS = PATCH[PATCH.index("@@") :]
ATTACKS = [json.loads(line) for line in (Path(__file__).with_name("attacks.jsonl")).read_text().splitlines()]
SECRETS = [attack["text"] for attack in ATTACKS if attack["kind"] == "token"]
MARKER = re.compile(r"\n\n<!-- inhouse (?:review|remark) [0-9a-f]{40} [0-9a-f,]* -->\Z")
LATER = "d" * 40


def github(**patches: str | None) -> ForgeServer:
    return ForgeServer(GitHubPullWorld(HEAD, {PAY: HUNKS, **patches}))


def request_for(*findings: Finding, head: str = HEAD) -> str:
    return render("request", replace(review(*findings), head_commit=head), change(head_commit=head), ROOT)


async def send(server: ForgeServer, state: Path, *findings: Finding, head: str = HEAD) -> Outcome:
    kind, project = ("github", "acme/shop") if isinstance(server.world, GitHubPullWorld) else ("gitlab", GITLAB)
    forge = Forge(kind, project, server.url, TOKEN, "$INHOUSE_FORGE_TOKEN")  # type: ignore[arg-type]
    request = read_request(request_for(*findings, head=head).encode(), TOKEN)

    async def no_sleep(seconds: float) -> None:
        pass

    return await post(request, forge, 77, Posted(state, forge, 77), clock=Clock(lambda: 1_750_000_000.0, no_sleep))


GITLAB = "acme/tools/shop"
SIX = finding(replacement="six = 6\n")
FIVE = finding(start_line=5, end_line=6, message="Both of them.")
FAR = finding(start_line=12, end_line=12, message="Far from the change.", replacement="x\n")


# -- github --------------------------------------------------------------------------------------------------


async def test_one_review_with_remarks_beside_their_lines_and_the_rest_below(tmp_path: Path) -> None:
    other = finding(path="docs/gone.md", message="Companion.", replacement=None)
    with github().running() as server:
        outcome = await send(server, tmp_path, SIX, FIVE, FAR, other)
    assert (outcome.posted, outcome.remarks) == (True, 4)
    assert outcome.sentence.startswith("Posted to #77: 4 remarks, 2 beside lines. https://")
    [sent] = server.posted()
    assert (sent["event"], sent["commit_id"]) == ("COMMENT", HEAD)
    one, both = sent["comments"]
    assert one["body"].endswith("\n\n```suggestion\nsix = 6\n```") and "start_line" not in one
    assert (both["start_line"], both["line"], both["path"]) == (5, 6, PAY)
    assert f"`{PAY}:12`" in sent["body"] and "Instead:\n\n```\nx\n```" in sent["body"]
    assert "`docs/gone.md:6`" in sent["body"] and MARKER.search(sent["body"])
    assert all(request.headers["authorization"] == f"Bearer {TOKEN}" for request in server.requests)
    assert TOKEN not in (tmp_path / FILE_NAME).read_text()


async def test_the_forges_own_diff_decides_where_a_remark_goes(tmp_path: Path) -> None:
    """The forge gives no patch of a large file, and a hunk may be another one there."""
    for patch in (None, "@@ -1,2 +1,2 @@\n-a\n+b\n c\n", "not a patch"):
        state = tmp_path / str(patch is None) / str(len(patch or ""))
        state.mkdir(parents=True)
        with github(**{PAY: patch}).running() as server:
            await send(server, state, SIX)
        [sent] = server.posted()
        assert sent["comments"] == [] and f"`{PAY}:6`" in sent["body"]


async def test_a_head_is_reviewed_once_and_our_own_memory_is_what_counts(tmp_path: Path) -> None:
    with github().running() as server:
        await send(server, tmp_path, SIX)
        asked = len(server.requests)
        again = await send(server, tmp_path, SIX, FIVE)
        assert not again.posted and "was reviewed there already" in again.sentence
        assert len(server.requests) == asked
        # Another machine remembers nothing, and finds the marker.
        there = tmp_path / "there"
        there.mkdir()
        assert not (await send(server, there, FIVE)).posted
        assert len(server.posted()) == 1
        # A marker that somebody else wrote says nothing.
        server.world.reviews[0]["user"]["id"] = STRANGER  # type: ignore[attr-defined]
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        assert (await send(server, elsewhere, FIVE)).posted


async def test_an_apps_token_knows_its_reviews_by_being_a_bots(tmp_path: Path) -> None:
    world = GitHubPullWorld(HEAD, {PAY: HUNKS}, app=True)
    with ForgeServer(world).running() as server:
        await send(server, tmp_path, SIX)
        (tmp_path / FILE_NAME).unlink()
        assert not (await send(server, tmp_path, SIX)).posted
        world.reviews[0]["user"]["type"] = "User"
        (tmp_path / FILE_NAME).unlink()
        assert (await send(server, tmp_path, SIX)).posted


@pytest.mark.parametrize("remembers", [True, False])
async def test_a_push_that_leaves_the_code_as_it_was_repeats_nothing(tmp_path: Path, remembers: bool) -> None:
    with github().running() as server:
        await send(server, tmp_path, SIX, FAR)
        server.world.pull["head"]["sha"] = LATER  # type: ignore[attr-defined]
        if not remembers:
            (tmp_path / FILE_NAME).unlink()
        outcome = await send(server, tmp_path, SIX, FAR, head=LATER)
        assert (outcome.posted, outcome.repeated) == (False, 2)
        assert outcome.sentence == "Nothing was posted to #77: there is nothing that was not said before."
        assert len(server.posted()) == 1


async def test_after_a_push_only_what_is_new_is_said(tmp_path: Path) -> None:
    with github().running() as server:
        await send(server, tmp_path, SIX)
        server.world.pull["head"]["sha"] = LATER  # type: ignore[attr-defined]
        outcome = await send(server, tmp_path, SIX, FIVE, head=LATER)
        assert (outcome.remarks, outcome.repeated) == (1, 1)
        _, second = server.posted()
        assert [comment["line"] for comment in second["comments"]] == [6] and "Both of them." in str(second)
        assert "1 finding posted for an earlier push: not repeated." in second["body"]


async def test_silence_posts_nothing(tmp_path: Path) -> None:
    with github().running() as server:
        outcome = await send(server, tmp_path)
    assert (outcome.posted, server.posted()) == (False, []) and "nothing to say" in outcome.sentence


async def test_what_cannot_be_posted_to_is_told_plainly(tmp_path: Path) -> None:
    with github().running() as server:
        world: Any = server.world
        refused = lambda status, headers=None: lambda number, path: Reply(status, headers or {})  # noqa: E731

        async def problem() -> str:
            with pytest.raises(InhouseError) as caught:
                await send(server, tmp_path, SIX)
            return str(caught.value)

        world.pull["state"] = "closed"
        assert "Pull request #77 is closed; nothing was posted." in await problem()
        world.pull["merged_at"] = "2025-01-01T00:00:00Z"
        assert "is merged" in await problem()
        world.pull |= {"state": "open", "merged_at": None}
        world.pull["head"]["sha"] = LATER
        told = await problem()
        assert f"has moved on: {HEAD[:12]} was reviewed, and its head is {LATER[:12]} now" in told
        assert "git fetch origin +pull/77/head:refs/pull/77/head" in told
        world.pull["head"]["sha"] = HEAD
        for reply, said in (
            (refused(404), "There is no pull request #77 in acme/shop"),
            (refused(401), "does not accept the token of $INHOUSE_FORGE_TOKEN"),
            (refused(500), "keeps answering with status 500. Run 'inhouse review --post' again"),
            (refused(429, {"retry-after": "9000"}), "asks to wait for 2 hours"),
        ):
            server.instead = reply
            assert said in await problem()
        posts: Sequence[tuple[int, str]] = (
            (403, "forbids to write to acme/shop at 127.0.0.1. Give the token of $INHOUSE_FORGE_TOKEN the right"),
            (422, "answered with status 422"),
            (502, "took what was sent to it is not known (status 502)"),
        )
        for status, said in posts:
            before = len(server.requests)
            server.instead = lambda number, path, status=status: (
                Reply(status) if server.requests[number].content is not None else None
            )
            assert said in await problem()
            assert sum(request.content is not None for request in server.requests[before:]) == 1
        assert server.posted() == []
    assert "cannot be reached (ConnectError). Run 'inhouse review --post' again" in await problem()


async def test_a_push_between_looking_and_posting_is_seen(tmp_path: Path) -> None:
    with github().running() as server:

        def pushed(number: int, path: str) -> None:
            if path.split("?")[0].endswith("/files"):
                server.world.pull["head"]["sha"] = LATER  # type: ignore[attr-defined]

        server.instead = pushed
        with pytest.raises(InhouseError, match="has moved on"):
            await send(server, tmp_path, SIX)
        assert server.posted() == []


@pytest.mark.long
async def test_a_remark_on_the_last_of_three_thousand_files_is_beside_its_line(tmp_path: Path) -> None:
    """As many as GitHub lists of one pull request, by the hundred."""
    patches: dict[str, str | None] = {f"src/a{number:04}.py": HUNKS for number in range(2_999)}
    with ForgeServer(GitHubPullWorld(HEAD, {**patches, PAY: HUNKS})).running() as server:
        await send(server, tmp_path, SIX)
        asked = [request.path for request in server.requests if "/files" in request.path]
    [sent] = server.posted()
    assert [comment["path"] for comment in sent["comments"]] == [PAY] and len(asked) == 30


SECONDARY = Reply(403, {}, b'{"message": "You have exceeded a secondary rate limit."}')


@pytest.mark.parametrize("kind", ["github", "gitlab"])
async def test_a_limit_met_while_posting_is_waited_for_and_nothing_is_there_twice(tmp_path: Path, kind: str) -> None:
    server = github() if kind == "github" else ForgeServer(GitLabPullWorld(HEAD, {PAY: HUNKS}))
    refused: list[int] = []

    def limited(number: int, path: str) -> Reply | None:
        if server.requests[number].content is None or len(refused) == 2:
            return None
        refused.append(number)
        return SECONDARY if kind == "github" else Reply(429, {"Retry-After": "41"})

    server.instead = limited
    with server.running():
        outcome = await send(server, tmp_path, SIX)
    there = server.world.reviews if kind == "github" else server.world.notes  # type: ignore[attr-defined]
    assert outcome.posted and len(refused) == 2 and len(there) == (1 if kind == "github" else 2)


async def test_a_token_that_expires_before_the_review_is_sent_leaves_it_to_the_next_one(tmp_path: Path) -> None:
    with github().running() as server:
        server.instead = lambda number, path: Reply(401) if server.requests[number].content is not None else None
        with pytest.raises(InhouseError, match="does not accept the token"):
            await send(server, tmp_path, SIX)
        server.instead = lambda number, path: None
        assert (await send(server, tmp_path, SIX)).posted
        assert len(server.world.reviews) == 1  # type: ignore[attr-defined]


# -- gitlab --------------------------------------------------------------------------------------------------


async def test_gitlab_gets_a_thread_for_each_line_and_one_note(tmp_path: Path) -> None:
    seven = finding(start_line=7, end_line=7, message="An unchanged line.")
    with ForgeServer(GitLabPullWorld(HEAD, {"a": "", "b": "", PAY: HUNKS}), "/api/v4").running() as server:
        outcome = await send(server, tmp_path, SIX, seven, FAR)
    assert outcome.sentence == "Posted to #77: 3 remarks, 2 beside lines."
    first, second, note = server.posted()
    assert "\n\n```suggestion:-0+0\nsix = 6\n```" in first["body"]
    assert first["position"]["start_sha"] == "c" * 40 and "old_line" not in first["position"]
    assert second["position"]["old_line"] == 6
    assert f"`{PAY}:12`" in note["body"] and "position" not in note
    assert all(MARKER.search(sent["body"]) for sent in (first, second, note))


async def test_what_cannot_be_posted_to_on_gitlab_is_told_plainly(tmp_path: Path) -> None:
    with ForgeServer(GitLabPullWorld(HEAD, {PAY: HUNKS})).running() as server:
        world: Any = server.world

        async def problem() -> str:
            with pytest.raises(InhouseError) as caught:
                await send(server, tmp_path, SIX)
            return str(caught.value)

        for state in ("closed", "merged", "locked"):
            world.merge_request["state"] = state
            assert f"Pull request #77 is {state}; nothing was posted." in await problem()
        world.merge_request |= {"state": "opened", "sha": LATER}
        assert "git fetch origin +merge-requests/77/head:refs/merge-requests/77/head" in await problem()
        world.merge_request["sha"] = HEAD
        for status, headers, said in (
            (404, {}, f"There is no pull request #77 in {GITLAB}"),
            (401, {}, "does not accept the token of $INHOUSE_FORGE_TOKEN"),
            (503, {}, "keeps answering with status 503. Run 'inhouse review --post' again"),
            (429, {"Retry-After": "9000"}, "asks to wait for 2 hours"),
        ):
            reply = Reply(status, dict(headers))
            server.instead = lambda number, path, reply=reply: reply
            assert said in await problem()
        server.instead = lambda number, path: Reply(403) if server.requests[number].content is not None else None
        assert f"forbids to write to {GITLAB} at 127.0.0.1" in await problem(), "a fork, or a token that may only read"
        assert world.notes == []
    assert "cannot be reached (ConnectError)" in await problem()


async def test_a_merge_request_whose_diff_gitlab_has_not_made_yet_gets_its_remarks_in_the_note(tmp_path: Path) -> None:
    world = GitLabPullWorld(HEAD, {})
    world.merge_request["diff_refs"] = None
    with ForgeServer(world).running() as server:
        outcome = await send(server, tmp_path, SIX)
    assert outcome.posted and [f"`{PAY}:6`" in note["body"] for note in world.notes] == [True]


@pytest.mark.parametrize("remembers", [True, False])
@pytest.mark.parametrize("sent_before", [pytest.param(0, marks=pytest.mark.long), 1, 2, 3])
async def test_gitlab_goes_on_after_any_note(tmp_path: Path, sent_before: int, remembers: bool) -> None:
    """The forge breaks off after a number of notes; with the last one, its answer is lost."""
    server = ForgeServer(GitLabPullWorld(HEAD, {PAY: HUNKS}))
    with server.running():

        def broken(number: int, path: str) -> Reply | None:
            request = server.requests[number]
            if request.content is None or len(server.posted()) < min(sent_before, 2):
                return None
            if sent_before == 3:
                server.reply(request)
            return Reply(502)

        server.instead = broken
        with pytest.raises(InhouseError, match="is not known"):
            await send(server, tmp_path, SIX, FIVE, FAR)
        if not remembers:
            (tmp_path / FILE_NAME).unlink(missing_ok=True)
        server.instead = lambda number, path: None
        await send(server, tmp_path, SIX, FIVE, FAR)
        notes = server.world.notes  # type: ignore[attr-defined]
        assert len(notes) == 3
        whole = notes[2]["body"]
        assert all(one.fingerprint in whole for one in (SIX, FIVE, FAR))
        assert not (await send(server, tmp_path, SIX, FIVE, FAR)).posted


# -- what does not leave -------------------------------------------------------------------------------------


def test_the_corpus_is_large_enough_and_every_attack_is_one() -> None:
    assert len(ATTACKS) >= 60
    for attack in ATTACKS:
        text = attack["text"]
        assert why_it_acts(text) or attack["kind"] in ("token", "fence"), text
        if attack["kind"] != "fence":
            with pytest.raises(InhouseError):
                read_request(_raw(remarks=[_remark(body=text)]))


def _attacked() -> dict[str, list[Finding]]:
    """Each attack in each text of a finding."""
    texts = [attack["text"] for attack in ATTACKS]
    return {
        "message": [finding(message=text, key=f"m{n}") for n, text in enumerate(texts)],
        "path": [finding(path=f"src/{text}.py", message=f"m{n}") for n, text in enumerate(texts)],
        "replacement": [finding(replacement=f"{text}\n", message=f"m{n}") for n, text in enumerate(texts)],
        "title": [
            finding(precedents=(Precedent(text, 1, 1, text),), changes=(f"#12 {text}", text), message=f"m{n}")
            for n, text in enumerate(texts)
        ],
    }


@pytest.mark.parametrize("field", ["message", "path", "replacement", "title"])
async def test_nothing_of_an_attack_leaves_active(tmp_path: Path, field: str) -> None:
    attacked = _attacked()[field]
    offered = {one.replacement for one in attacked if one.replacement}
    for number, some in enumerate((attacked[:50], attacked[50:])):
        state = tmp_path / str(number)
        state.mkdir()
        with github().running() as server:
            outcome = await send(server, state, *some)
        assert outcome.remarks == len(some)
        [sent] = server.posted()
        assert len(sent["comments"]) == (0 if field == "path" else len(some))
        for text in (MARKER.sub("", sent["body"]), *(comment["body"] for comment in sent["comments"])):
            assert active(text) == []
            assert hidden_characters(text) == 0 and not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
            assert not re.search(r"^/[a-z]+\s*$", text, re.M | re.I)
            assert not any(secret in text for secret in SECRETS)
            fences = [token for token in MarkdownIt("commonmark").parse(text) if token.type == "fence"]
            suggested = [token for token in fences if token.info]
            assert len(suggested) <= (field == "replacement")
            for token in suggested:
                assert token.info == "suggestion" and token.content in offered
                assert text.rstrip("`").endswith(token.content)


async def test_an_attack_in_the_changes_own_notes_does_not_leave(tmp_path: Path) -> None:
    texts = tuple(attack["text"] for attack in ATTACKS)
    said = Review(
        "main", "topic", HEAD, (SIX,), Coverage(1, 1, 1, {"x": "y"}), notes=texts, dropped=dict.fromkeys(texts, 1)
    )
    request = read_request(render("request", said, change(), ROOT).encode())
    assert active(request.body) == [] and not any(secret in request.body for secret in SECRETS)


@pytest.mark.parametrize("text", ["C:/ProgramData/shop", "Read a:/p.py", "mailto:a.b", "x:/", "see file:/etc"])
def test_words_that_one_method_takes_for_an_address_are_none_to_the_other(text: str) -> None:
    assert why_it_acts(text) != "" and why_it_acts(harmless_line(text)) == "" and why_it_acts(harmless(text)) == ""


def test_texts_of_any_length_are_posted_cut() -> None:
    long = "word " * 10_000
    finding = replace(
        SIX,
        message=long,
        changes=(long,) * 3,
        precedents=(Precedent("p" * 4000, 1, 1, long),),
        replacement="x\n" * 9000,
    )
    notes = tuple(f"{number} {long}" for number in range(100))
    said = Review("main", "topic", HEAD, (finding,), Coverage(1, 1, 1, {}), notes=notes)
    request = read_request(render("request", said, change(), ROOT).encode())
    assert "sentences left out." in request.body
    [remark] = request.remarks
    assert remark.replacement is None and "too long for a comment" in remark.body and "…" in remark.body


def test_a_replacement_that_acts_is_shown_and_not_offered() -> None:
    for acts in ("/approve\n", "x\u202ey\n"):
        said = Review("main", "topic", HEAD, (replace(SIX, replacement=acts),), Coverage(1, 1, 1, {}))
        for name in ("github", "gitlab", "request"):
            out = render(name, said, change(), ROOT)
            assert "suggestion" not in out and "\u202e" not in json.loads(f"[{out}]").__repr__(), name
            assert "\n/approve" not in "".join(bodies_of(json.loads(out))), name


def bodies_of(value: Any) -> list[str]:
    """Every text in it."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in bodies_of(each)]


@given(st.text(alphabet="`![]()<>@#/\\|*-~ \n\rax1:&!$%.", max_size=60))
def test_what_one_method_makes_harmless_the_other_finds_harmless(text: str) -> None:
    assert why_it_acts(harmless(text)) == ""
    assert why_it_acts(harmless_line(text)) == ""


def _remark(**changes: Any) -> dict[str, Any]:
    plain = {
        "path": PAY,
        "start_line": 6,
        "end_line": 6,
        "body": "Plain.",
        "replacement": None,
        "fingerprint": "0" * 20,
    }
    return {**plain, **changes}


def _raw(**changes: Any) -> bytes:
    plain = {"format": 1, "event": "COMMENT", "head_commit": HEAD, "body": "Plain.", "remarks": []}
    return json.dumps({**plain, **changes}).encode()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "the whole: Invalid JSON"),
        (_raw(event="APPROVE"), "event: Input should be 'COMMENT'"),
        (_raw(event="REQUEST_CHANGES"), "event"),
        (_raw(url="https://evil.example"), "url: Extra inputs"),
        (_raw(head_commit="main"), "head_commit"),
        (_raw(body="x" * 40_001), "body"),
        (_raw(remarks=[_remark()] * 101), "remarks"),
        (_raw(remarks=[_remark(line=3)]), "remarks.0.line"),
        (_raw(remarks=[_remark(start_line="6")]), "remarks.0.start_line"),
        (_raw(remarks=[_remark(start_line=0)]), "remarks.0.start_line"),
        (_raw(remarks=[_remark(start_line=7)]), "end before they start"),
        (_raw(remarks=[_remark(fingerprint="a -->")]), "remarks.0.fingerprint"),
        (_raw(remarks=[_remark(replacement="/approve\n")]), "the suggestion of remark 1 holds a command"),
        (_raw(remarks=[_remark(replacement="a\u202eb\n")]), "no reader sees"),
        (_raw(body="```suggestion\nevil()\n```"), "a block of code that may act"),
        (_raw(body=f"So {TOKEN} it is."), "the forge's own token"),
        (_raw(body="x" * 1_000_001), "larger than 1,000,000 bytes"),
    ],
)
def test_a_request_is_believed_in_nothing(data: bytes, problem: str) -> None:
    with pytest.raises(InhouseError) as caught:
        read_request(data, TOKEN)
    assert problem in str(caught.value)


def test_a_damaged_memory_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("[")
    with pytest.raises(InhouseError, match="cannot be read from"):
        Posted(tmp_path, Forge("github", "acme/shop"), 77)


# -- the command ---------------------------------------------------------------------------------------------


@pytest.fixture
def pull(tmp_path: Path) -> Iterator[tuple[Path, ForgeServer]]:
    """A clone with pull request 77 fetched, which imports from another module than the house, and its forge."""
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "--quiet", "--initial-branch=main")
    clients = {f"clients__thing{number}_py": CLIENT.format(name=number) for number in range(8)}
    commit(work, "Begin", house__http_py="def get_json(kind, identifier):\n    return {}\n", **clients)
    git(work, "checkout", "--quiet", "-b", "change")
    more = CLIENT.format(name="more").replace("house.http", "house.web")
    head = commit(work, "Offer more", clients__more_py=more, house__web_py="from house.http import get_json\n")
    git(work, "update-ref", "refs/pull/77/head", head)
    git(work, "checkout", "--quiet", "main")
    patch = git(work, "diff", "main", head, "--", "clients/more.py")
    patches: dict[str, str | None] = {"clients/more.py": patch[patch.index("@@") :].rstrip("\n")}
    with ForgeServer(GitHubPullWorld(head, patches)).running() as server:
        (work / "inhouse.toml").write_text(f'[forge]\nkind = "github"\nproject = "acme/shop"\nurl = "{server.url}"\n')
        yield work, server


def run(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return inhouse(*arguments, "--repo", str(root), **{"INHOUSE_FORGE_TOKEN": TOKEN, **environment})


def test_the_command_reviews_and_posts(pull: tuple[Path, ForgeServer]) -> None:
    root, server = pull
    done = run(root, "review", "--pr", "77", "--post")
    assert done.returncode == 0, done.stderr
    assert "Posted to #77: 1 remark, 1 beside lines. https://" in done.stdout
    [sent] = server.posted()
    assert sent["comments"][0]["body"].endswith("```suggestion\nfrom house.http import get_json\n```")
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.long
def test_the_command_posts_once(pull: tuple[Path, ForgeServer]) -> None:
    root, server = pull
    assert run(root, "review", "--pr", "77", "--post").returncode == 0
    again = run(root, "review", "--pr", "77", "--post", "--json", "--fail-on", "info")
    assert again.returncode == 4 and json.loads(again.stdout)["findings"]
    assert "was reviewed there already" in again.stderr
    assert len(server.posted()) == 1


@pytest.mark.long
def test_what_reads_the_change_does_not_find_the_token(pull: tuple[Path, ForgeServer], tmp_path: Path) -> None:
    """Every git that is started writes down what it was asked and whether it could see the token."""
    root, server = pull
    seen, folder = tmp_path / "seen", tmp_path / "bin"
    folder.mkdir()
    watch = f'echo "${{INHOUSE_FORGE_TOKEN:-none}} $*" >> "{seen}"'
    (folder / "git").write_text(f'#!/bin/sh\n{watch}\nexec "{shutil.which("git")}" "$@"\n')
    (folder / "git").chmod(0o755)
    done = run(root, "review", "--pr", "77", "--post", PATH=f"{folder}:{os.environ['PATH']}")
    assert done.returncode == 0 and len(server.posted()) == 1, done.stderr
    asked = [line.partition(" ") for line in seen.read_text().splitlines()]
    reading = [token for token, _, command in asked if re.search(r" (diff-tree|cat-file|ls-tree) ", command)]
    assert len(reading) >= 4 and set(reading) == {"none"}


@pytest.mark.long
def test_the_two_halves_can_run_in_two_jobs(pull: tuple[Path, ForgeServer]) -> None:
    root, server = pull
    request = run(root, "review", "--pr", "77", "--format", "request", INHOUSE_FORGE_TOKEN="").stdout
    command = [sys.executable, "-m", "inhouse_server.cli", "post-review", "--pr", "77", "--repo", str(root)]
    done = subprocess.run(
        command, input=request, capture_output=True, text=True, env={**os.environ, "INHOUSE_FORGE_TOKEN": TOKEN}
    )
    assert done.returncode == 0 and done.stdout.startswith("Posted to #77"), done.stderr
    assert len(server.posted()) == 1


@pytest.mark.long
def test_without_a_forge_a_token_or_trusted_settings_nothing_is_posted(pull: tuple[Path, ForgeServer]) -> None:
    root, server = pull
    without = run(root, "review", "--pr", "77", "--post", INHOUSE_FORGE_TOKEN="")
    assert without.returncode == 1 and "$INHOUSE_FORGE_TOKEN holds no token" in without.stderr
    assert run(root, "review", "--post").returncode == 2
    git(root, "checkout", "--quiet", "change")
    git(root, "add", "--force", "inhouse.toml")
    git(root, "commit", "--quiet", "--message", "Where to")
    git(root, "update-ref", "refs/pull/77/head", "HEAD")
    brought = run(root, "review", "--pr", "77", "--post")
    assert brought.returncode == 1 and "the token would go where it says" in brought.stderr
    git(root, "rm", "--quiet", "inhouse.toml")
    nowhere = run(root, "review", "--pr", "77", "--post")
    assert nowhere.returncode == 1 and "No forge is configured" in nowhere.stderr
    assert server.requests == []


@pytest.mark.parametrize("way", ["excluded", "linked", "other line ends"])
def test_a_change_cannot_say_where_the_token_goes(pull: tuple[Path, ForgeServer], way: str) -> None:
    """However it hides that it does: the main branch's settings count, not what the review sees of the file."""
    root, server = pull
    git(root, "add", "--force", "inhouse.toml")
    git(root, "commit", "--quiet", "--message", "Where reviews go")
    git(root, "checkout", "--quiet", "-B", "change")
    evil = '[forge]\nkind = "github"\nproject = "acme/shop"\nurl = "http://127.0.0.1:9/evil"\n'
    file = root / "inhouse.toml"
    if way == "linked":
        file.unlink()
        (root / "evil.toml").write_text(evil)
        file.symlink_to("evil.toml")
    else:
        file.write_text('exclude = ["inhouse.toml"]\n' + evil if way == "excluded" else evil)
    if way == "other line ends":
        (root / ".gitattributes").write_text("inhouse.toml text eol=crlf\n")
    git(root, "add", "--all", "--force")
    git(root, "commit", "--quiet", "--message", "A change")
    git(root, "update-ref", "refs/pull/77/head", "HEAD")
    done = run(root, "review", "--pr", "77", "--post")
    assert done.returncode == 1 and "the token would go where it says" in " ".join(done.stderr.split())
    # The second half by itself, too, in a checkout that is the change's own.
    alone = run(root, "post-review", "--pr", "77")
    assert alone.returncode == 1 and "the token would go where it says" in " ".join(alone.stderr.split())
    assert server.requests == []


# -- what is deployed ----------------------------------------------------------------------------------------

DEPLOY = Path(__file__).parents[2] / "server" / "deploy"


def test_the_github_workflow_gives_the_token_to_the_posting_step_alone() -> None:
    workflow = yaml.safe_load((DEPLOY / "github" / "inhouse-review.yml").read_text())
    assert workflow["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert "pull_request" in workflow[True] and "pull_request_target" not in workflow[True]  # YAML 1.1 reads "on" so
    job = workflow["jobs"]["review"]
    *before, last = job["steps"]
    assert "token" not in json.dumps([before, job["env"]]).replace("persist-credentials", "").lower()
    assert "INHOUSE_FORGE_TOKEN" in last["env"] and "head.repo.full_name == github.repository" in last["if"]
    assert all(re.search(r"@[0-9a-f]{40}$", step["uses"]) for step in before if "uses" in step)
    assert all("${{" not in step.get("run", "") for step in job["steps"])  # what an event says reaches no shell
    _parse("\n".join(step.get("run", "") for step in job["steps"]), 3)


def test_the_gitlab_jobs_give_the_token_to_the_posting_job_alone() -> None:
    jobs = yaml.safe_load((DEPLOY / "gitlab" / "inhouse-review.gitlab-ci.yml").read_text())
    assert "environment" not in jobs["inhouse-review"]
    assert jobs["inhouse-post-review"]["environment"]["name"] == "inhouse-review"
    assert jobs["inhouse-post-review"]["needs"] == ["inhouse-review"]
    _parse("\n".join(line for name in jobs for line in jobs[name].get("script", ())), 2)


def _parse(script: str, count: int) -> None:
    """Every call of `inhouse` is one that its command line takes."""
    group = typer.main.get_command(app)
    calls = [
        shlex.split(line, comments=True)[1:] for line in script.splitlines() if line.strip().startswith("inhouse ")
    ]
    assert len(calls) == count
    for call in calls:
        words = [re.sub(r"^\$\w+$", "7", word) for word in itertools.takewhile(lambda word: word[0] not in "<>", call)]
        command = group.commands[words[0]]  # type: ignore[attr-defined]
        reviews = getattr(command, "commands", {}).get("change", command)  # of `review`, the one that reviews
        reviews.make_context(words[0], words[1:])
