"""pygls' protocol object, changed where one process serves many editors."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from typing import Any

import attrs
from lsprotocol import types
from pygls.exceptions import (
    JsonRpcInvalidParams,
    JsonRpcInvalidRequest,
    JsonRpcMethodNotFound,
    JsonRpcRequestCancelled,
)
from pygls.protocol import LanguageServerProtocol, lsp_method

logger = logging.getLogger(__name__)

# pygls' own handlers of these: `exit` ends the whole process; `workspace/executeCommand` cannot be cancelled
# and hides the client's progress token; the document ones split lines where the protocol does not, and keep a
# future for every keystroke.
_OURS = (
    types.EXIT,
    types.WORKSPACE_EXECUTE_COMMAND,
    types.TEXT_DOCUMENT_DID_OPEN,
    types.TEXT_DOCUMENT_DID_CHANGE,
    types.TEXT_DOCUMENT_DID_CLOSE,
)


@attrs.define
class CustomRequest:
    """A request of ours; its parameters are checked by its handler."""

    id: int | str
    method: str
    params: Any = None
    jsonrpc: str = "2.0"


class InhouseProtocol(LanguageServerProtocol):
    """One connection's protocol state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for method in _OURS:
            del self.fm.builtin_features[method]

    @lsp_method(types.INITIALIZE)
    def lsp_initialize(self, params: types.InitializeParams) -> Generator[Any, Any, types.InitializeResult]:
        """Answer what the server can do. pygls always claims to serve several folders."""
        result: types.InitializeResult = yield from super().lsp_initialize(params)
        if result.capabilities.workspace is not None:
            result.capabilities.workspace.workspace_folders = None
        return result

    def get_message_type(self, method: str) -> type[Any] | None:  # type: ignore[override]
        """The type of a message. pygls caches this for the whole process, and with it the connections that asked."""
        return types.METHOD_TO_TYPES.get(method, (None,))[0]

    def get_result_type(self, method: str) -> type[Any] | None:  # type: ignore[override]
        """The type of an answer; kept for nobody, for the same reason."""
        return types.METHOD_TO_TYPES.get(method, (None, None))[1]

    def _handle_request(self, msg_id: int | str, method_name: str, params: Any) -> None:
        """Begin to answer a request. One under an id that another is being answered under is refused: pygls forgets the
        first then, so that it could neither be cancelled nor be waited for."""
        if isinstance(msg_id, int | str) and msg_id in self._request_futures:
            error = JsonRpcInvalidRequest(f"Another request is being answered under the id {msg_id!r}.")
            self._send_response(msg_id, error=error.to_response_error())
        else:
            super()._handle_request(msg_id, method_name, params)

    def _get_handler(self, feature_name: str) -> Any:
        """What handles a method. Editors show the message of an error as it is."""
        try:
            return super()._get_handler(feature_name)
        except JsonRpcMethodNotFound:
            raise JsonRpcMethodNotFound(f"inhouse has no method {feature_name!r}.") from None

    def _send_handler_result(self, future: Future[Any], *, msg_id: int | str) -> None:
        """Answer a request whose handler has ended."""
        if future.cancelled():
            self._request_futures.pop(msg_id, None)
            error = JsonRpcRequestCancelled("The request was cancelled.")
            self._send_response(msg_id, error=error.to_response_error())
        else:
            super()._send_handler_result(future, msg_id=msg_id)

    def _execute_handler(self, msg_id: int | str, *args: Any, **kwargs: Any) -> None:
        """Run a handler. pygls keeps the task of what came without an id, as if it were being answered for ever."""
        super()._execute_handler(msg_id, *args, **kwargs)
        if (future := self._request_futures.get(msg_id)) is not None:
            future.add_done_callback(functools.partial(self._let_go, msg_id))

    def _let_go(self, msg_id: int | str, ended: object) -> None:
        if self._request_futures.get(msg_id) is ended:
            del self._request_futures[msg_id]

    def _handle_cancel_notification(self, msg_id: object) -> None:
        """Cancel a request. pygls looks up any id, which a list or an object cannot be."""
        if not isinstance(msg_id, int | str):
            raise JsonRpcInvalidParams("The id of a request is a number or a string.")
        super()._handle_cancel_notification(msg_id)

    def _handle_response(self, msg_id: int | str, result: object = None, error: Any = None) -> None:
        """Take an answer of the client. pygls looks its id up among the client's own requests, too, and would fail at
        one of those, as at a request of ours that was given up."""
        future = self._request_futures.get(msg_id)
        if isinstance(future, asyncio.Task):
            logger.warning("an answer to %r, which is a request of the client's own", msg_id)
        elif future is not None and future.done():
            del self._request_futures[msg_id]
            logger.info("an answer to %r, for which nobody waits any more", msg_id)
        else:
            super()._handle_response(msg_id, result, error)

    def structure_message(self, data: dict[str, Any]) -> Any:
        """A message as its type: one of the specification's, or our own."""
        if "id" in data and str(data.get("method", "")).startswith("inhouse/"):
            return CustomRequest(data["id"], data["method"], data.get("params"))
        try:
            return super().structure_message(data)
        except JsonRpcInvalidParams as error:  # which says no more than that
            problem = f"The params of {data.get('method')!r} are not those that the protocol describes."
            raise JsonRpcInvalidParams(problem) from error

    @property
    def shutting_down(self) -> bool:
        return self._shutdown

    def running_requests(self) -> list[asyncio.Task[Any]]:
        """The client's requests that are being handled."""
        futures: Iterable[object] = self._request_futures.values()
        return [future for future in futures if isinstance(future, asyncio.Task)]
