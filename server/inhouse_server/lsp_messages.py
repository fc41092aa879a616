"""Messages of the Language Server Protocol as dictionaries: what kind one is, and those that the relay writes."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]
MessageId = int | str
REQUEST_FAILED, REQUEST_CANCELLED = -32803, -32800
"""Error codes of the protocol."""
_ERROR, _WARNING, _INFO = 1, 2, 3


def is_request(message: Message) -> bool:
    return "method" in message and is_id(message.get("id"))


def is_well_formed(message: Message) -> bool:
    """Whether it is a request, a notification or a response. The server refuses what is none of them."""
    if isinstance(message.get("method"), str):
        return "id" not in message or is_id(message["id"])
    return "method" not in message and "id" in message and ("result" in message or "error" in message)


def is_id(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def error_response(message_id: MessageId | None, code: int, text: str) -> Message:
    return {"jsonrpc": "2.0", "id": message_id, "error": {"code": code, "message": text}}


def notification(method: str, params: Message) -> Message:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def shown_error(text: str) -> Message:
    """A message that the editor shows its user."""
    return notification("window/showMessage", {"type": _ERROR, "message": text})


def shown_warning(text: str) -> Message:
    return notification("window/showMessage", {"type": _WARNING, "message": text})


def shown_info(text: str) -> Message:
    return notification("window/showMessage", {"type": _INFO, "message": text})
