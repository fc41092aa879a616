"""textDocument/didSave: the index follows what was saved, and so do the findings of a review and the lenses."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

from lsprotocol import types

from inhouse_retrieval import InhouseError
from inhouse_server.background import run_in_thread
from inhouse_server.language_server import code_lens, review_command

if TYPE_CHECKING:
    from inhouse_server.language_server.server import InhouseServer
    from inhouse_server.workspace import Workspace

logger = logging.getLogger(__name__)


def did_save(ls: InhouseServer, params: types.DidSaveTextDocumentParams) -> None:
    path = ls.checkout.path_of(params.text_document.uri)
    if ls.checkout.elsewhere is None and path is not None:
        ls.spawn(ls.saves.refresh(path))
        ls.spawn(review_command.after_save(ls))
        ls.spawn(code_lens.after_save(ls))


class RefreshOnSave:
    """At most one refresh at a time; saves during one are followed by one more, not by one each."""

    def __init__(self, house: Workspace) -> None:
        self._house = house
        self._running = False
        self._saved: set[str] = set()

    async def refresh(self, path: str) -> None:
        self._saved.add(path)
        if self._running:
            return
        self._running = True
        try:
            while self._saved:
                paths, self._saved = self._saved, set()
                await run_in_thread(functools.partial(self._house.refresh_files, paths))
        except InhouseError as error:
            # Nothing is lost: search notices files that changed, and the next save tries again.
            logger.warning("the index was not refreshed after saving: %s", error)
        finally:
            self._running = False
