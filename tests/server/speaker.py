"""A scripted model server for the `openai` engine: it speaks while it is listened to, which no small model does."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from inhouse_server.owner import OwnerAddress, find_owner

from .house import owner as serving


class Speaker(ThreadingHTTPServer):
    """``/v1/chat/completions`` that streams one sentence (or ``reply``), or words without end.

    The latter until its client leaves, which releases ``left``, or ``finish`` is set.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Speaking)
        self.left = threading.Semaphore(0)
        self.finish = threading.Event()
        self.reply = "Couriers come at noon."
        self.closing = "That is all."
        self.asked: deque[dict[str, Any]] = deque(maxlen=8)


class _Speaking(BaseHTTPRequestHandler):
    server: Speaker

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        if "without end" not in asked["messages"][-1]["content"]:
            half = len(self.server.reply) // 2
            self.say(self.server.reply[:half])
            self.say(self.server.reply[half:], "stop")
            self.wfile.write(b"data: [DONE]\n\n")
            return
        try:
            while not self.server.finish.is_set():
                self.say(f"{os.urandom(4).hex()} ")
                time.sleep(0.01)
            self.say(self.server.closing, "stop")
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.server.left.release()

    def say(self, text: str, reason: str | None = None) -> None:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def speaking() -> Iterator[Speaker]:
    """A speaker that runs until the block ends."""
    running = Speaker()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield running
    finally:
        running.shutdown()
        running.server_close()


@contextmanager
def scripted_owner(root: Path) -> Iterator[OwnerAddress]:
    """A real owner of ``root`` whose model is a script, so that thousands of answers take seconds."""
    with speaking() as speaker, saying(root, speaker) as found:
        yield found


@contextmanager
def saying(root: Path, speaker: Speaker, settings: str = "") -> Iterator[OwnerAddress]:
    """A real owner of ``root`` whose model is ``speaker``; ``settings`` are further ones, as TOML."""
    url = f"http://127.0.0.1:{speaker.server_port}/v1"
    (root / "inhouse.toml").write_text(f'[engine]\nkind = "openai"\nurl = "{url}"\nmodel = "speaker"\n{settings}')
    with serving(root):
        found = find_owner(root / ".inhouse")
        assert found is not None
        yield found
