"""Bringing the store up to the forge: the pull requests that were merged last, and of these only what is new."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from inhouse_retrieval.progress import Progress, no_progress
from inhouse_retrieval.pull_requests import github, gitlab
from inhouse_retrieval.pull_requests.forge import (
    Clock,
    Forge,
    ForgeConnection,
    ForgeReader,
    ForgeRefusal,
    Listed,
)
from inhouse_retrieval.pull_requests.store import PullRequestStore

_LISTING_IS_VALID = 3600.0
"""Seconds for which a sync that was killed goes on with the listing that it had; after that it is asked anew."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync came to.

    Attributes:
        stored: pull requests in the store now.
        requests: that were sent; ``not_modified`` of them cost nothing.
        waited: seconds that the forge's limits, or its failures, had us wait.
        missing: number -> the parts of that pull request which the forge would not give.
    """

    new: int
    changed: int
    unchanged: int
    stored: int
    requests: int
    not_modified: int
    waited: float
    missing: dict[int, list[str]]


async def sync_pull_requests(
    forge: Forge,
    store: PullRequestStore,
    limit: int = 100,
    progress: Progress = no_progress,
    clock: Clock | None = None,
) -> SyncReport:
    """Read the ``limit`` pull requests of the default branch that were merged last, and keep what changed.

    A pull request is read again when the forge says that it was updated, which comments do. Older ones stay in the
    store as they were. A sync that was killed goes on where it was.

    Raises:
        InhouseError: the forge refuses, cannot be reached, or does not answer as its API documents.
        StateUnwritable: the store cannot be written.
        Cancelled: ``progress`` raised it.
    """
    clock = clock or Clock()
    store.belong_to(f"{forge.kind} {forge.address} {forge.project}")
    async with ForgeConnection(forge, store, progress, clock) as connection:
        reader: ForgeReader = (
            github.GitHub(forge, connection) if forge.kind == "github" else gitlab.GitLab(forge, connection)
        )
        version = store.begin_sync(clock.now(), _LISTING_IS_VALID)
        new = changed = unchanged = 0
        try:
            wanted = await _merged_last(reader, version, limit, progress)
            for done, listed in enumerate(wanted):
                progress("reading pull requests", done, len(wanted))
                known = store.version(listed.number)
                if known == listed.version:
                    unchanged += 1
                    continue
                change, missing = await reader.details(listed)
                store.put(change, listed.version, missing)
                new += known is None
                changed += known is not None
            progress("reading pull requests", len(wanted), len(wanted))
        except ForgeRefusal:
            # The listing is not true any more, such as when a pull request was deleted; the next sync asks anew.
            store.end_sync()
            raise
        store.end_sync()
        return SyncReport(
            new,
            changed,
            unchanged,
            len(store),
            connection.requests,
            connection.not_modified,
            connection.waited,
            store.missing(),
        )


async def _merged_last(reader: ForgeReader, version: str, limit: int, progress: Progress) -> list[Listed]:
    """The pull requests that were merged last, newest first.

    Forges list by last update and not by merge. But nothing is merged after its last update, so once ``limit`` merged
    ones are newer than a page's last update, no later page has one that is newer still.
    """
    merged: dict[int, tuple[datetime, Listed]] = {}
    progress("listing pull requests", 0, None)
    async for page in reader.listing(version):
        for listed in page:
            if listed.merged_at is not None:
                merged[listed.number] = (listed.merged_at, listed)
        progress("listing pull requests", len(merged), None)
        newest = sorted(merged.values(), key=lambda item: (item[0], item[1].number), reverse=True)[:limit]
        if len(newest) == limit and page and page[-1].updated_at <= newest[-1][0]:
            break
    newest = sorted(merged.values(), key=lambda item: (item[0], item[1].number), reverse=True)[:limit]
    return [listed for _, listed in newest]
