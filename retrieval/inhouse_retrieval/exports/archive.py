"""The files of an export, in a folder or a zip archive, opened with distrust.

Nothing is unpacked to disk. What leads out of the export, and what grows beyond all reason when it is unpacked, is not
read.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from inhouse_retrieval.snapshot import SkippedFile

MAX_BYTES = 64_000_000
"""A day of one channel is far below; a larger file is no such export."""
MAX_RATIO = 200
"""Deflate reaches a thousand on zeros, and about ten on text."""
MAX_FILES = 500_000

TOO_LARGE = f"larger than {MAX_BYTES // 1_000_000} MB"


class Archive:
    """A folder or a zip archive.

    Attributes:
        names: the files that may be read, in order, as paths with forward slashes.
        skipped: what may not, with its reason.
    """

    def __init__(self, path: Path, shown: str) -> None:
        """
        Raises:
            OSError: it cannot be opened.
            zipfile.BadZipFile: it is no zip archive.
        """
        self._path = path
        self._shown = shown
        self._zip = None if path.is_dir() else zipfile.ZipFile(path)
        self.names: list[str] = []
        self.skipped: list[SkippedFile] = []
        for name, reason in self._list_folder() if self._zip is None else self._list_zip(self._zip):
            if len(self.names) >= MAX_FILES:
                self.skipped.append(SkippedFile(shown, f"more than {MAX_FILES} files; the others are not read"))
                break
            if reason:
                self.skipped.append(SkippedFile(f"{shown}:{_printable(name)}", reason))
            else:
                self.names.append(name)
        self.names.sort()

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, name: str) -> bytes | SkippedFile:
        """The bytes of a file."""
        where = f"{self._shown}:{_printable(name)}"
        try:
            if self._zip is None:
                with (self._path / name).open("rb") as file:
                    data = file.read(MAX_BYTES + 1)
            else:
                with self._zip.open(name) as member:
                    data = member.read(MAX_BYTES + 1)
        except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
            return SkippedFile(where, f"cannot be read: {type(error).__name__}")
        return SkippedFile(where, TOO_LARGE) if len(data) > MAX_BYTES else data

    def _list_zip(self, archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
        seen: set[str] = set()
        for member in archive.infolist():
            if member.is_dir():
                continue
            reason = ""
            pure = PurePosixPath(member.filename)
            if pure.is_absolute() or ".." in pure.parts or "\\" in member.filename or ":" in member.filename:
                reason = "its name leads out of the archive"
            elif member.external_attr >> 28 == 0xA:
                reason = "symbolic link"
            elif member.file_size > MAX_BYTES:
                reason = TOO_LARGE
            elif member.file_size > MAX_RATIO * max(member.compress_size, 1000):
                reason = f"grows more than {MAX_RATIO} times when it is unpacked"
            elif member.filename in seen:
                reason = "the archive holds this name twice"
            seen.add(member.filename)
            yield member.filename, reason

    def _list_folder(self) -> Iterator[tuple[str, str]]:
        for path in sorted(self._path.rglob("*")):  # does not follow links to folders
            name = path.relative_to(self._path).as_posix()
            if path.is_symlink():
                yield name, "symbolic link"
            elif path.is_file():
                yield name, TOO_LARGE if path.stat().st_size > MAX_BYTES else ""


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode() if name.isprintable() else ascii(name)
