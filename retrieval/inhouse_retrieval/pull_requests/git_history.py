"""Pull requests as git's own history tells them: merge commits, squash commits, else plain commits. No
network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from inhouse_retrieval.pull_requests.messages import lands_a_branch, read_message, says_branches_only
from inhouse_retrieval.pull_requests.pull_request import ChangedFile, InnerCommit, PullRequest, Status
from inhouse_retrieval.repository import Repository
from inhouse_retrieval.secrets import redact

MAX_PATCH_CHARACTERS = 20_000
"""Per file. A longer patch is generated or a move of code; its tail is counted in ``omitted_lines``."""
MAX_FILES = 200
"""Per change. A larger one is a mass edit; the rest is counted in ``omitted_files``."""
MAX_INNER_COMMITS = 50
"""Of a merge. The newest stay."""
_PAGE = 2_000

_STATUS: dict[str, Status] = {"A": "added", "D": "removed", "R": "renamed", "C": "added"}


@dataclass(frozen=True, slots=True)
class _Commit:
    id: str
    parents: tuple[str, ...]
    authored: datetime
    landed: datetime
    message: str


def read_pull_requests(
    repository: Repository, until: str = "HEAD", limit: int = 100, minimum: int = 30
) -> list[PullRequest]:
    """The newest ``limit`` changes on the first-parent history of ``until``, newest first.

    When the whole history holds fewer than ``minimum`` pull requests, plain commits and merges without a number count
    as well. A merge that says no more than which branch it merged has the newest title of that branch. A commit without
    a parent here (the first one, or the edge of a shallow clone) is never a change.

    Raises:
        InhouseError: there is no commit ``until``.
    """
    start = repository.commit_id(until)
    found: list[tuple[_Commit, int | None, str, str]] = []
    numbered = plain = 0
    for commit in _first_parents(repository, start):
        if not commit.parents:
            continue
        number, title, description = read_message(commit.message, len(commit.parents))
        if number is not None:
            numbered += 1
        elif plain == limit or (len(commit.parents) > 1 and not lands_a_branch(commit.message)):
            continue
        else:
            plain += 1
        found.append((commit, number, title, description))
        if numbered == max(limit, minimum):
            break
    chosen = [item for item in found if numbered < minimum or item[1] is not None][:limit]
    address = _web_address(repository)
    return [_pull_request(repository, address, *item) for item in chosen]


def _first_parents(repository: Repository, start: str) -> Iterator[_Commit]:
    skip = 0
    while True:
        out = repository.git(
            "log", "-z", "--first-parent", "--no-show-signature", "--encoding=UTF-8", f"--skip={skip}",
            f"--max-count={_PAGE}", "--format=%H%x1f%P%x1f%at%x1f%ct%x1f%B", start,
        )  # fmt: skip
        entries = [entry for entry in out.decode("utf-8", "replace").split("\0") if entry.strip()]
        for entry in entries:
            commit, parents, authored, landed, message = entry.split("\x1f", 4)
            yield _Commit(commit.strip(), tuple(parents.split()), _when(authored), _when(landed), message.strip())
        if len(entries) < _PAGE:
            return
        skip += _PAGE


def _when(seconds: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):  # git stores what a broken clock said
        return datetime.fromtimestamp(0, UTC)


def _pull_request(
    repository: Repository,
    address: str | None,
    commit: _Commit,
    number: int | None,
    title: str,
    description: str,
) -> PullRequest:
    parent = commit.parents[0]
    files, omitted = _changed_files(repository, parent, commit.id)
    created, inner = _inside(repository, commit)
    if number is None and inner and says_branches_only(title):
        first, _, description = description.partition("\n")
        title, description = first.strip() or inner[-1].subject, description.strip()
    return PullRequest(
        number,
        redact(title)[0],
        redact(description)[0],
        address % number if address is not None and number is not None else None,
        created,
        commit.landed,
        commit.id,
        parent,
        files,
        omitted_files=omitted,
        commits=inner,
    )


def _inside(repository: Repository, commit: _Commit) -> tuple[datetime, tuple[InnerCommit, ...]]:
    """When the first commit that a merge brought was written, and what it brought, oldest first, without merges."""
    if len(commit.parents) < 2:
        return commit.authored, ()
    out = repository.git(
        "log", "-z", "--no-merges", "--topo-order", "--no-show-signature", "--encoding=UTF-8",
        "--format=%H%x1f%at%x1f%s", f"{commit.parents[0]}..{commit.parents[1]}", allow_failure=True,
    ).decode("utf-8", "replace")  # fmt: skip
    # Not white space: to Python that is the separator, too, and a commit may have no subject.
    rows = [entry.strip("\n").split("\x1f", 2) for entry in out.split("\0") if entry.strip("\n")]
    created = min((_when(authored) for _, authored, _ in rows), default=commit.authored)
    return created, tuple(
        InnerCommit(name, redact(subject)[0]) for name, _, subject in reversed(rows[:MAX_INNER_COMMITS])
    )


def _web_address(repository: Repository) -> str | None:
    """Pattern of a pull request's address, from the remote that the clone came from."""
    origin = read_origin(repository)
    if origin is None:
        return None
    host, path = origin
    form = "-/merge_requests" if "gitlab" in host else "pull-requests" if "bitbucket" in host else "pull"
    return f"https://{host}/{path}/{form}/%d"


def read_origin(repository: Repository) -> tuple[str, str] | None:
    """Host and path, such as ``("github.com", "owner/name")``, of the remote that the clone came from; ``None`` where
    that is no web address. Credentials are left out."""
    remote = repository.git("config", "--get", "remote.origin.url", allow_failure=True).decode("utf-8", "replace")
    match = re.match(
        r"(?:(?:https?|ssh|git)://(?:[^@/\s]*@)?(?P<host>[\w.-]+)(?::\d+)?/|(?:[^@/\s]+@)(?P<scp>[\w.-]+):)"
        r"(?P<path>[\w./~-]+?)(?:\.git)?/?\s*$",
        remote,
    )
    if match is None:
        return None
    return match["host"] or match["scp"], match["path"]


def _changed_files(repository: Repository, parent: str, commit: str) -> tuple[tuple[ChangedFile, ...], int]:
    options = ("-r", "--no-commit-id", "--find-renames", "--no-ext-diff", "--no-textconv", "--no-color")
    out = repository.git("diff-tree", *options, "--raw", "-z", parent, commit).split(b"\0")
    entries: list[tuple[str, str, str, bool]] = []
    omitted = 0
    at = 0
    while at < len(out) and out[at].startswith(b":"):
        old_mode, new_mode, _, _, status = out[at][1:].decode().split(" ")
        pair = status[0] in "RC"
        old, new = out[at + 1], out[at + 2] if pair else out[at + 1]
        at += 3 if pair else 2
        if len(entries) == MAX_FILES:
            omitted += 1
            continue
        try:
            path, before = new.decode(), old.decode()
        except UnicodeDecodeError:
            omitted += 1
            continue
        regular = not {old_mode, new_mode} & {"120000", "160000"}
        wanted = regular and repository.reason_by_name(path) is None and repository.reason_by_name(before) is None
        entries.append((path, before, status[0], wanted))
    wanted_paths = sorted({name for path, before, _, wanted in entries if wanted for name in (path, before)})
    patches: list[str] = []
    if wanted_paths:
        pathspecs = [f":(top,literal){path}" for path in wanted_paths]
        raw = repository.git("diff-tree", *options, "--patch", "--unified=3", parent, commit, "--", *pathspecs)
        # Within a patch, lines begin with a sign or a space, so this can only be a header.
        patches = re.split(r"^diff --git ", raw.decode("utf-8", "replace"), flags=re.M)[1:]
    in_order = sum(wanted for *_, wanted in entries) == len(patches)
    files: list[ChangedFile] = []
    following = iter(patches)
    for path, before, letter, wanted in entries:
        patch = ""
        if wanted and in_order:
            patch = next(following)
        elif wanted:  # a file that became another kind has two headers
            pathspecs = [f":(top,literal){name}" for name in {path, before}]
            raw = repository.git("diff-tree", *options, "--patch", parent, commit, "--", *pathspecs)
            patch = raw.decode("utf-8", "replace")
        former = before if before != path else ""
        status = _STATUS.get(letter, "modified")
        files.append(ChangedFile(path, status, *shortened(patch), *count_lines(patch), former))
    return tuple(files), omitted


def count_lines(patch: str) -> tuple[int, int]:
    """How many lines a patch of one file adds and takes away."""
    hunks = re.search(r"^@@", patch, flags=re.M)
    signs = [line[:1] for line in patch[hunks.start() :].split("\n")] if hunks else []
    return signs.count("+"), signs.count("-")


def shortened(patch: str) -> tuple[str, int]:
    """The hunks, redacted, and how many lines were cut off at :data:`MAX_PATCH_CHARACTERS`."""
    start = re.search(r"^@@", patch, flags=re.M)
    if start is None:
        return "", 0
    hunks = redact(patch[start.start() :].rstrip("\n").replace("\r\n", "\n"))[0]
    if len(hunks) <= MAX_PATCH_CHARACTERS:
        return hunks, 0
    cut = hunks.rfind("\n", 0, MAX_PATCH_CHARACTERS)
    kept = hunks[: cut if cut > 0 else MAX_PATCH_CHARACTERS]
    return kept, hunks.count("\n") - kept.count("\n")
