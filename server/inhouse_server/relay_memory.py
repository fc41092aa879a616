"""What the relay remembers of a session, so that a new server can take it over in the middle.

Pure bookkeeping over messages; ``relay.py`` moves them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from inhouse_server.lsp_messages import Message, MessageId, is_id, is_request, notification
from inhouse_server.position_encodings import UTF16
from inhouse_server.text_sync import apply_edits, edits_from_json

logger = logging.getLogger(__name__)

_REPLAYED = frozenset({"initialized", "textDocument/didOpen", "textDocument/didChange", "textDocument/didClose"})


@dataclass(slots=True)
class Document:
    """An open document with its current text."""

    language_id: str
    version: int
    text: str


class SessionMemory:
    """One editor's session.

    Attributes:
        ready: the editor has its answer to ``initialize``.
        shut_down: the editor asked for ``shutdown``.
    """

    def __init__(self) -> None:
        self.initialize: Message | None = None
        self.ready = False
        self.shut_down = False
        self._initialized: Message | None = None
        self._encoding = UTF16
        self._documents: dict[str, Document] = {}
        self._outstanding: dict[MessageId, str] = {}
        self._given_up: set[MessageId] = set()
        self._progress: set[MessageId] = set()

    def note_from_editor(self, message: Message) -> None:
        """Take in what the editor sent. A message that makes no sense is the server's to answer."""
        method, params = message.get("method"), message.get("params")
        if is_request(message):
            self._given_up.discard(message["id"])
            self._outstanding[message["id"]] = str(method)
            if method == "initialize" and not self.ready:
                self.initialize = message
            elif method == "shutdown":
                self.shut_down = True
        elif method == "initialized":
            self._initialized = message
        elif isinstance(params, dict) and isinstance(document := params.get("textDocument"), dict):
            try:
                self._note_document(str(method), document, params)
            except (KeyError, TypeError, ValueError) as error:
                logger.warning("a %s notification that cannot be read: %s", method, error)

    def _note_document(self, method: str, document: Message, params: Message) -> None:
        uri = document["uri"]
        if method == "textDocument/didOpen":
            text = str(document["text"])
            self._documents[uri] = Document(str(document.get("languageId", "")), document.get("version", 0), text)
        elif method == "textDocument/didChange" and (held := self._documents.get(uri)) is not None:
            held.text = apply_edits(held.text, edits_from_json(params["contentChanges"]), self._encoding)
            held.version = document.get("version") or held.version
        elif method == "textDocument/didClose":
            self._documents.pop(uri, None)

    def note_from_server(self, message: Message) -> bool:
        """Take in what the server sent. False for the late answer to a request that was given up."""
        if "method" not in message:
            if is_id(message.get("id")) and message["id"] in self._given_up:
                self._given_up.discard(message["id"])
                return False
            method = self._outstanding.pop(message["id"], None) if is_id(message.get("id")) else None
            if method == "initialize" and "result" in message:
                self.ready = True
                capabilities = (message["result"] or {}).get("capabilities") or {}
                self._encoding = capabilities.get("positionEncoding") or UTF16
        elif message["method"] == "$/progress":
            params = message.get("params") or {}
            token, value = params.get("token"), params.get("value")
            kind = value.get("kind") if isinstance(value, dict) else None
            if isinstance(token, int | str) and kind == "begin":
                self._progress.add(token)
            elif isinstance(token, int | str) and kind == "end":
                self._progress.discard(token)
        return True

    def gave_up(self, message_id: MessageId) -> bool:
        """A cancelled request is not waited for any more; whether it was still unanswered."""
        if self._outstanding.get(message_id, "initialize") == "initialize":
            return False
        del self._outstanding[message_id]
        self._given_up.add(message_id)
        return True

    def answered(self, message_id: MessageId) -> None:
        """The relay answered this request itself."""
        self._outstanding.pop(message_id, None)

    def is_replayed(self, message: Message) -> bool:
        """Whether :meth:`replay` carries what this notification says."""
        return message.get("method") in _REPLAYED

    def unanswered_initialize(self) -> Message | None:
        """The editor's ``initialize`` while nobody has answered it."""
        return self.initialize if "initialize" in self._outstanding.values() else None

    def take_unanswered(self) -> list[MessageId]:
        """Requests that a lost server never answered; ``initialize`` is for the next server to answer."""
        self._given_up.clear()
        lost = [key for key, method in self._outstanding.items() if method != "initialize"]
        for key in lost:
            del self._outstanding[key]
        return lost

    def end_progress(self) -> list[Message]:
        """Ends for the progress that a lost server began, so that no bar stays on the screen."""
        ends = [notification("$/progress", {"token": token, "value": {"kind": "end"}}) for token in self._progress]
        self._progress.clear()
        return ends

    def replay(self) -> list[Message]:
        """What a new server must be told after ``initialize``: every open document with its current text."""
        opened = [
            notification(
                "textDocument/didOpen",
                {
                    "textDocument": {
                        "uri": uri,
                        "languageId": document.language_id,
                        "version": document.version,
                        "text": document.text,
                    }
                },
            )
            for uri, document in self._documents.items()
        ]
        return ([self._initialized] if self._initialized else []) + opened
