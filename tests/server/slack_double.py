"""Slack without Slack: the Web API's methods that the bot calls, and Socket Mode's WebSocket.

Parameters are held against Slack's own description (``slack_protocol.json``), blocks against the classes of
``slack_sdk``. What Socket Mode says follows https://docs.slack.dev/apis/events-api/using-socket-mode.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from slack_sdk.models.blocks import Block, RichTextBlock
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

METHODS = json.loads(Path(__file__).with_name("slack_protocol.json").read_text())
ME, BOT_TOKEN, APP_TOKEN = "U0BOT", "xoxb-test", "xapp-test"
_NEWER = frozenset({"team_id"})
"""What the SDK adds that is younger than the description."""
_TYPES = {"string": str, "boolean": bool, "integer": int, "number": (int, float)}


class SlackDouble(ThreadingHTTPServer):
    """A workspace with one channel's worth of threads.

    Attributes:
        threads: messages by (channel, thread).
        calls: method and parameters, in order.
        refuse: answers that come instead, by method: ``(error, retry after seconds or None)``, taken from the front.
        page: messages of one page of a thread.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Api)
        self.threads: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.refuse: dict[str, list[tuple[str, int | None]]] = {}
        self.page = 200
        self.wrong: list[str] = []
        self.acknowledged: list[str] = []
        self._clock = time.time()
        self._sockets: list[ServerConnection] = []
        self.connected = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/api/"
        self._socket_server = serve(self._socket, "127.0.0.1", 0)
        self.socket_url = f"ws://127.0.0.1:{self._socket_server.socket.getsockname()[1]}/link"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        threading.Thread(target=self._socket_server.serve_forever, daemon=True).start()

    def stamp(self) -> str:
        """The next message's ts."""
        self._clock += 0.001
        return f"{self._clock:.6f}"

    def called(self, method: str) -> list[dict[str, Any]]:
        return [parameters for name, parameters in self.calls if name == method]

    def say(
        self, channel: str, text: str, user: str = "U0ADA", thread: str | None = None, **more: Any
    ) -> dict[str, Any]:
        """Somebody writes; the event of it."""
        ts = self.stamp()
        message = {"type": "message", "user": user, "text": text, "ts": ts, **more}
        if thread:
            message["thread_ts"] = thread
        self.threads.setdefault((channel, thread or ts), []).append(message)
        return {**message, "channel": channel, "channel_type": more.get("channel_type", "channel")}

    def send(self, event: dict[str, Any], envelope: str = "1") -> None:
        """Deliver an event over Socket Mode."""
        payload = {"type": "event_callback", "team_id": "T0", "api_app_id": "A0", "event_id": f"Ev{envelope}",
                   "event_time": 1, "authorizations": [{"team_id": "T0", "user_id": ME, "is_bot": True}],
                   "event": event}  # fmt: skip
        body = {"envelope_id": envelope, "type": "events_api", "accepts_response_payload": False, "payload": payload}
        self._sockets[-1].send(json.dumps(body))

    def drop(self) -> None:
        """Close the WebSocket, as Slack does every few hours."""
        self.connected.clear()
        self._sockets[-1].close()

    def stop(self) -> None:
        self._socket_server.shutdown()
        self.shutdown()
        self.server_close()

    def _socket(self, socket: ServerConnection) -> None:
        self._sockets.append(socket)
        socket.send(json.dumps({"type": "hello", "num_connections": 1, "connection_info": {"app_id": "A0"}}))
        self.connected.set()
        with contextlib.suppress(ConnectionClosed):
            for message in socket:
                self.acknowledged.append(json.loads(message)["envelope_id"])


@contextmanager
def workspace() -> Iterator[SlackDouble]:
    """A double, stopped when the block ends; what it found wrong with requests fails the test."""
    double = SlackDouble()
    try:
        yield double
    finally:
        double.stop()
    assert double.wrong == [], double.wrong


class _Api(BaseHTTPRequestHandler):
    server: SlackDouble

    def do_GET(self) -> None:
        self._call()

    def do_POST(self) -> None:
        self._call()

    def _call(self) -> None:
        address = urlsplit(self.path)
        method = address.path.removeprefix("/api/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        is_json = "json" in (self.headers.get("Content-Type") or "")
        parameters = dict(parse_qsl(address.query)) | (json.loads(body or "{}") if is_json else dict(parse_qsl(body)))
        self.server.calls.append((method, parameters))
        token = APP_TOKEN if method == "apps.connections.open" else BOT_TOKEN
        if self.headers.get("Authorization") != f"Bearer {token}":
            return self._answer({"ok": False, "error": "invalid_auth"})
        if refusals := self.server.refuse.get(method):
            error, after = refusals.pop(0)
            return self._answer({"ok": False, "error": error}, 429 if after is not None else 200, after)
        if method == "apps.connections.open":
            return self._answer({"ok": True, "url": self.server.socket_url})
        self._check(method, parameters, is_json)
        answers = {
            "auth.test": self._auth,
            "chat.postMessage": self._post,
            "chat.update": self._update,
            "conversations.replies": self._replies,
        }
        return self._answer({"ok": True, **answers[method](parameters)})

    def _check(self, method: str, parameters: dict[str, Any], is_json: bool) -> None:
        """What Slack would refuse or pass over."""
        known = METHODS[method]
        for name, value in parameters.items():
            kind = known.get(name, {}).get("type")
            if kind is None and name in _NEWER:
                continue
            if kind is None:
                self.server.wrong.append(f"{method} has no {name}")
            elif is_json and name != "blocks" and not isinstance(value, _TYPES[kind]):
                self.server.wrong.append(f"{method}: {name} is {value!r}")
        missing = [name for name, told in known.items() if told.get("required") and name not in parameters]
        blocks = parameters.get("blocks") or []
        blocks = json.loads(blocks) if isinstance(blocks, str) else blocks
        for block in Block.parse_all(blocks):
            block.validate_json()
            if not isinstance(block, RichTextBlock) or block.to_dict() not in blocks:
                self.server.wrong.append(f"not a block as slack_sdk knows it: {block}")
        for element in [part for block in blocks for each in block["elements"] for part in each["elements"]]:
            if element["type"] != "text" or not 0 < len(element["text"]) <= 3000:
                self.server.wrong.append(f"an element that acts, or is too long: {element}")
        if missing or len(str(parameters.get("text", ""))) > 40_000:
            self.server.wrong.append(f"{method}: {missing} missing, or too long")

    def _auth(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return {
            "url": "https://x.slack.com/",
            "team": "x",
            "team_id": "T0",
            "user": "inhouse",
            "user_id": ME,
            "bot_id": "B0",
        }

    def _post(self, parameters: dict[str, Any]) -> dict[str, Any]:
        ts = self.server.stamp()
        message = {"type": "message", "user": ME, "bot_id": "B0", "text": parameters["text"], "ts": ts,
                   "thread_ts": parameters["thread_ts"], "blocks": parameters["blocks"]}  # fmt: skip
        self.server.threads[parameters["channel"], parameters["thread_ts"]].append(message)
        return {"channel": parameters["channel"], "ts": ts, "message": message}

    def _update(self, parameters: dict[str, Any]) -> dict[str, Any]:
        for messages in self.server.threads.values():
            for message in messages:
                if message["ts"] == parameters["ts"]:
                    message.update(text=parameters["text"], blocks=parameters["blocks"])
        return {"channel": parameters["channel"], "ts": parameters["ts"], "text": parameters["text"]}

    def _replies(self, parameters: dict[str, Any]) -> dict[str, Any]:
        messages = self.server.threads[parameters["channel"], parameters["ts"]]
        start = int(parameters.get("cursor") or 0)
        size = min(int(parameters["limit"]), self.server.page)
        rest = start + size < len(messages)
        cursor = {"response_metadata": {"next_cursor": str(start + size)}} if rest else {}
        return {"messages": messages[start : start + size], "has_more": rest, **cursor}

    def _answer(self, body: dict[str, Any], status: int = 200, retry_after: int | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
