"""The server object of one connection, and the table of every method that it handles."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from cattrs import Converter
from lsprotocol import types
from pydantic import ValidationError
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer
from pygls.protocol import default_converter

from inhouse_retrieval import Cancelled, InhouseError
from inhouse_server.access import Asking, uncounted
from inhouse_server.elsewhere import NOWHERE
from inhouse_server.language_server import (
    ask,
    code_actions,
    code_lens,
    commands,
    documents,
    hover,
    inline_completion,
    lifetime,
    review_command,
    saving,
    status,
)
from inhouse_server.language_server.checkout import Checkout
from inhouse_server.language_server.open_documents import OpenDocuments
from inhouse_server.language_server.protocol import InhouseProtocol
from inhouse_server.lsp_capabilities import COMMANDS
from inhouse_server.position_encodings import UTF16
from inhouse_server.version import VERSION

if TYPE_CHECKING:
    from inhouse_retrieval import Within
    from inhouse_server.workspace import Workspace

logger = logging.getLogger(__name__)
Made = TypeVar("Made")
# pygls logs a traceback for every error that a request is answered with; ours are logged below, once.
logging.getLogger("pygls").setLevel(logging.CRITICAL)

FEATURES: tuple[tuple[str, Callable[..., Any], Any], ...] = (
    (types.INITIALIZE, lifetime.initialize, None),
    (types.INITIALIZED, lifetime.initialized, None),
    (types.EXIT, lifetime.exit_connection, None),
    (types.TEXT_DOCUMENT_DID_OPEN, documents.did_open, None),
    (types.TEXT_DOCUMENT_DID_CHANGE, documents.did_change, None),
    (types.TEXT_DOCUMENT_DID_CLOSE, documents.did_close, None),
    (types.TEXT_DOCUMENT_DID_SAVE, saving.did_save, types.SaveOptions(include_text=False)),
    (types.TEXT_DOCUMENT_HOVER, hover.hover, None),
    (types.TEXT_DOCUMENT_CODE_LENS, code_lens.code_lens, None),
    (types.TEXT_DOCUMENT_CODE_ACTION, code_actions.code_action, code_actions.OPTIONS),
    (types.CODE_ACTION_RESOLVE, code_actions.code_action_resolve, None),
    (types.WORKSPACE_EXECUTE_COMMAND, commands.execute_command, None),
    (ask.METHOD, ask.ask, None),
    (status.METHOD, status.status, None),
)
COMPLETION = (types.TEXT_DOCUMENT_INLINE_COMPLETION, inline_completion.inline_completion, None)
"""Handled only where it is offered: the settings turn it on, and the base model can fill in."""


@functools.cache
def _converter() -> Converter:
    """Messages to objects and back. One for all connections: it writes code for each type that it meets, which takes a
    tenth of a second and some megabytes."""
    converter: Converter = default_converter()  # type: ignore[no-untyped-call]
    return converter


class InhouseServer(LanguageServer):
    """One editor's server.

    Attributes:
        house: the repository, its index and its assistant, shared by every connection.
        asking: called with the name of a question around its answer, which it counts and notes.
        within: the part of the repository whose passages the editor may see.
        on_this_machine: the editor may name files of the server's own checkout.
        administrates: the editor's token has the scope ``admin``.
        caller: id of that token; where answers wait, callers are taken in turn.
        checkout: where this editor's files lie.
        documents: what this editor has open, saved or not.
        reviewed: the findings that this editor was shown.
        changed: which files differ from the main branch.
        completions: the inline completion that is under way.
        last_answer: what this editor was answered last, in Markdown.
        exited: the editor said ``exit``; the connection ends.
        stopping: the owner is to stop; no new request begins.
    """

    protocol: InhouseProtocol

    def __init__(
        self,
        house: Workspace,
        within: Within,
        on_this_machine: bool = True,
        asking: Asking = uncounted,
        administrates: bool = True,
        caller: str = "",
    ) -> None:
        super().__init__(
            "inhouse",
            VERSION,
            protocol_cls=InhouseProtocol,
            converter_factory=_converter,
            text_document_sync_kind=types.TextDocumentSyncKind.Incremental,
        )
        self.house = house
        self.within = within
        self.on_this_machine = on_this_machine
        self.asking = asking
        self.administrates = administrates
        self.caller = caller
        # Until `initialize` says otherwise; also after one that was refused.
        self.work_in(Checkout(house.root, None if on_this_machine else NOWHERE))
        self.saves = saving.RefreshOnSave(house)
        self.reviewed = review_command.ReviewedFiles()
        self.changed = code_lens.ChangedFiles(house)
        self.completions = inline_completion.Completions()
        self.last_answer = ""
        self.exited = False
        self.stopping = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def work_in(self, checkout: Checkout) -> None:
        """Take the editor's files to lie there; nothing is open yet."""
        self.checkout = checkout
        self.documents = OpenDocuments(self.house.repository, self.house.state_dir, checkout)

    @property
    def encoding(self) -> str:
        """The encoding in which this editor counts characters."""
        encoding = self.server_capabilities.position_encoding or UTF16
        return str(getattr(encoding, "value", encoding))

    @property
    def initialized(self) -> bool:
        """Whether the client's capabilities are known."""
        return hasattr(self.protocol, "client_capabilities")

    @property
    def shutting_down(self) -> bool:
        return self.protocol.shutting_down

    def spawn(self, work: Coroutine[Any, Any, Made]) -> asyncio.Task[Made]:
        """Run ``work`` beside the messages, until it ends or the connection does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Cancel what this connection still has under way."""
        tasks = [*self._tasks, *self.protocol.running_requests()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def build_server(
    house: Workspace,
    within: Within,
    on_this_machine: bool = True,
    asking: Asking = uncounted,
    administrates: bool = True,
    caller: str = "",
) -> InhouseServer:
    """A server object with every feature of :data:`FEATURES`, and what else is offered here, for one connection."""
    server = InhouseServer(house, within, on_this_machine, asking, administrates, caller)
    for method, handler, options in (*FEATURES, *((COMPLETION,) if house.offers_inline_completion else ())):
        server.feature(method, options)(with_plain_errors(handler))
    for command in COMMANDS:
        # Only the name is used, for the capabilities: the handler of workspace/executeCommand runs them.
        server.command(command)(commands.execute_command)
    return server


def with_plain_errors(handler: Callable[..., Any]) -> Callable[..., Any]:
    """``handler`` whose errors reach the client as one plain message instead of a traceback."""
    if not asyncio.iscoroutinefunction(handler):

        @functools.wraps(handler)
        def call(ls: InhouseServer, params: Any) -> Any:
            try:
                return handler(ls, params)
            except Exception as error:
                raise _as_json_rpc(error) from error

        return call

    waiting: Callable[..., Awaitable[Any]] = handler

    @functools.wraps(handler)
    async def call_and_wait(ls: InhouseServer, params: Any) -> Any:
        try:
            return await waiting(ls, params)
        except Exception as error:
            raise _as_json_rpc(error) from error

    return call_and_wait


def _as_json_rpc(error: Exception) -> JsonRpcException:
    """What a client is told about ``error``, of whatever kind: pygls would send a traceback."""
    if isinstance(error, JsonRpcException):
        return error
    if isinstance(error, Cancelled):
        return JsonRpcException(str(error), types.LSPErrorCodes.RequestCancelled.value)
    if isinstance(error, InhouseError):
        return JsonRpcException(str(error), types.LSPErrorCodes.RequestFailed.value)
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "params"
        return JsonRpcInvalidParams(f"{where}: {first['msg']}")
    logger.error("a request failed unexpectedly", exc_info=error)
    return JsonRpcException(f"Something went wrong in inhouse: {type(error).__name__}: {error}")
