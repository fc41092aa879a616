"""What one editor has open. Its buffers, saved or not, stand for the files on disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from inhouse_retrieval import Repository
from inhouse_server.language_server.checkout import Checkout
from inhouse_server.position_encodings import UTF16
from inhouse_server.text_sync import Edit, apply_edits


class OpenDocuments:
    """Texts by URI. Files outside the repository or ignored by git, and inhouse's and git's own, are never searched."""

    def __init__(self, repository: Repository, state_dir: Path, checkout: Checkout) -> None:
        self._repository = repository
        self._checkout = checkout
        self._state_dir = state_dir
        self._texts: dict[str, tuple[str | None, str]] = {}
        self._versions: dict[str, int] = {}

    def open(self, uri: str, text: str, version: int = 0) -> None:
        self._versions[unquote(uri)] = version
        self._texts[unquote(uri)] = (self._readable_path(uri), text)

    def change(self, uri: str, edits: Iterable[Edit], encoding: str = UTF16, version: int = 0) -> None:
        """Apply ``edits``; a document that is not open has nothing to change."""
        if (held := self._texts.get(unquote(uri))) is not None:
            path, text = held
            self._versions[unquote(uri)] = version
            self._texts[unquote(uri)] = (path, apply_edits(text, edits, encoding))

    def close(self, uri: str) -> None:
        self._texts.pop(unquote(uri), None)
        self._versions.pop(unquote(uri), None)

    def text(self, uri: str) -> str | None:
        """The text of an open document."""
        held = self._texts.get(unquote(uri))
        return held[1] if held else None

    def version(self, uri: str) -> int | None:
        """The editor's number of the text that is held."""
        return self._versions.get(unquote(uri))

    def by_path(self) -> dict[str, str]:
        """Texts by path relative to the repository root: a snapshot that later edits do not change."""
        return {path: text for path, text in self._texts.values() if path is not None}

    def _readable_path(self, uri: str) -> str | None:
        path = self._checkout.path_of(uri)
        if path is None or path.split("/", 1)[0] == ".git":
            return None
        inhouses_own = (self._repository.root / path).is_relative_to(self._state_dir)
        return None if inhouses_own or self._repository.is_ignored(path) else path
