"""When a wiki page was last changed: what a search needs to know of it, since newer code comes before an older page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from inhouse_retrieval.history_votes import ChangeVotes
from inhouse_retrieval.html_pages import is_html, own_date
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
        said = self._said(path)
        if said is None and self.is_untouched(path):
            oldest = self.votes.oldest()
            return oldest - 1 if oldest is not None else None
        return said

    def is_untouched(self, path: str) -> bool:
        """Whether a committed page was last changed before the oldest change that is known."""
        if self.votes.oldest() is None or self._said(path) is not None:
            return False
        if self.wiki.holds(path) or not self.wiki.is_page(path):
            return False
        return bool(self.repository.git("ls-tree", "--name-only", "--full-tree", "HEAD", "--", path))

    def _said(self, path: str) -> int | None:
        if self.wiki.holds(path):
            return self.wiki.last_changed(path)
        if is_html(path) and self.wiki.is_page(path):
            read = self.repository.read_current(path)
            said = own_date(read[1], datetime.now(UTC)) if isinstance(read, tuple) else None
            if said is not None:
                return int(said.timestamp())
        return self.votes.last_changed(path)

    def is_edited(self, path: str) -> bool:
        if self.wiki.holds(path):
            return False  # its date is that of the edit
        return bool(self.repository.git("diff", "--name-only", "HEAD", "--", f":(top,literal){path}"))
