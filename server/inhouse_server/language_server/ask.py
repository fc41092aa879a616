"""inhouse/ask: a question whose answer streams through ``$/progress`` as it is written.

Parameters: ``question``, and optionally ``textDocument`` with ``range`` (the marked code), ``adapter``, ``history``
(earlier turns, oldest first, each ``{"role": "user" or "assistant", "content": …}``), ``partialResultToken`` (deltas
arrive as ``{"text": …}`` under it) and ``workDoneToken``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsprotocol import types

from inhouse_server.language_server.progress import work
from inhouse_server.language_server.questions import AskParams, answer, result

if TYPE_CHECKING:
    from inhouse_server.language_server.server import InhouseServer

METHOD = "inhouse/ask"


async def ask(ls: InhouseServer, params: Any) -> dict[str, Any]:
    asked = AskParams.model_validate(params)
    stream_token = asked.partial_result_token

    def send(text: str) -> None:
        if stream_token is not None:
            ls.progress(types.ProgressParams(stream_token, {"text": text}))

    async with work(ls, "inhouse", asked.work_done_token) as job:
        answered = await answer(ls, asked, job, send)
    ls.last_answer = answered.text
    return result(answered, ls.checkout, streamed=stream_token is not None)
