"""One editor's connection: JSON-RPC messages, one a WebSocket text frame, to and from its own server object.

pygls' own loops report a message that they cannot read to the user and leave its sender waiting; this one
answers it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import (
    JsonRpcException,
    JsonRpcInvalidParams,
    JsonRpcInvalidRequest,
    JsonRpcParseError,
    JsonRpcServerNotInitialized,
)
from starlette.websockets import WebSocket, WebSocketDisconnect

from inhouse_server.access import Scope
from inhouse_server.language_server.server import InhouseServer, build_server

if TYPE_CHECKING:
    from inhouse_server.access import Asking, Caller
    from inhouse_server.http_api.activity import Activity
    from inhouse_server.workspace import Workspace

logger = logging.getLogger(__name__)

_REQUEST_FAILED = types.LSPErrorCodes.RequestFailed.value
_KNOWN_KEYS = ("jsonrpc", "id", "method", "params", "result", "error")


class QueueWriter:
    """What pygls writes to: messages wait here until the socket has taken the ones before."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[str | None] = asyncio.Queue()

    def write(self, data: bytes) -> None:
        self.messages.put_nowait(data.decode())

    def close(self) -> None:
        self.messages.put_nowait(None)


async def serve_connection(
    websocket: WebSocket,
    workspace: Workspace,
    activity: Activity,
    asking: Asking,
    caller: Caller,
) -> None:
    """Serve one accepted connection until the editor exits or goes away; what is unfinished is cancelled.

    Args:
        activity: told how many requests are being answered.
        asking: called with the name of a question around its answer, which it counts and notes.
        caller: whose editor it is; the owner's may name files of the server's own checkout.
    """
    server = build_server(workspace, caller.within, caller.is_owner, asking, caller.may(Scope.ADMIN), caller.id)

    def answering() -> int:
        return len(server.protocol.running_requests())

    activity.editors.add(answering)
    writer = QueueWriter()
    server.protocol.set_writer(writer, include_headers=False)
    sender = asyncio.create_task(_send(websocket, writer))
    try:
        while not server.exited:
            frame = await websocket.receive()
            if frame["type"] == "websocket.disconnect":
                break
            server.stopping = activity.draining
            receive(server, writer, frame.get("text") or frame.get("bytes") or "")
    finally:
        activity.editors.discard(answering)
        await server.close()
        writer.close()
        await sender
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close()


async def _send(websocket: WebSocket, writer: QueueWriter) -> None:
    while (message := await writer.messages.get()) is not None:
        try:
            await websocket.send_text(message)
        except (RuntimeError, OSError, WebSocketDisconnect):
            return  # The editor is gone; the receiving side ends the connection.


def receive(server: InhouseServer, writer: QueueWriter, text: str | bytes) -> None:
    """Handle one message. A request that cannot be handled is answered with an error, whatever is wrong."""
    message_id: int | str | None = None
    try:
        parsed = _parse(text)
        message_id = _request_id(parsed)
        message = _checked(parsed)
        _check_order(server, message, message_id)
        server.protocol.handle_message(server.protocol.structure_message(message))
    except JsonRpcException as error:
        if message_id is not None or isinstance(error, JsonRpcParseError | JsonRpcInvalidRequest):
            body = {
                "jsonrpc": "2.0",
                "id": message_id,
                "error": {"code": error.code, "message": error.message},
            }
            writer.write(json.dumps(body).encode())
        else:
            logger.warning("a notification that cannot be handled: %s", error)
    except Exception:
        # pygls answers what goes wrong in a handler; what is left is a message that nobody thought of. One message must
        # not end the connection.
        logger.exception("a message that cannot be handled")


def _parse(text: str | bytes) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JsonRpcParseError(f"The message is not JSON: {error}") from None
    if not isinstance(message, dict):
        raise JsonRpcInvalidRequest("The message is not a JSON-RPC 2.0 object.")
    return message


def _request_id(message: dict[str, Any]) -> int | str | None:
    """The id to answer to, whatever else is wrong; ``None`` for notifications and responses."""
    if "id" not in message:
        return None
    identifier = message["id"]
    asks = "method" in message or not ("result" in message or "error" in message)
    if isinstance(identifier, bool) or not isinstance(identifier, int | str):
        if asks:
            raise JsonRpcInvalidRequest("The id of a request is a number or a string.")
        if isinstance(identifier, list | dict):  # pygls looks it up, which these cannot be
            raise JsonRpcInvalidParams("The id of an answer is a number or a string.")
        return None
    return identifier if asks else None


def _checked(message: dict[str, Any]) -> dict[str, Any]:
    """What JSON-RPC knows of a message of the right shape."""
    if message.get("jsonrpc") != "2.0":
        raise JsonRpcInvalidRequest("The message is not a JSON-RPC 2.0 object.")
    method = message.get("method", "" if message.keys() & {"result", "error"} else None)
    if not isinstance(method, str):
        raise JsonRpcInvalidRequest("The message has neither a method nor a result.")
    message = {key: message[key] for key in _KNOWN_KEYS if key in message}
    if "method" in message:
        message.setdefault("params", None)
    return message


def _check_order(server: InhouseServer, message: dict[str, Any], message_id: int | str | None) -> None:
    """The life of a connection: initialize once and first; nothing but exit after shutdown."""
    method = message.get("method")
    if method is None or method == types.EXIT:
        return
    if method == types.INITIALIZE and server.initialized:
        raise JsonRpcInvalidRequest("The server is initialized already.")
    if method != types.INITIALIZE and not server.initialized:
        raise JsonRpcServerNotInitialized("The server is not initialized yet.")
    if server.stopping and message_id is not None and method != types.SHUTDOWN:
        raise JsonRpcException("The inhouse server is stopping; ask again in a moment.", _REQUEST_FAILED)
    if server.shutting_down and message_id is not None:
        raise JsonRpcInvalidRequest("The server is shutting down.")
