"""When a wiki page was last changed: what a search needs to know of it, since newer code comes before an older page."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from inhouse_retrieval.history_votes import ChangeVotes
from inhouse_retrieval.html_pages import is_html, own_date
from inhouse_retrieval.repository import Repository
from inhouse_retrieval.wiki import Wiki


@dataclass(frozen=True, slots=True)
class DatedPages:
    """What one search asks about wiki pages; each date is looked up once."""

    repository: Repository
    wiki: Wiki
    votes: ChangeVotes
    _looked_up: dict[str, tuple[int | None, bool]] = field(default_factory=dict)

    def is_page(self, path: str) -> bool:
        return self.wiki.is_page(path)

    def last_changed(self, path: str) -> int | None:
        return self._date(path)[0]

    def is_untouched(self, path: str) -> bool:
        return self._date(path)[1]

    def _date(self, path: str) -> tuple[int | None, bool]:
        """Seconds since 1970, and whether they are a bound."""
        if path not in self._looked_up:
            said, oldest = self._said(path), self.votes.oldest()
            if said is None and oldest is not None and self._is_committed_page(path):
                # Untouched by every change that is known: older than the oldest of them.
                self._looked_up[path] = oldest - 1, True
            else:
                self._looked_up[path] = said, False
        return self._looked_up[path]

    def _is_committed_page(self, path: str) -> bool:
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
