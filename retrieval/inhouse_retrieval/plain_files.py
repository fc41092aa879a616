"""The files of a folder as they are on disk: opened one component at a time and never through a symbolic link, so that
nothing outside the folder is ever read. Unchanged ones are told by their entry and not read again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from inhouse_retrieval.errors import InhouseError
from inhouse_retrieval.reading import MAX_FILE_BYTES, reason_by_size
from inhouse_retrieval.snapshot import SkippedFile, TrackedFile

_RACY_NS = 2_000_000_000
"""A file changed less than this before it was hashed may change again within one clock tick, so it is not
cached."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A blob id and the stat fields that prove it still holds."""

    key: tuple[int, int, int, int]
    blob_id: str


class PlainFiles:
    """The files below ``root``, and the blob ids of those that were read. Methods may be called from any thread.

    Args:
        hash_name: of the hash by which git names content.
    """

    def __init__(self, root: Path, hash_name: str) -> None:
        self._root = root
        self._hash = hash_name
        self._seen: dict[str, _Seen] = {}

    def keep(self, files: Iterable[TrackedFile]) -> None:
        """Forget what was remembered of others than ``files``."""
        self._seen = {file.path: self._seen[file.path] for file in files if file.path in self._seen}

    def unchanged(self, path: str, folders: dict[str, bool]) -> TrackedFile | None:
        """A file that is the very one seen before, told by one look at its entry; ``None`` when it must be opened.

        Args:
            folders: folder -> whether it and those above it are folders and no links, as far as this scan has looked.
        """
        seen = self._seen.get(path)
        if seen is None or not self._is_plain(path.rpartition("/")[0], folders):
            return None
        try:
            info = os.lstat(self._root / path)
        except OSError:
            return None
        key = (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino)
        return TrackedFile(path, seen.blob_id, info.st_size) if seen.key == key else None

    def _is_plain(self, folder: str, folders: dict[str, bool]) -> bool:
        if folder not in folders:
            try:
                above = self._is_plain(folder.rpartition("/")[0], folders)
                folders[folder] = above and stat.S_ISDIR(os.lstat(self._root / folder).st_mode)
            except OSError:
                folders[folder] = False
        return folders[folder]

    def look(self, path: str) -> TrackedFile | SkippedFile | None:
        """``path`` as it is on disk; unchanged files are not read again."""
        opened = self._open(path)
        if not isinstance(opened, int):
            return opened
        try:
            info = os.fstat(opened)
            reason = "not a regular file" if not stat.S_ISREG(info.st_mode) else reason_by_size(info.st_size)
            if reason is not None:
                return SkippedFile(path, reason)
            key = (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino)
            seen = self._seen.get(path)
            if seen is not None and seen.key == key:
                return TrackedFile(path, seen.blob_id, info.st_size)
            started = time.time_ns()
            with os.fdopen(os.dup(opened), "rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
            blob = self.blob_id(data)
            if started - max(info.st_mtime_ns, info.st_ctime_ns) > _RACY_NS:
                self._seen[path] = _Seen(key, blob)
            return TrackedFile(path, blob, len(data))
        except OSError as error:
            return SkippedFile(path, _unreadable(error))
        finally:
            os.close(opened)

    def read(self, path: str) -> bytes | SkippedFile | None:
        """The bytes at ``path``; ``None`` when nothing is there."""
        opened = self._open(path)
        if not isinstance(opened, int):
            return opened
        try:
            with os.fdopen(opened, "rb") as stream:
                info = os.fstat(stream.fileno())
                if not stat.S_ISREG(info.st_mode):
                    return SkippedFile(path, "not a regular file")
                reason = reason_by_size(info.st_size)
                return SkippedFile(path, reason) if reason is not None else stream.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            return SkippedFile(path, _unreadable(error))

    def blob_id(self, data: bytes) -> str:
        """The id git gives to these bytes (without any text filter)."""
        return hashlib.new(self._hash, b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()

    def _open(self, path: str) -> int | SkippedFile | None:
        """A descriptor for ``path``, refusing every symbolic link on the way."""
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts):
            return SkippedFile(path, "not inside the work tree")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            folder = os.open(self._root, flags | os.O_DIRECTORY)
        except OSError as error:
            raise InhouseError(
                f"{self._root} cannot be read: {error.strerror}.", "Check that it is still there and readable."
            ) from error
        try:
            for part in parts[:-1]:
                inner = os.open(part, flags | os.O_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = inner
            # Non-blocking: a named pipe would otherwise wait for a writer forever.
            return os.open(parts[-1], flags | os.O_NONBLOCK, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            return SkippedFile(path, _unreadable(error))
        finally:
            os.close(folder)


def _unreadable(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return "symbolic link"
    if error.errno == errno.ENOTDIR:
        return "a folder on its path is a symbolic link or a file"
    return f"cannot be read: {(error.strerror or 'unknown error').lower()}"
