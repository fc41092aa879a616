"""What the language server answers to ``initialize``, for the relay to say without loading it.

pygls works the same out from the features that are registered; a test holds the two together.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from inhouse_server.text_sync import ENCODINGS, UTF16

_INCREMENTAL = 2
CODE_ACTION_KINDS = ("inhouse.explain", "inhouse.convention", "inhouse.change", "quickfix")
COMMANDS = ("inhouse.ask", "inhouse.change", "inhouse.review")


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
            "workspace": {
                "workspaceFolders": {"supported": True, "changeNotifications": True},
                "fileOperations": {},
            },
        },
        "serverInfo": {"name": "inhouse", "version": version("inhouse")},
    }


def _position_encoding(params: dict[str, Any]) -> str:
    """The first encoding of the client's that we know."""
    try:
        wanted = params["capabilities"]["general"]["positionEncodings"]
        return next(str(encoding) for encoding in wanted if encoding in ENCODINGS)
    except (KeyError, TypeError, StopIteration):
        return UTF16
