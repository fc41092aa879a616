"""Bytes on this process's standard input and output, whatever mode an editor hands the pipes over in.

Descriptors, not ``sys.stdin``: a thread that holds its lock makes the interpreter's end a crash.
"""

from __future__ import annotations

import os
import select


def read_some(descriptor: int) -> bytes:
    """What there is, once there is something; empty when the other side closed the pipe."""
    while True:
        try:
            return os.read(descriptor, 1 << 16)
        except BlockingIOError:
            select.select([descriptor], [], [])  # Some editors hand over a pipe in non-blocking mode.
        except OSError:
            return b""


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it.

    Raises:
        OSError: the other side closed the pipe.
    """
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
