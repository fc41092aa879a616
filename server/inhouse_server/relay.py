"""``inhouse lsp``: what an editor starts on stdio. It carries messages to the owner's ``/lsp`` and back.

``initialize`` is answered here or, when the editor has asked by then, in ``greeting.py``: an editor should not wait
while an owner starts. The owner holds the model and may die or be replaced while editors stay open. The relay then
connects again (starting a new owner when it is a local one), tells the new server what the old one knew, answers what
the old one left unanswered, and tells the user. It imports no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import queue
import signal
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from inhouse_retrieval.errors import InhouseError
from inhouse_server.answer_files import answers_folder, write_answer
from inhouse_server.background import run_in_thread
from inhouse_server.elsewhere import CHECKOUT_OPTION, REPOSITORY_HEADER, WRITE_ANSWER, checkout_here
from inhouse_server.framing import FrameReader, frame
from inhouse_server.greeting import Greeting
from inhouse_server.lsp_capabilities import initialize_response
from inhouse_server.lsp_messages import (
    REQUEST_CANCELLED,
    REQUEST_FAILED,
    Message,
    MessageId,
    error_response,
    is_id,
    is_request,
    is_well_formed,
    shown_error,
    shown_info,
    shown_warning,
)
from inhouse_server.relay_memory import SessionMemory
from inhouse_server.stdio import read_some, write_all
from inhouse_server.tls import is_loopback, trusting, trusting_only, web_socket_address

logger = logging.getLogger(__name__)

MAX_MESSAGE = 15 * 1024 * 1024
"""Below what the owner accepts in one message (16 MiB): a longer one would cost the whole connection."""
_PARSE_ERROR, _INVALID_REQUEST = -32700, -32600
_GREETING_ID = "inhouse-relay-initialize"
_CANCEL_S = 5.0
"""So long a server may take to answer a request that was cancelled."""
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_STABLE_S = 5.0
_STOPPED = (1001, 1012)
"""WebSocket close codes of a server that was told to stop: going away, and restarting."""
_REFUSED = {
    400: "has several repositories for this token, and --repository names none",
    401: "refused the token",
    403: "refused the token, or does not answer for that host name",
    404: "has no repository of that name for this token",
    429: "says that this token is used too much",
    503: "is stopping, or does not serve that repository now",
}
_GONE = 1
"""Exit code when the editor closed its pipe without ``shutdown``."""


def run_relay(
    root: Path,
    state_dir: Path,
    server_url: str | None = None,
    token: str | None = None,
    authority: Path | None = None,
    inline_completion: bool = False,
    greeting: Greeting | None = None,
    repository: str | None = None,
) -> int:
    """Relay between this process's stdio and the server until the editor leaves.

    Args:
        root: the repository; its owner is started when none runs.
        state_dir: of that repository.
        server_url: a team's server to use instead of a local owner.
        token: bearer token for ``server_url``.
        authority: a file of certificates to trust instead of the system's.
        inline_completion: what the local owner will offer, for the answer to ``initialize``.
        greeting: what the editor has said already; see :func:`inhouse_server.greeting.greet`.
        repository: which one of ``server_url``; without it, the only one that the token opens.

    Returns:
        Exit code: 0 after ``shutdown`` and ``exit``, 1 when the editor went away without them.

    Raises:
        InhouseError: ``server_url`` or ``authority`` cannot be used.
    """
    trust = None
    if server_url is not None:
        trust = trusting(authority) if web_socket_address(server_url).startswith("wss") else None
        # What it imports is imported now: in the middle of a handshake it could take longer than the server waits.
        checkout_here(root, answers_folder(state_dir))
    relay = Relay(root, state_dir, server_url, token, trust, inline_completion, greeting or Greeting(), repository)
    return asyncio.run(relay.run())


class Relay:
    """One editor's session, across any number of connections."""

    def __init__(
        self,
        root: Path,
        state_dir: Path,
        server_url: str | None,
        token: str | None,
        trust: ssl.SSLContext | None,
        inline_completion: bool,
        greeting: Greeting,
        repository: str | None,
    ) -> None:
        self._root = root
        self._answers = answers_folder(state_dir)
        self._server_url = server_url
        self._token = token
        self._trust = trust
        self._inline_completion = inline_completion
        self._greeting = greeting
        self._repository = repository
        self._memory = SessionMemory()
        self._to_server: asyncio.Queue[str | None] | None = None
        self._held: list[Message] = []
        self._connected_before = False
        self._stopped = False
        self._problem: str | None = None
        self._retry_now = asyncio.Event()
        self._initialized = asyncio.Event()
        self._to_editor: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._warned_large = False

    async def run(self) -> int:
        from_editor: asyncio.Queue[bytes | int | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, from_editor.put_nowait, 128 + number)
        for said in self._greeting.bodies:
            from_editor.put_nowait(said)
        reading = (loop, self._greeting.frames, from_editor)
        threading.Thread(target=_read_stdin, args=reading, daemon=True).start()
        writer = threading.Thread(target=_write_stdout, args=(loop, self._to_editor, from_editor), daemon=True)
        writer.start()
        connection = loop.create_task(self._keep_connected())
        connection.add_done_callback(lambda task: from_editor.put_nowait(_GONE))
        try:
            while not isinstance(body := await from_editor.get(), int):
                try:
                    left = self._take_from_editor(body)
                except Exception:
                    # Whatever an editor sends, the session goes on without that message.
                    logger.exception("a message of the editor was passed over")
                    left = False
                if left:
                    return 0 if self._memory.shut_down else 1
            return 0 if body == _GONE and self._memory.shut_down else body
        finally:
            await self._leave(connection)
            self._to_editor.put(None)
            await run_in_thread(lambda: writer.join(2))

    # From the editor.

    def _take_from_editor(self, body: bytes | None) -> bool:
        """Pass one message on. True when the editor said ``exit``."""
        try:
            message = json.loads(body) if body is not None else None
        except (ValueError, RecursionError):
            message = None
        if message is None:
            self._tell_editor(error_response(None, _PARSE_ERROR, "The message is not framed JSON."))
        elif not isinstance(message, dict):
            self._tell_editor(error_response(None, _INVALID_REQUEST, "The message is not a JSON object."))
        elif message.get("method") == "exit":
            return True
        else:
            if self._server_url is not None and message.get("method") == "initialize":
                self._tell_where_we_are(message)
            self._memory.note_from_editor(message)
            if not self._answer_initialize(message):
                self._pass_on(message)
        return False

    def _answer_initialize(self, message: Message) -> bool:
        """Answer a first ``initialize`` for the local owner, which is asked the same once it is there.

        A team's server may be of another version and answers for itself.
        """
        if self._server_url is not None or self._memory.ready:
            return False
        response = initialize_response(message, self._inline_completion)
        if response is None:
            return False
        self._memory.note_from_server(response)
        if not self._greeting.answered:
            self._tell_editor(response)
        self._initialized.set()
        return True

    def _tell_where_we_are(self, initialize: Message) -> None:
        """A team's server has the repository somewhere else than this editor."""
        params = initialize.get("params")
        if isinstance(params, dict):
            options = params.get("initializationOptions")
            here = checkout_here(self._root, self._answers, params.get("rootUri")).to_json()
            params["initializationOptions"] = {**(options if isinstance(options, dict) else {}), CHECKOUT_OPTION: here}

    def _pass_on(self, message: Message) -> None:
        if self._to_server is not None:
            self._tell_server(message, self._to_server)
            if message.get("method") == "$/cancelRequest":
                asyncio.get_running_loop().call_later(_CANCEL_S, self._give_up, _cancelled_id(message))
        elif is_request(message):
            if self._problem is not None or message["method"] == "shutdown":
                self._answer_here(message)
                self._retry_now.set()
            else:
                self._held.append(message)
                if self._stopped:
                    self._retry_now.set()
        elif message.get("method") == "$/cancelRequest":
            self._cancel_held(message)
        elif message.get("method") == "textDocument/didSave" or not is_well_formed(message):
            self._held.append(message)
        # The rest is replayed, or was meant for the server that is gone.

    def _answer_here(self, request: Message) -> None:
        identifier = request["id"]
        self._memory.answered(identifier)
        if request["method"] == "shutdown":
            self._tell_editor({"jsonrpc": "2.0", "id": identifier, "result": None})
        else:
            self._tell_editor(error_response(identifier, REQUEST_FAILED, self._problem or "inhouse is not connected."))

    def _cancel_held(self, message: Message) -> None:
        if (identifier := _cancelled_id(message)) is None:
            return
        for request in self._held:
            if is_request(request) and request["id"] == identifier and request["method"] != "initialize":
                self._held.remove(request)
                self._memory.answered(identifier)
                self._tell_editor(error_response(identifier, REQUEST_CANCELLED, "The request was cancelled."))
                return

    def _give_up(self, identifier: MessageId | None) -> None:
        """The server has not heard that a request is cancelled, or does not answer at all: the editor goes on."""
        if identifier is not None and self._memory.gave_up(identifier):
            self._tell_editor(error_response(identifier, REQUEST_CANCELLED, "The request was cancelled."))

    def _tell_server(self, message: Message, outbox: asyncio.Queue[str | None]) -> None:
        text = json.dumps(message)
        if len(text) <= MAX_MESSAGE:
            outbox.put_nowait(text)
        elif is_request(message):
            self._memory.answered(message["id"])
            self._tell_editor(error_response(message["id"], REQUEST_FAILED, "The message is too long for inhouse."))
        elif not self._warned_large:
            self._warned_large = True
            self._tell_editor(shown_warning("inhouse does not read a file as large as one that is open here."))

    def _tell_editor(self, message: Message) -> None:
        self._to_editor.put(frame(json.dumps(message).encode()))

    # To and from the server.

    async def _keep_connected(self) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            try:
                async with await self._connect() as socket:
                    try:
                        await self._serve(socket)
                    finally:
                        self._stopped = socket.close_code in _STOPPED
            except InhouseError as error:
                self._report_problem(str(error))
            except ConnectionClosed:
                pass
            except Exception as error:
                logger.exception("the connection failed")
                self._report_problem(f"The connection failed: {type(error).__name__}: {error}.")
            if self._to_server is not None:
                self._to_server = None
                self._report_loss()
            failures = 0 if time.monotonic() - started > _STABLE_S else failures + 1
            await self._pause(failures)

    async def _pause(self, failures: int) -> None:
        """Wait longer after every failure; a new request ends the wait."""
        self._retry_now.clear()
        if self._stopped:
            # Somebody stopped the server on purpose: it comes back when it is needed.
            await self._retry_now.wait()
        elif failures:
            delay = _BACKOFF_S[min(failures, len(_BACKOFF_S)) - 1]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._retry_now.wait(), delay)

    async def _connect(self) -> ClientConnection:
        """A connection to the team's server or to the local owner, which is started when none runs.

        Raises:
            InhouseError: it cannot be had, with the reason.
        """
        url, token, trust = self._server_url, self._token, self._trust
        if url is None:
            # Imported here: a relay to a team's server needs none of it.
            from inhouse_server.owner import ensure_owner

            address = await run_in_thread(lambda: ensure_owner(self._root))
            url, token = address.url, address.token
            trust = trusting_only(address.certificate) if address.certificate else None
        local = is_loopback(urlsplit(url).hostname or "")
        try:
            return await connect(
                web_socket_address(url),
                ssl=trust,
                additional_headers=self._headers(token),
                proxy=None if local else True,
                compression=None if local else "deflate",
                # A local owner that is busy is not a lost one: the system says when it dies.
                ping_interval=None if local else 20,
                ping_timeout=60,
                close_timeout=1,
                max_size=None,
            )
        except InvalidStatus as error:
            status = error.response.status_code
            refused = _REFUSED.get(status, f"answered with HTTP status {status}")
            raise InhouseError(
                f"The inhouse server at {url} {refused}.", "Check the address, the token and the repository."
            ) from None
        except (OSError, InvalidHandshake, InvalidURI, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise InhouseError(
                f"The inhouse server at {url} cannot be reached ({reason}).", "Check that it runs."
            ) from None

    def _headers(self, token: str | None) -> dict[str, str]:
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        return bearer | ({REPOSITORY_HEADER: self._repository} if self._repository else {})

    async def _serve(self, socket: ClientConnection) -> None:
        """Carry messages over one connection until it is lost."""
        if self._server_url is None:
            await self._initialized.wait()  # An owner that ran already is connected before the editor has spoken.
        if self._memory.ready:
            await self._greet(socket)
        outbox: asyncio.Queue[str | None] = asyncio.Queue()
        # No await from here to the assignment: what the editor sends next must come after what it sent
        # before.
        if self._memory.ready:
            for message in self._memory.replay():
                self._tell_server(message, outbox)
            if self._connected_before:
                self._tell_editor(shown_info("inhouse is connected again and has your open files."))
        for message in self._held:
            self._tell_server(message, outbox)
        self._held.clear()
        self._problem = None
        self._stopped = False
        self._connected_before = True
        self._to_server = outbox
        sender = asyncio.create_task(_send(socket, outbox))
        try:
            async for text in socket:
                self._take_from_server(text)
        finally:
            sender.cancel()

    async def _greet(self, socket: ClientConnection) -> None:
        """Initialize a new server as the editor initialized the one before; the editor sees none of it."""
        await socket.send(json.dumps({**(self._memory.initialize or {}), "id": _GREETING_ID}))
        async for text in socket:
            message = json.loads(text)
            if message.get("id") == _GREETING_ID and "method" not in message:
                if "error" in message:
                    raise InhouseError(f"The new inhouse server refused the session: {message['error']['message']}")
                return
            self._tell_editor(message)
        raise InhouseError("The new inhouse server closed the connection.", "Its log says why.")

    def _take_from_server(self, text: str | bytes) -> None:
        message: Any = json.loads(text)
        if message.get("method") == WRITE_ANSWER:
            self._keep_answer(message.get("params"))
        elif self._memory.note_from_server(message):
            self._tell_editor(message)

    def _keep_answer(self, params: Any) -> None:
        try:
            write_answer(self._answers, str(params["name"]), str(params["text"]))
        except InhouseError as error:
            self._tell_editor(shown_error(f"inhouse: {error}"))
        except (KeyError, TypeError):
            logger.warning("the server sent an answer that has no name or no text")

    def _report_loss(self) -> None:
        """The connection is gone: nothing that waits for it may wait for ever."""
        if self._memory.shut_down:
            for identifier in self._memory.take_unanswered():
                self._tell_editor({"jsonrpc": "2.0", "id": identifier, "result": None})
            return
        # A bar ends before its request does, as it would have with the server.
        for message in self._memory.end_progress():
            self._tell_editor(message)
        text = "The inhouse server went away before it answered; please ask again."
        for identifier in self._memory.take_unanswered():
            self._tell_editor(error_response(identifier, REQUEST_FAILED, text))
        if (unanswered := self._memory.unanswered_initialize()) is not None:
            self._held.insert(0, unanswered)
        what = "was stopped; the next question starts it again." if self._stopped else "went away. Connecting again."
        self._tell_editor(shown_warning(f"The inhouse server {what}"))

    def _report_problem(self, problem: str) -> None:
        """There is no connection for now. Said once; requests are answered with it until there is one."""
        logger.warning("%s", problem)
        first, self._problem = self._problem is None, problem
        held, self._held = self._held, []
        for message in held:
            if is_request(message):
                self._answer_here(message)
        if first and self._memory.ready:
            self._tell_editor(shown_error(f"inhouse: {problem}"))

    async def _leave(self, connection: asyncio.Task[None]) -> None:
        """Give what the editor said last a moment to arrive, then end the connection."""
        if self._to_server is not None:
            self._to_server.put_nowait(json.dumps({"jsonrpc": "2.0", "method": "exit"}))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._to_server.join(), 1)
        connection.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await connection  # Raises what went wrong, when something unforeseen ended it.


def _cancelled_id(message: Message) -> MessageId | None:
    """The request that a ``$/cancelRequest`` means."""
    params = message.get("params")
    identifier: Any = params.get("id") if isinstance(params, dict) else None
    return identifier if is_id(identifier) else None


async def _send(socket: ClientConnection, outbox: asyncio.Queue[str | None]) -> None:
    while (text := await outbox.get()) is not None:
        try:
            await socket.send(text)
        except ConnectionClosed:
            return  # The receiving side notices as well, and connects again.
        finally:
            outbox.task_done()


def _read_stdin(
    loop: asyncio.AbstractEventLoop, frames: FrameReader, messages: asyncio.Queue[bytes | int | None]
) -> None:
    """Read frames until the editor closes the pipe, which counts as leaving without ``exit``."""
    descriptor = sys.stdin.fileno()
    while data := read_some(descriptor):
        for body in frames.feed(data):
            loop.call_soon_threadsafe(messages.put_nowait, body)
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(messages.put_nowait, _GONE)


def _write_stdout(
    loop: asyncio.AbstractEventLoop,
    frames: queue.SimpleQueue[bytes | None],
    messages: asyncio.Queue[bytes | int | None],
) -> None:
    descriptor = sys.stdout.fileno()
    while (data := frames.get()) is not None:
        try:
            write_all(descriptor, data)
        except OSError:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(messages.put_nowait, _GONE)
            return
