"""The exports that the settings name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from inhouse_retrieval.errors import InhouseError
from inhouse_retrieval.export_paths import ExportPaths
from inhouse_retrieval.exports.chat import read_chat
from inhouse_retrieval.exports.mail import read_mail
from inhouse_retrieval.exports.thread import Thread
from inhouse_retrieval.exports.tickets import read_tickets
from inhouse_retrieval.snapshot import SkippedFile

_BLOCK = 1 << 20

Reader = Callable[[Path, str], Iterator[Thread | SkippedFile]]


def read_exports(root: Path, paths: ExportPaths) -> Iterator[Thread | SkippedFile]:
    """Every thread of every export, and what could not be read.

    Raises:
        InhouseError: an export is not there.
    """
    for path, shown, read in _sources(root, paths):
        yield from read(path, shown)


def exports_digest(root: Path, paths: ExportPaths) -> str:
    """Changes when an export does; empty when none is named.

    Raises:
        InhouseError: an export is not there, or cannot be read.
    """
    digest = hashlib.sha256()
    sources = _sources(root, paths)
    for path, shown, _ in sources:
        digest.update(f"\0{shown}\0".encode("utf-8", "surrogateescape"))
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        try:
            for file in files:
                if file.is_file() and not file.is_symlink():
                    digest.update(str(file.relative_to(path)).encode("utf-8", "surrogateescape"))
                    with file.open("rb") as data:
                        while block := data.read(_BLOCK):
                            digest.update(block)
        except OSError as error:
            raise InhouseError(
                f"The export {shown} cannot be read: {error.strerror}.",
                "Make it readable, or remove it from [exports].",
            ) from error
    return digest.hexdigest() if sources else ""


def _sources(root: Path, paths: ExportPaths) -> list[tuple[Path, str, Reader]]:
    found: list[tuple[Path, str, Reader]] = []
    readers: tuple[tuple[str, tuple[str, ...], Reader], ...] = (
        ("chat", paths.chat, read_chat),
        ("tickets", paths.tickets, read_tickets),
        ("mail", paths.mail, read_mail),
    )
    for key, names, read in readers:
        for name in names:
            # Path.expanduser fails for a user who is not there.
            path = root / os.path.expanduser(name)  # noqa: PTH111
            if not path.exists() or (path.is_dir() and key != "chat"):
                raise InhouseError(
                    f"[exports] {key} names {name!r}, and there is no such file.",
                    "Correct or remove it in inhouse.toml.",
                )
            found.append((path, name, read))
    return found
