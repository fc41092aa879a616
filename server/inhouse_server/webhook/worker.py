"""The worker: takes jobs from the queue and has each pull request reviewed and posted, one after the other.

It has the forge's token, and hands it to `inhouse review --post` alone, which keeps it from whatever reads the change.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from inhouse_retrieval import Clock, Forge, ForgeClient, ForgeRefusal, InhouseError, Repository
from inhouse_server.review.diff import fetched, main_branch
from inhouse_server.review.posting.github import GitHubPull
from inhouse_server.review.posting.gitlab import GitLabPull
from inhouse_server.review.posting.pull import Poster, Pull
from inhouse_server.webhook.queue import Job, Queue

_COMMAND = "inhouse webhook work"
_DEVELOPER = 30
"""The least access of a GitLab member who may give commands: https://docs.gitlab.com/api/access_requests/."""
_FETCH_S = 600
_REVIEW_S = 3600
_log = logging.getLogger(__name__)


class Worker:
    """Reviews what waits in ``queue``.

    Args:
        token_env: the variable that the review finds the token in; no other program is given it.
    """

    def __init__(self, root: Path, forge: Forge, queue: Queue, token_env: str, clock: Clock | None = None) -> None:
        self._repository = Repository.open(root)
        self._forge = forge
        self._queue = queue
        self._token_env = token_env
        self._clock = clock

    def work(self) -> bool:
        """Do one job; ``False`` when none is due. Whatever goes wrong is kept with the job and told in the log."""
        job = self._queue.next()
        if job is None:
            return False
        number = job.wanted.number
        try:
            head, outcome, reviewed = self._do(job)
        except InhouseError as error:
            waits = self._queue.retry(job, error.problem)
            _log.warning("#%d: %s%s", number, error.problem, " It is tried again later." if waits else " Given up.")
            return True
        self._queue.finish(job, head, outcome, reviewed)
        _log.info("#%d: %s", number, outcome)
        return True

    def _do(self, job: Job) -> tuple[str, str, bool]:
        """The head that was reviewed, what became of it, and whether it needs no review any more.

        Raises:
            InhouseError: something failed that may go better later.
        """
        wanted = job.wanted
        pull = asyncio.run(self._ask(wanted.number, wanted.member))
        if isinstance(pull, str):
            return "", pull, False
        if wanted.command != "review":
            self._queue.pause(wanted.number, wanted.command == "pause")
            return "", f"{wanted.command}d", False
        if wanted.head and self._queue.is_paused(wanted.number):
            return "", "paused by a member", False
        head, base = self._fetch(wanted.number, pull.target)
        return head, self._review(wanted.number, base), True

    async def _ask(self, number: int, member: int) -> Pull | str:
        """The pull request as it is now, or why there is nothing to do."""
        async with ForgeClient(self._forge, _COMMAND, clock=self._clock) as client:
            try:
                if member and not await self._is_member(client, member):
                    return "a command of somebody who is no member"
                kind = GitHubPull if self._forge.kind == "github" else GitLabPull
                poster: Poster = kind(client, self._forge.route, number)
                pull = await poster.pull()
            except ForgeRefusal as refusal:
                if refusal.status == 404:
                    return "gone, or not to be seen"
                raise
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise client.not_documented(f"{self._forge.route} #{number}") from error
            return pull if pull.state == "open" else pull.state

    async def _is_member(self, client: ForgeClient, member: int) -> bool:
        try:
            found = await client.read(f"{self._forge.route}/members/all/{member}")
        except ForgeRefusal as refusal:
            if refusal.status == 404:
                return False
            raise
        return bool(found["state"] == "active" and found["access_level"] >= _DEVELOPER)

    def _fetch(self, number: int, target: str) -> tuple[str, str]:
        """Fetch the pull request's head, the branch that it goes to, and the main branch, whose settings hold; returns
        the head, and that branch under its name here."""
        asked = [fetched(number, self._forge.kind)]
        main = (main_branch(self._repository) or "").removeprefix("origin/")
        branches = {target} | ({main} if f"origin/{main}" == main_branch(self._repository) else set())
        asked += [f"+refs/heads/{branch}:refs/remotes/origin/{branch}" for branch in sorted(branches)]
        command = ["git", "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "origin", *asked]
        self._run(command, _FETCH_S, {"GIT_TERMINAL_PROMPT": "0"}, "The pull request cannot be fetched")
        ref = asked[0].partition(":")[2]
        return self._repository.commit_id(ref), f"refs/remotes/origin/{target}"

    def _review(self, number: int, base: str) -> str:
        command = [sys.executable, "-P", "-m", "inhouse_server.cli", "review", "--pr", str(number), "--post"]
        command += ["--base", base]
        token = {self._token_env: self._forge.token or ""}
        root = str(self._repository.root)
        out = self._run([*command, "--format", "json", "--repo", root], _REVIEW_S, token, "The review failed")
        return next((line for line in reversed(out.splitlines()) if "osted" in line), "reviewed")

    def _run(self, command: list[str], limit: int, environment: Mapping[str, str], problem: str) -> str:
        """Run ``command``; returns what it said on standard error."""
        others = {name: value for name, value in os.environ.items() if name != self._token_env}
        try:
            done = subprocess.run(
                command, cwd=self._repository.root, env={**others, **environment}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=limit, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise InhouseError(f"{problem}: it took longer than {limit} s.") from error
        except OSError as error:
            raise InhouseError(f"{problem}: {error.strerror}.") from error
        said = done.stderr.decode("utf-8", "replace").strip()
        if done.returncode != 0:
            told = next((line for line in said.splitlines() if line.startswith(("error: ", "fatal: "))), said[-200:])
            raise InhouseError(f"{problem}: {told.removeprefix('error: ').removeprefix('fatal: ')}")
        return said
