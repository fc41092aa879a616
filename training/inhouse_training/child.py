"""A child process of a long job: started without a network or telemetry, heard over a pipe, and gone with its parent.

What runs in it is a module of this package, called with a folder, the pipe and the parent's process id. It tells one
JSON object a line: ``{"event": NAME, …}``.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

_GRACE_SECONDS = 40.0
"""A child that has a child of its own waits for that one first."""


class Child:
    """One child process and what it tells.

    Attributes:
        log: where what it and its libraries print goes.
        closed: whether it has told everything: it has ended, or is about to.
    """

    def __init__(
        self, module: str, folder: Path, log: Path, environment: Mapping[str, str], grace: float = _GRACE_SECONDS
    ) -> None:
        self.log = log
        self.closed = False
        self._grace = grace
        self._unread = b""
        self._asked = False
        self._pipe, writing = os.pipe()
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", module, str(folder), str(writing), str(os.getpid())],
                    cwd=folder,
                    env={**os.environ, **OFFLINE, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(writing,),
                    # Ctrl-C goes to the caller alone, who then stops the child in order.
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(writing)

    def fileno(self) -> int:
        """The reading end of its pipe, for a selector."""
        return self._pipe

    def received(self) -> list[dict[str, Any]]:
        """Read once; the events that are whole by now. Blocks where nothing can be read."""
        block = os.read(self._pipe, 65536)
        self.closed = not block
        *lines, self._unread = (self._unread + block).split(b"\n")
        return [json.loads(line) for line in lines]

    def exit_code(self) -> int:
        """Wait for its end; negative for the signal that ended it."""
        return self._process.wait()

    def stop(self) -> None:
        """Ask it to stop in order, once, and do not wait: a second signal would break into what it does to end."""
        if self._process.poll() is None and not self._asked:
            self._asked = True
            self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        if self._process.poll() is None:
            self._process.kill()

    def end(self) -> None:
        """Let it stop in order, or kill it when it takes too long; whatever it was doing, it is gone afterwards."""
        self.stop()
        if self._process.poll() is None:
            try:
                self._process.wait(self._grace)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def wait_for(children: Iterable[Child], seconds: float) -> list[Child]:
    """The children that have something to tell, after ``seconds`` at most."""
    with selectors.DefaultSelector() as selector:
        for child in children:
            selector.register(child, selectors.EVENT_READ, child)
        return [key.data for key, _ in selector.select(seconds)]


def why_it_ended(code: int, log: Path) -> str:
    """The end of the sentence "It stopped: …" for a child that did not say why itself."""
    if code < 0:
        killed = ", as happens when memory runs out" if code == -signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(-code).name}{killed}"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else "its process ended without a word"
