"""The first moments of `inhouse lsp`: `initialize` is answered before anything is imported that takes long.

An editor's own start waits for that answer. Settings, the relay and its connection come after it. Imported here is only
what the answer takes: no asyncio, no dataclasses, no logging, no subprocess. ``benchmarks/initialize.py`` measures it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys

from inhouse_server.framing import FrameReader, frame
from inhouse_server.lsp_capabilities import initialize_response
from inhouse_server.settings_file import may_complete_inline
from inhouse_server.stdio import read_some, write_all

_REST_S = 0.5
"""How long the rest of a message that has begun may take; an editor writes it at once."""


class Greeting:
    """What the editor said while this process started.

    Attributes:
        frames: cuts the editor's stream into messages, and may hold the beginning of one.
        bodies: the messages that came, also the one that was answered.
        answered: the first of them is ``initialize``, and the editor has its answer.
    """

    def __init__(self) -> None:
        self.frames = FrameReader()
        self.bodies: list[bytes | None] = []
        self.answered = False


def greet(repo: str) -> Greeting:
    """Answer what the editor has asked by now, if that is ``initialize`` and its answer is known without the settings.

    Nothing is waited for: whatever is wrong with ``repo``, the user hears of it whether or not an editor speaks.

    Args:
        repo: a folder in the repository.
    """
    greeting = Greeting()
    root = _root_around(repo)
    if root is None or may_complete_inline(root):
        return greeting
    _listen(greeting)
    if greeting.bodies and (answer := _answer(greeting.bodies[0])) is not None:
        greeting.answered = True
        with contextlib.suppress(OSError):  # The editor left. The relay reads the end of its stream, and ends.
            write_all(sys.stdout.fileno(), answer)
    return greeting


def _root_around(repo: str) -> str | None:
    """The nearest folder with a ``.git``. Git has the last word, but is asked later: starting it takes a while."""
    folder = os.path.realpath(repo)
    while not os.path.lexists(os.path.join(folder, ".git")):  # noqa: PTH118
        parent = os.path.dirname(folder)  # noqa: PTH120
        if parent == folder:
            return None
        folder = parent
    return folder


def _listen(greeting: Greeting) -> None:
    descriptor, patience_s = sys.stdin.fileno(), 0.0
    while not greeting.bodies and select.select([descriptor], [], [], patience_s)[0]:
        data = read_some(descriptor)
        if not data:
            return
        greeting.bodies += greeting.frames.feed(data)
        patience_s = _REST_S


def _answer(body: bytes | None) -> bytes | None:
    try:
        message = json.loads(body or b"")
    except (ValueError, RecursionError):
        return None
    response = initialize_response(message)
    return None if response is None else frame(json.dumps(response).encode())
