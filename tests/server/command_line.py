"""The command line as a test calls it: in its own process, where starting one anew is not the point."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, Any
from unittest import mock

import pytest

from inhouse_retrieval.errors import Cancelled
from inhouse_server.cli import main


def inhouse(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the command line does, in this process: in one of its own, torch and a model take it ten seconds.

    All that it writes is taken, also by its children and by libraries.
    """
    logged, level, terminate = logging.root.handlers[:], logging.root.level, signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as ends:
        streams = [
            ends.enter_context(_taken(number, redirect))
            for number, redirect in ((1, contextlib.redirect_stdout), (2, contextlib.redirect_stderr))
        ]
        patch.setattr(sys, "unraisablehook", sys.unraisablehook)
        patch.setattr(threading, "excepthook", threading.__excepthook__)
        ends.enter_context(mock.patch.dict(os.environ, {"INHOUSE_ANSWER_MAX_TOKENS": "24", **environment}))
        logging.root.handlers[:] = []  # ``basicConfig`` closes what it takes away
        try:
            code = main([*arguments])
        finally:
            for handler in logging.root.handlers:
                handler.close()
            logging.root.handlers[:] = logged
            logging.root.setLevel(level)
            signal.signal(signal.SIGTERM, terminate)
        stdout, stderr = map(_written, streams)
    if code == Cancelled.exit_code:
        raise KeyboardInterrupt(stderr)  # by who runs the tests
    assert "Traceback" not in stderr
    return subprocess.CompletedProcess(arguments, code, stdout, stderr)


@contextlib.contextmanager
def _taken(number: int, redirect: Any) -> Iterator[IO[str]]:
    """What is written to the file descriptor and to Python's stream of it, as a file."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as file:
        kept = os.dup(number)
        os.dup2(file.fileno(), number)
        try:
            with redirect(file):
                yield file
        finally:
            os.dup2(kept, number)
            os.close(kept)


def _written(file: IO[str]) -> str:
    file.flush()
    file.seek(0)
    return file.read()
