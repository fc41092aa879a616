"""`inhouse post-review`: the process that holds the forge's token. `inhouse review --post` starts it; a job of its own
may, too, so that the reviewing one never sees the token."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inhouse_retrieval.errors import Busy
from inhouse_server.cli.backend import locate
from inhouse_server.cli.forge import forget_token, open_forge, require_forge_and_token
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json, progress_bar, start_logging

if TYPE_CHECKING:
    from inhouse_server.review.posting.post import Outcome

_LOCK = "posting.lock"


def post_review(
    pull_request: Annotated[int, typer.Option("--pr", min=1, help="The pull request to post to.")],
    repo: RepoOption = HERE,
    json: JsonOption = False,
) -> None:
    """Post the review on standard input, as --format request writes it, to a pull request."""
    import asyncio

    from filelock import FileLock, Timeout

    from inhouse_retrieval import Repository
    from inhouse_server.review.posting.memory import Posted
    from inhouse_server.review.posting.post import post
    from inhouse_server.review.posting.request import MAX_BYTES, read_request
    from inhouse_server.review.trusted import require_trusted_forge
    from inhouse_server.state_dir import prepare_state_dir

    # Settings and token are read before the request: what it says cannot change where it goes.
    root, settings, state_dir = locate(repo)
    require_forge_and_token(settings.forge)
    forge = open_forge(settings.forge, "so there is nowhere to post to")
    # No program that is started from here on finds the token, git included.
    forget_token(settings.forge)
    repository = Repository.open(root)
    require_trusted_forge(repository, repository.head())
    prepare_state_dir(state_dir)
    start_logging(state_dir, "post-review")
    request = read_request(sys.stdin.buffer.read(MAX_BYTES + 1), forge.token)
    lock = FileLock(state_dir / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Busy("Another review is being posted here.", "Wait for it to end.") from None
    try:
        with progress_bar() as progress:
            posted = Posted(state_dir, forge, pull_request)
            outcome: Outcome = asyncio.run(post(request, forge, pull_request, posted, progress))
    finally:
        lock.release()
    if json:
        print_json(asdict(outcome))
    else:
        typer.echo(outcome.sentence)


class PostingProcess:
    """A waiting `inhouse post-review`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def post(self, request: str) -> int:
        """Give it ``request``; returns its exit code. What it has to say it says itself."""
        sys.stdout.flush()
        self._process.communicate(request.encode())
        return self._process.returncode


@contextmanager
def posting_process(root: Path, number: int, quiet: bool) -> Iterator[PostingProcess]:
    """Start the process that will post to ``number``, while the token is in the environment still.

    It ends with the block when nothing was given to it.

    Args:
        quiet: it speaks on standard error only.
    """
    # -P: no module is taken from the working directory, which may be the reviewed code.
    command = [sys.executable, "-P", "-m", "inhouse_server.cli", "post-review", "--repo", str(root)]
    process = subprocess.Popen(
        [*command, "--pr", str(number)], stdin=subprocess.PIPE, stdout=sys.stderr if quiet else None
    )
    try:
        yield PostingProcess(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
