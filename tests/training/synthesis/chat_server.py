"""An OpenAI-compatible server on loopback: real sockets, real HTTP. Each request, and each answer that should be one,
is checked against the types that the API's own client publishes before it goes out."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

KEY = "chat-key-77ab"
_REQUEST: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsNonStreaming)
_BLOCK = re.compile(r"^(\S+)\n(`{3,})\n(.*?)\n\2$", re.M | re.S)


@dataclass
class Failure:
    """Answered instead of a completion."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": {"message": "no", "type": "server_error"}}'


@dataclass
class Asked:
    """One request: what the user's turn said, when it came (seconds), how it was answered (0: not yet)."""

    prompt: str
    at: float
    status: int = 0


class ChatServer:
    """The server; ``write`` gives the content of the n-th answer (from 0), its finish reason, or a :class:`Failure`."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.mistakes: list[BaseException] = []
        self.write: Callable[[int, str], str | tuple[str, str] | Failure] = lambda number, prompt: honest(prompt)
        self.most_at_once = 0
        self._under_way = 0
        server, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    asked = Asked(content["messages"][-1]["content"], time.monotonic())
                    number = len(server.asked)
                    server.asked.append(asked)
                    server._under_way += 1
                    server.most_at_once = max(server.most_at_once, server._under_way)
                try:
                    status, headers, body = server.answer(number, content, self.headers["Authorization"])
                except BaseException as error:
                    server.mistakes.append(error)
                    status, headers, body = 400, {}, b"{}"
                with lock:
                    server._under_way -= 1
                with suppress(ConnectionError):  # of a client that was killed
                    self.send_response(status)
                    for name, value in {**headers, "Content-Length": str(len(body))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)
                    asked.status = status

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def answer(self, number: int, content: Any, authorization: str) -> tuple[int, dict[str, str], bytes]:
        _REQUEST.validate_python(content)
        if authorization != f"Bearer {KEY}":
            return 401, {}, b'{"error": {"message": "bad key", "type": "invalid_request_error"}}'
        prompt = content["messages"][-1]["content"]
        said = self.write(number, prompt)
        if isinstance(said, Failure):
            return said.status, said.headers, said.body
        text, reason = said if isinstance(said, tuple) else (said, "stop")
        read, made = len(prompt) // 4, len(text) // 4
        completion = {
            "id": f"c{number}", "object": "chat.completion", "created": 1, "model": content["model"],
            "choices": [{"index": 0, "finish_reason": reason, "logprobs": None,
                         "message": {"role": "assistant", "content": text, "refusal": None}}],
            "usage": {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made},
        }  # fmt: skip
        ChatCompletion.model_validate(completion, strict=False)
        return 200, {"Content-Type": "application/json"}, json.dumps(completion).encode()

    def answered(self) -> list[str]:
        """The prompts that were answered with a completion, in order."""
        return [each.prompt for each in self.asked if each.status == 200]

    @contextmanager
    def running(self) -> Iterator[ChatServer]:
        """Serve until the end of the block; then say whether something was asked that should not be."""
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            if self.mistakes:
                raise self.mistakes[0]


def sources(prompt: str) -> list[tuple[str, str]]:
    """``(path, text)`` of each block that the prompt shows."""
    return [(path, text) for path, _, text in _BLOCK.findall(prompt)]


def honest(prompt: str) -> str:
    """A reply that quotes what it was shown: one item, about the longest line of each block."""
    shown = sources(prompt)
    quotes = [max(text.split("\n"), key=len) for _, text in shown]
    paths = " and ".join(f"`{path}`" for path, _ in shown)
    if '"question"' in prompt:
        item = {"question": f"What is the longest line of {paths}?", "quote": quotes[0], "answer": f"`{quotes[0]}`."}
    elif '"first_quote"' in prompt:
        item = {"first_quote": quotes[0], "second_quote": quotes[1], "statement": f"{paths} belong together."}
    else:
        item = {"quote": quotes[0], "statement": f"{paths} belongs to the house."}
    return json.dumps({"items": [item]})
