"""textDocument/didOpen, didChange and didClose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lsprotocol import types

from inhouse_server.language_server.open_documents import MAX_OPEN_BYTES
from inhouse_server.text_sync import Edit, Position

if TYPE_CHECKING:
    from inhouse_server.language_server.server import InhouseServer


def did_open(ls: InhouseServer, params: types.DidOpenTextDocumentParams) -> None:
    document = params.text_document
    with _telling_of_the_bound(ls):
        ls.documents.open(document.uri, document.text, document.version)


def did_change(ls: InhouseServer, params: types.DidChangeTextDocumentParams) -> None:
    ls.completions.end()
    edits = [_edit(change) for change in params.content_changes]
    with _telling_of_the_bound(ls):
        ls.documents.change(params.text_document.uri, edits, ls.encoding, params.text_document.version)


def did_close(ls: InhouseServer, params: types.DidCloseTextDocumentParams) -> None:
    ls.documents.close(params.text_document.uri)


@contextmanager
def _telling_of_the_bound(ls: InhouseServer) -> Iterator[None]:
    """Tell the user, once, when what is open is too much to be held."""
    before = ls.documents.refused
    yield
    if ls.documents.refused and not before:
        problem = f"What is open in this editor is larger than {MAX_OPEN_BYTES // 2**20} MiB."
        remedy = "Files beyond that are read as they were last saved; close some, and open these again."
        ls.window_show_message(types.ShowMessageParams(types.MessageType.Warning, f"inhouse: {problem} {remedy}"))


def _edit(change: types.TextDocumentContentChangeEvent) -> Edit:
    if isinstance(change, types.TextDocumentContentChangePartial):
        start, end = change.range.start, change.range.end
        return Edit(change.text, Position(start.line, start.character), Position(end.line, end.character))
    return Edit(change.text)
