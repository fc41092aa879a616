"""Where the past ends: what may be trained on, and the later changes that judge what comes of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from inhouse_retrieval import (
    InhouseError,
    PullRequest,
    PullRequestStore,
    Repository,
    exports_digest,
    read_pull_requests,
    redact,
    said_until,
    with_forge,
)

from .documents import added_lines, change_document, shorten
from .recipe import Recipe
from .written_conversations import WrittenConversation, read_conversations

HELD_OUT = 30
HELD_OUT_SHARE = 0.1
LEAST_HELD_OUT = 5


@dataclass(frozen=True, slots=True)
class HeldOutChange:
    """A later change that the adapter never saw, reduced to what evaluation scores.

    Attributes:
        path: the file of the change that it adds most text to.
        added: the added lines of that file, in order.
    """

    commit: str
    title: str
    path: str
    added: str


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the past ends: what may be trained on, and the later changes that judge it.

    Attributes:
        snapshot: the commit trained on, parent of the oldest held-out change.
        as_of: when that commit was made.
        training: changes up to the snapshot, newest first; with what the forge says of them, where it was asked, and
        of the comments those that were written by then.
        held_out: changes after it, newest first, as git alone tells them.
        forge: a digest of what the forge adds to the training changes; empty when it adds nothing.
        later_comments: comments on training changes that were written, or last edited, after the snapshot.
        conversations: what people wrote to be learned. No commit dates them.
        exports: a digest of the exported chat, tickets and mail; empty when none are named.
    """

    snapshot: str
    as_of: datetime
    training: tuple[PullRequest, ...]
    held_out: tuple[PullRequest, ...]
    forge: str = ""
    later_comments: int = 0
    conversations: tuple[WrittenConversation, ...] = ()
    exports: str = ""


def cut_repository(repository: Repository, recipe: Recipe, store: PullRequestStore | None = None) -> Cut:
    """Read the newest changes and cut them.

    Args:
        store: what the forge says about changes.

    Raises:
        InhouseError: the history is too short to hold anything out, or hand-made conversations or exports cannot be
            read.
    """
    changes = read_pull_requests(repository, limit=recipe.data.changes)
    return _cut_at(repository, store, changes, cut_position(changes))


def selection_cut(
    repository: Repository, recipe: Recipe, store: PullRequestStore | None = None
) -> tuple[Cut, tuple[PullRequest, ...]]:
    """A cut for choosing between ways of training, and the changes to choose by, newest first.

    What is chosen by a set of changes looks better on them than it is. So those that choose are never those that judge:
    the changes that :func:`cut_repository` holds out stay unseen here, too, and the same number of changes is held out
    once more from what lies before them. The cut holds out both, so that nothing of either is learned.

    Raises:
        InhouseError: the history is too short to hold anything out twice, or as :func:`cut_repository`.
    """
    changes = read_pull_requests(repository, limit=recipe.data.changes)
    judging = cut_position(changes)
    try:
        position = judging + cut_position(changes[judging:])
    except InhouseError as error:
        raise InhouseError(
            f"The history is too short to choose a recipe by: of {len(changes)} changes the newest {judging} will "
            "judge what comes of it, and too few are left before them to choose by and to train on.",
            "Train with a recipe that comes with inhouse until there are more commits; a shallow clone needs "
            "`git fetch --unshallow` first.",
        ) from error
    return _cut_at(repository, store, changes, position), tuple(changes[judging:position])


def _cut_at(
    repository: Repository, store: PullRequestStore | None, changes: Sequence[PullRequest], position: int
) -> Cut:
    """Hold the newest ``position`` changes out."""
    oldest = changes[position - 1]
    stamp = repository.git("show", "-s", "--format=%cI", oldest.parent).decode("ascii").strip()
    as_of = datetime.fromisoformat(stamp)
    told = with_forge(changes[position:], store)
    training = tuple(said_until(change, as_of) for change in told)
    return Cut(
        oldest.parent,
        as_of,
        training,
        tuple(changes[:position]),
        _added_by_forge(training, changes[position:]) if store else "",
        sum(len(change.said) for change in told) - sum(len(change.said) for change in training),
        read_conversations(repository.root, repository.conversations),
        exports_digest(repository.root, repository.exports),
    )


def _added_by_forge(training: Sequence[PullRequest], bare: Sequence[PullRequest]) -> str:
    """A hash of what the forge says of the changes to train on; empty when it adds nothing to git's history."""
    documents = repr([change_document(change) for change in training])
    if documents == repr([change_document(change) for change in bare]):
        return ""
    return hashlib.sha256(documents.encode("utf-8", "surrogateescape")).hexdigest()


def cut_position(changes: Sequence[PullRequest]) -> int:
    """How many of the newest changes are held out.

    ``max(30, 10 %)`` that add text and can be scored, but never more than half of all changes: a shorter
    history holds out half of what it has.

    Raises:
        InhouseError: fewer than five changes could be scored, or the oldest of them has no parent.
    """
    half = len(changes) // 2
    wanted = max(HELD_OUT, math.ceil(HELD_OUT_SHARE * len(changes)))
    scored = position = 0
    while position < half and scored < wanted:
        scored += held_out_change(changes[position]) is not None
        position += 1
    if scored < LEAST_HELD_OUT or not changes[position - 1].parent:
        raise InhouseError(
            f"The history is too short to train and to test on: of {len(changes)} changes {scored} could be "
            f"held out, and at least {LEAST_HELD_OUT} must be.",
            "Index and ask without an adapter until there are more commits; a shallow clone needs "
            "`git fetch --unshallow` first.",
        )
    return position


def held_out_change(change: PullRequest) -> HeldOutChange | None:
    """What evaluation scores of a change; ``None`` when it adds no text."""
    added = {file.path: added_lines(file.patch) for file in change.files}
    path = max(added, key=lambda name: len(added[name]), default=None)
    if path is None or not added[path].strip():
        return None
    return HeldOutChange(change.commit, redact(shorten(change.title))[0], path, redact(added[path])[0])


def whole_history(repository: Repository, recipe: Recipe, store: PullRequestStore | None = None) -> Cut:
    """A cut that holds nothing out: everything up to the newest commit is trained on, and nothing is left to judge by.

    Raises:
        InhouseError: there is no commit, or hand-made conversations or exports cannot be read.
    """
    head = repository.head()
    stamp = repository.git("show", "-s", "--format=%cI", head).decode("ascii").strip()
    told = with_forge(read_pull_requests(repository, limit=recipe.data.changes), store)
    documents = repr([change_document(change) for change in told])
    return Cut(
        head,
        datetime.fromisoformat(stamp),
        tuple(told),
        (),
        hashlib.sha256(documents.encode("utf-8", "surrogateescape")).hexdigest(),
        0,
        read_conversations(repository.root, repository.conversations),
        exports_digest(repository.root, repository.exports),
    )
