"""`inhouse review install-hook` and `uninstall-hook`, and `pre-push`, which the hook calls."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from inhouse_retrieval.errors import InhouseError
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.review import FOUND, review
from inhouse_server.cli.terminal import print_json

LevelOption = Annotated[
    str | None, typer.Option("--fail-on", help="'warning' or 'info': block the push when there is such a finding.")
]


def install_hook(
    repo: RepoOption = HERE,
    fail_on: LevelOption = None,
    seconds: Annotated[int, typer.Option("--seconds", min=1, help="Let the push go after this time.")] = 30,
    chain: Annotated[bool, typer.Option("--chain", help="Keep a hook that is there, and run it first.")] = False,
    json: JsonOption = False,
) -> None:
    """Review before each push; without --fail-on it only shows what it found."""
    from inhouse_retrieval import Repository
    from inhouse_server.review.pre_push import install, script

    _require_level(fail_on)
    content = script(Path(sys.executable).with_name("inhouse"), fail_on, seconds)
    installed = install(Repository.open(repo), content, chain)
    if json:
        print_json({"hook": str(installed.path), "before": str(installed.before) if installed.before else None})
        return
    typer.echo(f"Installed {installed.path}{f'; {installed.before} runs before it' if installed.before else ''}.")


def uninstall_hook(repo: RepoOption = HERE, json: JsonOption = False) -> None:
    """Take the pre-push hook away; the one that was there before comes back."""
    from inhouse_retrieval import Repository
    from inhouse_server.review.pre_push import uninstall

    removed = uninstall(Repository.open(repo))
    if json:
        print_json({"hook": str(removed.path), "restored": removed.before is not None})
        return
    typer.echo(f"Removed {removed.path}{'; the hook before it is back' if removed.before else ''}.")


def pre_push(repo: RepoOption = HERE, fail_on: LevelOption = None) -> int:
    """Review what the lines of git on standard input push. The house reviewer alone: a model would take too long."""
    from inhouse_retrieval import Repository
    from inhouse_server.review.pre_push import MOST_RANGES, pushed_ranges

    _require_level(fail_on)
    ranges = pushed_ranges(Repository.open(repo), sys.stdin)
    if len(ranges) > MOST_RANGES:
        typer.echo(f"inhouse reviews {MOST_RANGES} of the {len(ranges)} branches.", err=True)
    code, failed = 0, None
    for each in ranges[:MOST_RANGES]:
        try:
            code = max(code, review(each, repo, fail_on=fail_on, read=False, checked=False))
        except InhouseError as error:
            failed = error  # the other branches are reviewed all the same
    if failed is not None and code != FOUND:
        raise failed
    return code


def _require_level(fail_on: str | None) -> None:
    if fail_on not in (None, "warning", "info"):
        raise typer.BadParameter("--fail-on takes 'warning' or 'info'")
