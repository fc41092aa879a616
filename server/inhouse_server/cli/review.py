"""`inhouse review`: what the house would say about a change before its people do."""

from __future__ import annotations

from collections.abc import Container
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from inhouse_retrieval.errors import InhouseError
from inhouse_server.cli.backend import locate
from inhouse_server.cli.forge import forget_token, open_forge, require_forge_and_token
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.post_review import PostingProcess, posting_process
from inhouse_server.cli.terminal import progress_bar, start_logging, warn
from inhouse_server.settings import Settings

if TYPE_CHECKING:
    from inhouse_server.review.change import Change
    from inhouse_server.review.finding import Review

FOUND = 4
"""Exit code when --fail-on is met: no problem of inhouse's, and not the gate's."""
_FORMATS = "terminal, markdown, json, sarif, rdjsonl, github, gitlab or request"


def review(
    revisions: Annotated[
        str | None,
        typer.Argument(help="BASE..HEAD, or one commit. Without it: all that is not on the main branch yet."),
    ] = None,
    repo: RepoOption = HERE,
    staged: Annotated[bool, typer.Option("--staged", help="Review what is staged.")] = False,
    pull_request: Annotated[
        int | None, typer.Option("--pr", min=1, help="Review a pull request of this clone.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--base", help="With --pr: the branch that it goes to. Default: the main branch.", metavar="BRANCH"
        ),
    ] = None,
    diff: Annotated[
        Path | None,
        typer.Option("--diff", help="Review a patch against HEAD; - reads standard input.", allow_dash=True),
    ] = None,
    form: Annotated[str, typer.Option("--format", help=f"{_FORMATS}.")] = "terminal",
    fail_on: Annotated[
        str | None, typer.Option("--fail-on", help="'warning' or 'info': exit with 4 when there is such a finding.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Leave out what an earlier review with --once showed.")] = False,
    read: Annotated[
        bool | None, typer.Option("--read/--no-read", help="Let the model read each hunk; by default as settings say.")
    ] = None,
    checked: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Run the check of inhouse.toml on each suggestion, if it has one."),
    ] = True,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Findings at most.")] = None,
    post: Annotated[
        bool, typer.Option("--post", help="Post the review to the pull request of --pr; needs [forge] in inhouse.toml.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """Review a change: what usually comes along and is missing, what the house spells another way."""
    from inhouse_retrieval import Repository
    from inhouse_server.review.check import Trusted, open_check, trusted_check
    from inhouse_server.review.diff import read_change
    from inhouse_server.review.memory import ShownFindings
    from inhouse_server.review.renderers import FORMATS, render
    from inhouse_server.review.reviewer import know_house
    from inhouse_server.review.reviewer import review as review_change
    from inhouse_server.review.trusted import require_trusted_forge
    from inhouse_server.state_dir import prepare_state_dir

    form = "json" if json else form
    if form != "terminal" and form not in FORMATS:
        raise typer.BadParameter(f"there is no format {form!r}; there are {_FORMATS}")
    if fail_on not in (None, "warning", "info"):
        raise typer.BadParameter("--fail-on takes 'warning' or 'info'")
    if post and (pull_request is None or once):
        raise typer.BadParameter("--post goes with --pr, and not with --once: what was posted is not repeated anyway")
    if target is not None and pull_request is None:
        raise typer.BadParameter("--base goes with --pr; of a range say BASE...HEAD")
    root, settings, state_dir = locate(repo)
    if once:
        prepare_state_dir(state_dir)
    start_logging(state_dir, "review")
    repository = Repository.open(root).excluding(settings.exclude)
    repository.head()  # without a commit nothing can be reviewed, which is best said first
    shown = ShownFindings(state_dir) if once else None
    most = limit or settings.review.findings
    patch = _patch(diff) if diff else None
    with ExitStack() as ends:
        posting: PostingProcess | None = None
        if post and pull_request is not None:
            require_forge_and_token(settings.forge)
            posting = ends.enter_context(posting_process(root, pull_request, quiet=form != "terminal"))
        # Nothing that reads the change may find the token: not a model, and not a program that git is told to start.
        forget_token(settings.forge)
        trusted = trusted_check(repository, settings.review) if checked else Trusted(None)
        if trusted.warning:
            warn(trusted.warning)
        tree = Path(ends.enter_context(TemporaryDirectory(prefix="inhouse-tree-"))) if trusted.settings else None
        check = open_check(repository, trusted.settings, tree) if trusted.settings and tree else None
        with progress_bar() as progress:
            change = read_change(
                repository, revisions, staged=staged, pull_request=pull_request, target=target, patch=patch,
                copy_to=tree, progress=progress,
            )  # fmt: skip
            known: Container[str] = shown or ()
            if posting is not None and pull_request is not None:
                require_trusted_forge(repository, change.head_commit)
                known = _posted(settings, state_dir, pull_request, change)
            house = know_house(repository, change.base_commit, progress, state_dir)
            if settings.review.reading if read is None else read:
                from inhouse_server.cli.review_reader import open_reader

                with open_reader(root, settings, state_dir, progress) as reader:
                    found = review_change(change, house, most, reader, known, progress=progress, check=check)
            else:
                found = review_change(change, house, most, None, known, progress=progress, check=check)
        if form == "terminal":
            from rich.console import Console

            from inhouse_server.review.renderers.terminal import print_review

            print_review(found, change, root, Console())
        else:
            typer.echo(render(form, found, change, root))
        if shown is not None:
            shown.add(finding.fingerprint for finding in found.findings)
        if posting is not None and (failed := posting.post(render("request", found, change, root))):
            return failed
    return FOUND if _fails(found, fail_on) else 0


def _posted(settings: Settings, state_dir: Path, number: int, change: Change) -> Container[str]:
    """Fingerprints of what was posted for the pull request's earlier commits."""
    from inhouse_server.review.posting.memory import Posted

    forge = open_forge(settings.forge, "so there is nowhere to post to", with_token=False)
    return Posted(state_dir, forge, number).before(change.head_commit)


def _patch(diff: Path) -> bytes:
    import sys

    try:
        return sys.stdin.buffer.read() if str(diff) == "-" else diff.read_bytes()
    except OSError as error:
        raise InhouseError(f"{diff} cannot be read: {error.strerror}.", "Name a file with a unified diff.") from error


def _fails(found: Review, fail_on: str | None) -> bool:
    """Whether anything so grave was found, also when it is not shown (again)."""
    return found.worst is not None and (fail_on == "info" or (fail_on == "warning" and found.worst == "warning"))
