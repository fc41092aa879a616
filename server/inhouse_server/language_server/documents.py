"""textDocument/didOpen, didChange and didClose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsprotocol import types

from inhouse_server.text_sync import Edit, Position

if TYPE_CHECKING:
    from inhouse_server.language_server.server import InhouseServer


def did_open(ls: InhouseServer, params: types.DidOpenTextDocumentParams) -> None:
    document = params.text_document
    ls.documents.open(document.uri, document.text, document.version)


def did_change(ls: InhouseServer, params: types.DidChangeTextDocumentParams) -> None:
    ls.completions.end()
    edits = [_edit(change) for change in params.content_changes]
    ls.documents.change(params.text_document.uri, edits, ls.encoding, params.text_document.version)


def did_close(ls: InhouseServer, params: types.DidCloseTextDocumentParams) -> None:
    ls.documents.close(params.text_document.uri)


def _edit(change: types.TextDocumentContentChangeEvent) -> Edit:
    if isinstance(change, types.TextDocumentContentChangePartial):
        start, end = change.range.start, change.range.end
        return Edit(change.text, Position(start.line, start.character), Position(end.line, end.character))
    return Edit(change.text)
