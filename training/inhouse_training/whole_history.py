"""The cut that cuts nothing off: what `--all-data` trains on."""

from __future__ import annotations

import hashlib
from datetime import datetime

from inhouse_retrieval import PullRequestStore, Repository, exports_digest, read_pull_requests, with_forge

from .dataset import Cut
from .documents import change_document
from .recipe import Recipe
from .written_conversations import read_conversations


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
