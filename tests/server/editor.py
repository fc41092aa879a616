"""A raw LSP client on a relay's stdio: an editor reduced to its protocol, which can also misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from inhouse_server.framing import FrameReader, frame

Message = dict[str, Any]
FULL_CAPABILITIES: Message = {
    "general": {"positionEncodings": ["utf-16"]},
    "window": {"workDoneProgress": True, "showDocument": {"support": True}},
    "textDocument": {
        "codeAction": {
            "dataSupport": True,
            "resolveSupport": {"properties": ["command"]},
            "codeActionLiteralSupport": {"codeActionKind": {"valueSet": [""]}},
        }
    },
}


class Editor:
    """Requests, notifications, and everything the server sent (``received``)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.received: list[Message] = []
        self._ids = itertools.count(1)
        self._changed = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        frames = FrameReader()
        while data := await self.process.stdout.read(1 << 16):
            for body in frames.feed(data):
                assert body is not None
                message = json.loads(body)
                if "method" in message and "id" in message:
                    # A client answers what the server asks of it: progress tokens and documents to show.
                    result = {"success": True} if message["method"] == "window/showDocument" else None
                    self.send({"id": message["id"], "result": result})
                async with self._changed:
                    self.received.append(message)
                    self._changed.notify_all()

    def send_raw(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def send(self, message: Message) -> None:
        self.send_raw(frame(json.dumps({"jsonrpc": "2.0", **message}).encode()))

    def notify(self, method: str, params: Any = None) -> None:
        self.send({"method": method, "params": params})

    def start(self, method: str, params: Any = None) -> int:
        """Send a request; its id."""
        message_id = next(self._ids)
        self.send({"id": message_id, "method": method, "params": params})
        return message_id

    async def wait_for(self, wanted: Callable[[Message], bool], timeout: float = 60) -> Message:
        """The first message that is wanted, whether it came already or is still to come."""
        async with asyncio.timeout(timeout), self._changed:
            while True:
                for message in self.received:
                    if wanted(message):
                        return message
                await self._changed.wait()

    async def response(self, message_id: int | str | None, timeout: float = 60) -> Message:
        return await self.wait_for(lambda m: "method" not in m and "id" in m and m["id"] == message_id, timeout)

    async def request(self, method: str, params: Any = None, timeout: float = 60) -> Any:
        """The result of a request; fails on an error."""
        answer = await self.response(self.start(method, params), timeout)
        assert "error" not in answer, answer
        return answer["result"]

    async def initialize(self, root: Path, capabilities: Message = FULL_CAPABILITIES, timeout: float = 60) -> Message:
        params = {"processId": os.getpid(), "rootUri": root.as_uri(), "capabilities": capabilities}
        result: Message = await self.request("initialize", params, timeout)
        self.notify("initialized", {})
        return result

    def open(self, uri: str, text: str) -> None:
        document = {"uri": uri, "languageId": "python", "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": document})

    def progress(self, token: int | str) -> list[Any]:
        """Values reported under ``token`` so far."""
        return [
            message["params"]["value"]
            for message in self.received
            if message.get("method") == "$/progress" and message["params"]["token"] == token
        ]

    def streamed(self, token: int | str) -> str:
        return "".join(value["text"] for value in self.progress(token))

    def shown(self) -> list[str]:
        return [m["params"]["message"] for m in self.received if m.get("method") == "window/showMessage"]

    async def leave(self) -> int:
        """End as an editor does; the relay's exit code."""
        await self.request("shutdown")
        self.notify("exit")
        return await asyncio.wait_for(self.process.wait(), 10)


@asynccontextmanager
async def editor(command: Sequence[str | Path], **environment: str) -> AsyncIterator[Editor]:
    """An editor that started ``command`` on stdio; it goes away at the end."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        yield Editor(process)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
