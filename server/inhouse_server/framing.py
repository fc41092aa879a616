"""Messages on a byte stream, as the Language Server Protocol frames them: headers, an empty line, a body."""

from __future__ import annotations

import re

_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,18})[ \t]*$", re.IGNORECASE | re.MULTILINE)
_MAX_HEADER = 8192
MAX_BODY = 256 * 1024 * 1024
"""A longer body is skipped: no editor means it."""


class FrameReader:
    """Cuts a stream into message bodies; ``None`` stands for a message that cannot be read."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body: int | None = None
        self._skip = 0

    def feed(self, data: bytes) -> list[bytes | None]:
        """The bodies that ``data`` completes."""
        self._buffer += data
        bodies: list[bytes | None] = []
        while self._advance(bodies):
            pass
        return bodies

    def _advance(self, bodies: list[bytes | None]) -> bool:
        if self._skip:
            dropped = min(self._skip, len(self._buffer))
            del self._buffer[:dropped]
            self._skip -= dropped
            return dropped > 0
        if self._body is not None:
            if len(self._buffer) < self._body:
                return False
            bodies.append(bytes(self._buffer[: self._body]))
            del self._buffer[: self._body]
            self._body = None
            return True
        return self._read_header(bodies)

    def _read_header(self, bodies: list[bytes | None]) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEADER:
                self._buffer.clear()
                bodies.append(None)
            return False
        header = bytes(self._buffer[:end]).replace(b"\r\n", b"\n")
        del self._buffer[: end + 4]
        match = _LENGTH.search(header)
        if match is None:
            bodies.append(None)
        elif (length := int(match[1])) > MAX_BODY:
            self._skip = length
            bodies.append(None)
        else:
            self._body = length
        return True


def frame(body: bytes) -> bytes:
    """``body`` with its header."""
    return b"Content-Length: %d\r\n\r\n" % len(body) + body
