"""What is reviewed, whatever it was given as: a range, what is staged, a pull request, a patch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from inhouse_retrieval import InhouseError, Progress, Repository, no_progress, read_changes
from inhouse_server.review.change import Change
from inhouse_server.review.patch import read_patch
from inhouse_server.review.trees import Trees


def read_change(
    repository: Repository,
    revisions: str | None = None,
    *,
    staged: bool = False,
    pull_request: int | None = None,
    target: str | None = None,
    patch: bytes | None = None,
    copy_to: Path | None = None,
    progress: Progress = no_progress,
) -> Change:
    """Read what is to be reviewed; with nothing named, all that is here and not on the main branch yet.

    Args:
        revisions: ``BASE..HEAD``, ``BASE...HEAD``, or ``HEAD`` alone, which is compared with its parent.
        staged: what the next commit would hold.
        pull_request: one whose head was fetched to ``refs/pull/N/head``, or a merged one of the history.
        target: the branch that the pull request goes to; by default the main branch.
        patch: a unified diff against HEAD.
        copy_to: an empty folder that the whole repository is written to, as the change leaves it.

    Raises:
        NoCommits: there is nothing to compare with yet.
        InhouseError: more than one of them, no such revision, or a patch that does not apply.
    """
    if sum((revisions is not None, staged, pull_request is not None, patch is not None)) > 1:
        raise InhouseError(
            "Only one thing can be reviewed at a time.", "Give a range, --staged, --pr or --diff, and no two of them."
        )
    repository.head()  # without a commit there is nothing to compare with
    with Trees(repository, progress, copy_to) as trees:
        if patch is not None:
            given = read_patch(patch)
            tree = trees.of_patch(given)
            return trees.change("HEAD", "the patch", repository.head(), "", tree, given.binary, given.notes)
        if staged:
            return trees.change("HEAD", "what is staged", repository.head(), "", trees.of_index())
        if pull_request is not None:
            base, head, name = _pull_request(repository, pull_request, target)
            return trees.change(base[:12], name, base, head, head)
        if revisions is not None:
            base, head = _range(repository, revisions)
            return trees.change(base[:12], head[:12], base, head, head)
        base, name = review_base(repository)
        return trees.change(name, "the work tree", base, "", trees.of_work_tree())


def review_base(repository: Repository) -> tuple[str, str]:
    """The commit that the work tree is compared with, where HEAD left the main branch; and that branch's name.

    Raises:
        InhouseError: there is no commit, or the two have none in common.
    """
    main = main_branch(repository)
    return (_merge_base(repository, main, "HEAD"), main) if main else (repository.head(), "HEAD")


def main_branch(repository: Repository) -> str | None:
    """The branch that changes go to: the remote's, else a local ``main`` or ``master``."""
    asked = repository.git("symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD", allow_failure=True)
    for name in (asked.decode("utf-8", "replace").strip(), "origin/main", "origin/master", "main", "master"):
        if name and _exists(repository, f"{name}^{{commit}}"):
            return name
    return None


def _exists(repository: Repository, revision: str) -> bool:
    return bool(repository.git("rev-parse", "--verify", "--quiet", revision, allow_failure=True))


def _range(repository: Repository, revisions: str) -> tuple[str, str]:
    base, dots, head = revisions.partition("..")
    if not dots:
        commit = repository.commit_id(revisions)
        parents = repository.git("rev-list", "--parents", "-1", commit).decode().split()[1:]
        if not parents:
            raise InhouseError(f"{revisions} has no parent to compare with.", "Name a range, BASE..HEAD.")
        return parents[0], commit
    if head.startswith("."):
        base, head = base or "HEAD", head[1:] or "HEAD"
        return _merge_base(repository, base, head), repository.commit_id(head)
    return repository.commit_id(base or "HEAD"), repository.commit_id(head or "HEAD")


def _merge_base(repository: Repository, base: str, head: str) -> str:
    sides = repository.commit_id(base), repository.commit_id(head)
    found = repository.git("merge-base", *sides, allow_failure=True).decode().split()
    if not found:
        raise InhouseError(f"{base} and {head} have no common commit.", "Name the range to review, BASE..HEAD.")
    return found[0]


def fetched(number: int, kind: Literal["github", "gitlab"] = "github") -> str:
    """What ``git fetch origin`` is asked for, so that pull request ``number`` can be reviewed."""
    name = f"{'merge-requests' if kind == 'gitlab' else 'pull'}/{number}/head"
    return f"+{name}:refs/{name}"


def _pull_request(repository: Repository, number: int, target: str | None) -> tuple[str, str, str]:
    target = target or main_branch(repository) or "HEAD"
    # What was fetched first: a commit's title may name a number of another project, or an issue's.
    for ref in (f"refs/pull/{number}/head", f"refs/merge-requests/{number}/head"):
        if _exists(repository, ref):
            base, head = _merge_base(repository, target, ref), repository.commit_id(ref)
            if base != head:  # else it was merged as it is, and the history knows what it was compared with
                return base, head, f"#{number}"
    for change in read_changes(repository):
        if change.number == number and change.parents:
            return repository.commit_id(f"{change.commit}^1"), change.commit, f"#{number}"
    raise InhouseError(
        f"Pull request #{number} is not in this clone.",
        f"Fetch it: git fetch origin {fetched(number)}; on GitLab: git fetch origin {fetched(number, 'gitlab')}",
    )
