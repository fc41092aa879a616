"""A pre-push hook that reviews what is about to be pushed: its installation, and which ranges a push has.

It may block a push for one reason only, a finding as grave as the user said. inhouse missing, broken or slow lets the
push go, and says so.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from inhouse_retrieval import InhouseError, Repository
from inhouse_server.review.diff import main_branch

NAME = "pre-push"
CHAINED = "pre-push.before-inhouse"
"""The hook that was there, run first."""
MOST_RANGES = 5
_MARK = "# inhouse pre-push hook"
_SCRIPT = """\
#!/bin/sh
{mark}: made by 'inhouse review install-hook', taken away by 'inhouse review uninstall-hook'.
# It blocks a push only for {blocks}. When inhouse is missing, broken or slower than {seconds} s, the push goes on.
refs=$(cat)
before=$(dirname -- "$0")/{chained}
if [ -x "$before" ]; then
    {{ [ -z "$refs" ] || printf '%s\\n' "$refs"; }} | "$before" "$@" || exit $?
fi
inhouse={inhouse}
if [ ! -x "$inhouse" ] && ! inhouse=$(command -v inhouse); then
    echo "inhouse is not there: pushed without a review." >&2
    exit 0
fi
unset $(git rev-parse --local-env-vars)
# Into a file: what may be left of a review that was ended must not hold the push's own output open.
said=$(mktemp) || exit 0
[ -t 2 ] && export FORCE_COLOR=1
printf '%s\\n' "$refs" | "$inhouse" review {name}{fail_on} >"$said" 2>&1 &
review=$!
( sleep {seconds}; kill "$review"; sleep 2; kill -9 "$review" ) </dev/null >/dev/null 2>&1 &
watch=$!
wait "$review"
code=$?
kill "$watch" 2>/dev/null
cat "$said" >&2
rm -f "$said"
case $code in
0) ;;
4) echo "inhouse: not pushed. Push with --no-verify to push all the same." >&2; exit 1 ;;
130|137|143) echo "inhouse took longer than {seconds} s: pushed without a whole review." >&2 ;;
*) echo "inhouse could not review: pushed all the same." >&2 ;;
esac
exit 0
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """Where the hook lies, and the hook that runs before it, if any."""

    path: Path
    before: Path | None


def script(inhouse: Path, fail_on: str | None, seconds: int) -> str:
    """The hook.

    Args:
        inhouse: the program; when it is gone, the one on the PATH.
        fail_on: ``"warning"`` or ``"info"``; ``None`` never blocks.
    """
    return _SCRIPT.format(
        mark=_MARK,
        blocks=f"a finding from '{fail_on}' up" if fail_on else "nothing; it only shows what it found",
        seconds=seconds,
        chained=CHAINED,
        inhouse=shlex.quote(str(inhouse)),
        name=NAME,
        fail_on=f" --fail-on {fail_on}" if fail_on else "",
    )


def install(repository: Repository, content: str, chain: bool) -> Installed:
    """Write the hook where git looks for it: shared by all work trees of the repository, or in ``core.hooksPath``.

    Args:
        chain: keep a hook that is there and run it first.

    Raises:
        InhouseError: there is another hook, or the folder is not this repository's own.
    """
    folder = _own_folder(repository)
    hook, before = folder / NAME, folder / CHAINED
    if (hook.exists() or hook.is_symlink()) and not _is_ours(hook):
        if not chain:
            raise InhouseError(f"There is a {NAME} hook already: {hook}.", f"Run both with --chain, or {_by_hand()}")
        if before.exists():
            raise InhouseError(f"{before} is there already.", "Look at it, and move one of the two away.")
        hook.rename(before)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{NAME}.{os.getpid()}.partial"
        partial.write_text(content, encoding="utf-8")
        partial.chmod(0o755)
        partial.replace(hook)
    except OSError as error:
        raise InhouseError(f"{hook} cannot be written: {error.strerror}.", "Make the folder writable.") from error
    return Installed(hook, before if before.exists() else None)


def uninstall(repository: Repository) -> Installed:
    """Take the hook away, and put back the one that ran before it.

    Raises:
        InhouseError: there is none of ours.
    """
    folder = _hooks_folder(repository)
    hook, before = folder / NAME, folder / CHAINED
    if not _is_ours(hook):
        raise InhouseError(f"There is no {NAME} hook of inhouse in {folder}.")
    if before.exists():
        before.replace(hook)
        return Installed(hook, before)
    hook.unlink()
    return Installed(hook, None)


def pushed_ranges(repository: Repository, lines: Iterable[str]) -> list[str]:
    """What a push brings, as ``inhouse review`` takes it, from the lines that git gives the hook.

    See githooks(5): ``<local ref> <local object> <remote ref> <remote object>``, zeros where there is none.
    """
    ranges: dict[str, None] = {}
    for line in lines:
        words = line.split()
        if len(words) != 4 or not words[1].strip("0"):
            continue  # a branch is deleted
        _, local, _, remote = words
        # A remote's commit that was never fetched is not known here.
        base = remote if remote.strip("0") and _exists(repository, remote) else main_branch(repository)
        if not _exists(repository, local):
            continue  # a tag of something that is no commit
        ranges[f"{base}...{local}" if base else local] = None
    return list(ranges)


def _exists(repository: Repository, name: str) -> bool:
    return bool(repository.git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", allow_failure=True))


def _hooks_folder(repository: Repository) -> Path:
    return Path(os.fsdecode(_users_git(repository, "rev-parse", "--path-format=absolute", "--git-path", "hooks")))


def _users_git(repository: Repository, *args: str) -> bytes:
    """One line of git with the user's own settings; ``Repository.git`` runs no hook, and so knows of none."""
    done = subprocess.run(["git", *args], cwd=repository.root, capture_output=True, check=False)
    return done.stdout.removesuffix(b"\n")


def _own_folder(repository: Repository) -> Path:
    folder = _hooks_folder(repository)
    scope = _users_git(repository, "config", "--show-scope", "--get", "core.hooksPath").partition(b"\t")[0].decode()
    if scope in ("global", "system"):
        raise InhouseError(
            f"core.hooksPath of your {scope} settings sends every repository to {folder}.", f"There, {_by_hand()}"
        )
    if scope and repository.git("ls-files", "--", str(folder), allow_failure=True):
        raise InhouseError(f"The hooks in {folder} are committed with the repository.", f"There, {_by_hand()}")
    return folder


def _by_hand() -> str:
    return (
        f"add to its {NAME}, with the hook's standard input: inhouse review {NAME} --fail-on warning; "
        "[ $? -ne 4 ] || exit 1"
    )


def _is_ours(hook: Path) -> bool:
    try:
        return _MARK in hook.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
