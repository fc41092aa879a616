"""When a wiki page was last changed: what a search needs to know of it, since newer code comes before an older page."""

from __future__ import annotations

from dataclasses import dataclass

from inhouse_retrieval.history_votes import ChangeVotes
from inhouse_retrieval.repository import Repository
from inhouse_retrieval.wiki import Wiki


@dataclass(frozen=True, slots=True)
class DatedPages:
    """What a search asks about wiki pages."""

    repository: Repository
    wiki: Wiki
    votes: ChangeVotes

    def is_page(self, path: str) -> bool:
        return self.wiki.is_page(path)

    def last_changed(self, path: str) -> int | None:
        if self.wiki.holds(path):
            return self.wiki.last_changed(path)
        known = self.votes.last_changed(path)
        if known is None and self.wiki.is_page(path) and self.repository.git("ls-files", "--", f":(top,literal){path}"):
            # Untouched by every change that is known: older than the oldest of them.
            oldest = self.votes.oldest()
            return oldest - 1 if oldest is not None else None
        return known

    def is_edited(self, path: str) -> bool:
        if self.wiki.holds(path):
            return False  # its date is that of the edit
        return bool(self.repository.git("diff", "--name-only", "HEAD", "--", f":(top,literal){path}"))
