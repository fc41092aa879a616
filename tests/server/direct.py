"""An editor that speaks with the server object itself, for what needs neither a relay nor an owner process."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

from inhouse_retrieval import EVERYWHERE, Within
from inhouse_server.language_server.connection import QueueWriter, receive
from inhouse_server.language_server.server import build_server
from inhouse_server.workspace import Workspace


class Client:
    """One connection to the language server of ``house``."""

    def __init__(self, house: Workspace, within: Within = EVERYWHERE, **initialize: Any) -> None:
        self._server = build_server(house, within)
        self._writer = QueueWriter()
        self._server.protocol.set_writer(self._writer, include_headers=False)
        self._ids = itertools.count(1)
        self.send("initialize", {"capabilities": {}, **initialize}, 0)

    def send(self, method: str, params: Any, identifier: int | None = None) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        receive(self._server, self._writer, json.dumps(message | ({} if identifier is None else {"id": identifier})))

    def reply(self, request: dict[str, Any], result: Any) -> None:
        """Answer a request of the server's."""
        answer = {"jsonrpc": "2.0", "id": request["id"], "result": result}
        receive(self._server, self._writer, json.dumps(answer))

    def start(self, method: str, params: Any) -> int:
        identifier = next(self._ids)
        self.send(method, params, identifier)
        return identifier

    async def request(self, method: str, params: Any) -> Any:
        return (await self.answer(self.start(method, params)))["result"]

    async def answer(self, identifier: int) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while True:
                message: dict[str, Any] = json.loads(await self._writer.messages.get() or "{}")
                if message.get("id") == identifier and "method" not in message:
                    return message

    async def close(self) -> None:
        """End what is under way."""
        await self._server.close()

    async def told(self, method: str) -> dict[str, Any]:
        """The next message of ``method`` that the server sends."""
        async with asyncio.timeout(60):
            while True:
                message: dict[str, Any] = json.loads(await self._writer.messages.get() or "{}")
                if message.get("method") == method:
                    return message

    def open(self, uri: str, text: str) -> None:
        document = {"uri": uri, "languageId": "python", "version": 1, "text": text}
        self.send("textDocument/didOpen", {"textDocument": document})

    async def hover(self, uri: str, line: int, character: int) -> Any:
        asked = {"textDocument": {"uri": uri}, "position": {"line": line, "character": character}}
        return await self.request("textDocument/hover", asked)
