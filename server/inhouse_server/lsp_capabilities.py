"""What the language server answers to ``initialize``, for the relay to say without loading it.

pygls works the same out from the features that are registered; a test holds the two together. Of an editor's folders
one is served, so none is said of several.
"""

from __future__ import annotations

from typing import Any

from inhouse_server.lsp_messages import Message, is_request
from inhouse_server.position_encodings import ENCODINGS, UTF16
from inhouse_server.version import VERSION

INLINE_COMPLETION = "textDocument/inlineCompletion"
_INCREMENTAL = 2
CODE_ACTION_KINDS = ("inhouse.explain", "inhouse.convention", "inhouse.change", "quickfix", "inhouse.why")
COMMANDS = ("inhouse.ask", "inhouse.change", "inhouse.review", "inhouse.why")


def initialize_result(params: dict[str, Any], inline_completion: bool = False) -> dict[str, Any]:
    """The result of ``initialize`` for a client with these parameters.

    Args:
        inline_completion: it is offered; see :meth:`Settings.no_inline_completion`.
    """
    return {
        "capabilities": {
            **({"inlineCompletionProvider": True} if inline_completion else {}),
            "positionEncoding": _position_encoding(params),
            "textDocumentSync": {
                "openClose": True,
                "change": _INCREMENTAL,
                "save": {"includeText": False},
            },
            "hoverProvider": True,
            "codeLensProvider": {"resolveProvider": False},
            "codeActionProvider": {"codeActionKinds": list(CODE_ACTION_KINDS), "resolveProvider": True},
            "executeCommandProvider": {"commands": list(COMMANDS)},
            "workspace": {"fileOperations": {}},
        },
        "serverInfo": {"name": "inhouse", "version": VERSION},
    }


def initialize_response(message: object, inline_completion: bool = False) -> Message | None:
    """The response to ``message``; ``None`` when it is no ``initialize`` that can be answered, as the server says."""
    if not isinstance(message, dict) or message.get("method") != "initialize" or not is_request(message):
        return None
    params = message.get("params")
    if not isinstance(params, dict):
        return None
    return {"jsonrpc": "2.0", "id": message["id"], "result": initialize_result(params, inline_completion)}


def _position_encoding(params: dict[str, Any]) -> str:
    """The first encoding of the client's that we know."""
    try:
        wanted = params["capabilities"]["general"]["positionEncodings"]
        return next(str(encoding) for encoding in wanted if encoding in ENCODINGS)
    except (KeyError, TypeError, StopIteration):
        return UTF16
