"""textDocument/codeLens: "Review this change" at the top of a file that is not as it is on the main branch.

Git looks beside the messages. What it has not said within a moment is left out, and the editor is told to ask again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from inhouse_retrieval import InhouseError
from inhouse_server.background import run_in_thread
from inhouse_server.language_server import review_command
from inhouse_server.review.diff import review_base

if TYPE_CHECKING:
    from inhouse_server.language_server.server import InhouseServer
    from inhouse_server.workspace import Workspace

logger = logging.getLogger(__name__)
_AT_MOST_S = 0.05


class ChangedFiles:
    """Which files differ from the commit that a review compares with; known until the file or HEAD changes."""

    def __init__(self, house: Workspace) -> None:
        self._house = house
        self._lock = threading.Lock()
        self._head: str | None = None
        self._base = ""
        self._known: dict[tuple[str, str], bool] = {}

    def differs(self, path: str) -> bool:
        """Whether the file at ``path``, as it is on disk, differs; ``False`` where git cannot say."""
        repository = self._house.repository
        try:
            blob = repository.current_blob(path)
            if blob is None:
                return False
            head = self._house.index.commit()
            with self._lock:
                if head is None or head != self._head:
                    self._base, self._head, self._known = review_base(repository)[0], head, {}
                if (path, blob) not in self._known:
                    there = repository.git("ls-tree", "-z", "--full-tree", self._base, "--", f":(top,literal){path}")
                    self._known[path, blob] = there.split(b"\t")[0].split()[2:] != [blob.encode()]
                return self._known[path, blob]
        except InhouseError as error:
            logger.info("no code lens: %s", error)
            return False


async def code_lens(ls: InhouseServer, params: types.CodeLensParams) -> list[types.CodeLens]:
    path = ls.checkout.path_of(params.text_document.uri)
    ability = ls.client_capabilities.text_document
    # Of a checkout elsewhere, nothing on this machine says what changed.
    if path is None or ls.checkout.elsewhere is not None or ability is None or ability.code_lens is None:
        return []
    looking = asyncio.ensure_future(run_in_thread(lambda: ls.changed.differs(path)))
    done, _ = await asyncio.wait({looking}, timeout=_AT_MOST_S)
    if not done:
        ls.spawn(_tell_when_known(ls, looking))
        return []
    if not looking.result():
        return []
    command = types.Command("Review this change", review_command.COMMAND)
    return [types.CodeLens(types.Range(types.Position(0, 0), types.Position(0, 0)), command)]


async def after_save(ls: InhouseServer) -> None:
    """Lenses may come or go now; an editor asks for them when text changes, which is before it is saved."""
    workspace = ls.client_capabilities.workspace
    if workspace is not None and workspace.code_lens is not None and workspace.code_lens.refresh_support:
        with contextlib.suppress(JsonRpcException):  # an editor that refuses has lenses as they were
            await ls.workspace_code_lens_refresh_async(None)


async def _tell_when_known(ls: InhouseServer, looking: asyncio.Future[bool]) -> None:
    if await looking:
        await after_save(ls)
