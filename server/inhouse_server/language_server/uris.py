"""File URIs and paths of the repository."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from urllib.parse import unquote_to_bytes, urlsplit


def file_of(uri: str) -> Path | None:
    """The local file that ``uri`` names; ``None`` for anything else, such as an untitled buffer."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    if parts.scheme.lower() != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        return None
    # What follows the authority, whole: a file URI has no query or fragment, so an unescaped `?` or `#` is
    # the file's.
    rest = uri.split(":", 1)[1].removeprefix("//").removeprefix(parts.netloc)
    try:
        decoded = os.fsdecode(unquote_to_bytes(rest))
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON may spell and no file's name holds
        return None
    return None if "\0" in decoded else Path(os.path.normpath(decoded))


def path_in(root: Path, uri: str) -> str | None:
    """Path of ``uri``'s file relative to ``root``, with forward slashes; ``None`` when it lies outside.

    An editor may reach the root through a symbolic link, so a file outside is looked at once more with links
    resolved.
    """
    file = file_of(uri)
    if file is None:
        return None
    for candidate in (file, Path(os.path.realpath(file))):
        if candidate != root and candidate.is_relative_to(root):
            return str(PurePosixPath(candidate.relative_to(root)))
    return None
