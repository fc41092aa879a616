"""inhouse/status: what the owner holds, as ``inhouse status --json`` shows it to who may administrate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inhouse_server.background import run_in_thread

if TYPE_CHECKING:
    from inhouse_server.language_server.server import InhouseServer

METHOD = "inhouse/status"


async def status(ls: InhouseServer, params: Any) -> dict[str, Any]:
    return await run_in_thread(lambda: ls.house.status(ls.administrates))
