"""What one editor has open. Its buffers, saved or not, stand for the files on disk."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from inhouse_retrieval import InhouseError, Repository
from inhouse_server.background import run_in_thread
from inhouse_server.language_server.checkout import Checkout
from inhouse_server.position_encodings import UTF16
from inhouse_server.text_sync import Edit, apply_edits

MAX_OPEN_BYTES = 64 * 2**20
"""Of memory, for all that one editor has open: who opens more gets no more of the server's. It is the text of some
thousand files."""


@dataclass(slots=True)
class _Document:
    """One that is open.

    Attributes:
        path: in the repository; ``None`` where it is never searched, whatever git says.
        version: the editor's number of the text.
        size: in bytes of memory.
        ignored: by git; ``None`` until that was asked.
    """

    path: str | None
    text: str
    version: int
    size: int
    ignored: bool | None = None


class OpenDocuments:
    """Texts by URI. Files outside the repository or ignored by git, and inhouse's and git's own, are never searched.

    Beyond :data:`MAX_OPEN_BYTES` a document is not held: it counts as not open, and its file is read from disk.

    Attributes:
        refused: a document was not held.
    """

    def __init__(self, repository: Repository, state_dir: Path, checkout: Checkout) -> None:
        self._repository = repository
        self._checkout = checkout
        self._state_dir = state_dir
        self._open: dict[str, _Document] = {}
        self._bytes = 0
        self.refused = False

    def open(self, uri: str, text: str, version: int = 0) -> None:
        self._hold(unquote(uri), self._searchable_path(uri), text, version)

    def change(self, uri: str, edits: Iterable[Edit], encoding: str = UTF16, version: int = 0) -> None:
        """Apply ``edits``; a document that is not open has nothing to change."""
        if (held := self._open.get(unquote(uri))) is not None:
            self._hold(unquote(uri), held.path, apply_edits(held.text, edits, encoding), version, held.ignored)

    def close(self, uri: str) -> None:
        self._let_go(unquote(uri))

    def text(self, uri: str) -> str | None:
        """The text of an open document."""
        held = self._open.get(unquote(uri))
        return held.text if held else None

    def version(self, uri: str) -> int | None:
        """The editor's number of the text that is held."""
        held = self._open.get(unquote(uri))
        return held.version if held else None

    async def searched_text(self, uri: str) -> str | None:
        """The text of an open document that may be searched, as it is when this is called."""
        held = self._open.get(unquote(uri))
        return next(iter((await self._searched([held])).values()), None) if held else None

    async def by_path(self) -> dict[str, str]:
        """Texts by path relative to the repository root, as they are when this is called: a snapshot that later edits
        do not change."""
        return await self._searched(self._open.values())

    async def _searched(self, documents: Collection[_Document]) -> dict[str, str]:
        """Git is asked about each document once, when it first matters, and never on the event loop."""
        taken = [(document.path, document) for document in documents if document.path is not None]
        if unknown := [(path, document) for path, document in taken if document.ignored is None]:
            answers = await run_in_thread(lambda: [self._is_ignored(path) for path, _ in unknown])
            for (_, document), ignored in zip(unknown, answers, strict=True):
                document.ignored = ignored
        return {path: document.text for path, document in taken if not document.ignored}

    def _let_go(self, key: str) -> None:
        if (held := self._open.pop(key, None)) is not None:
            self._bytes -= held.size

    def _hold(self, key: str, path: str | None, text: str, version: int, ignored: bool | None = None) -> None:
        self._let_go(key)
        # The address stands for itself, for the path, and for the objects around them.
        size = sys.getsizeof(text) + 4 * sys.getsizeof(key)
        if self._bytes + size > MAX_OPEN_BYTES:
            self.refused = True
            return
        self._open[key] = _Document(path, text, version, size, ignored)
        self._bytes += size

    def _searchable_path(self, uri: str) -> str | None:
        path = self._checkout.path_of(uri)
        if path is None or path.split("/", 1)[0] == ".git":
            return None
        inhouses_own = (self._repository.root / path).is_relative_to(self._state_dir)
        return None if inhouses_own else path

    def _is_ignored(self, path: str) -> bool:
        try:
            return self._repository.is_ignored(path)
        except InhouseError:  # git cannot even be asked for such a name
            return True
