"""The state directory: what inhouse keeps of a repository lies there."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inhouse_retrieval.errors import StateUnwritable

log = logging.getLogger(__name__)

_IGNORE = "*\n"
_FOLDERS = ("adapters", "logs", "pull-requests", "runs", "vectors")
_FILES = ("catalog.sqlite", "index.lock", "owner.json", "owner.lock", "retrain.lock", "token")


def prepare_state_dir(state_dir: Path) -> None:
    """Make the state directory, private to the user and ignored by git.

    What stands where inhouse keeps something of another kind, such as a file in place of a folder, is moved aside.

    Raises:
        StateUnwritable: it cannot be written.
    """
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        ignore = state_dir / ".gitignore"
        if not ignore.is_file() or ignore.read_text(encoding="utf-8", errors="replace") != _IGNORE:
            write_whole(ignore, _IGNORE)  # a full disk may have left an empty one, and git would list all of this
        # A file without a name: two processes, or two threads, may try at once.
        with tempfile.TemporaryFile(dir=state_dir) as probe:
            probe.write(b"writable")
        for path in (*(state_dir / name for name in _FOLDERS), *(state_dir / name for name in _FILES)):
            if path.exists() and path.is_dir() != (path.name in _FOLDERS):
                aside = Path(tempfile.mkdtemp(prefix=f"{path.name}.set-aside-", dir=state_dir)) / path.name
                path.rename(aside)
                log.warning("%s was not what inhouse keeps there, and is now %s", path, aside)
    except FileExistsError as error:
        raise StateUnwritable(
            f"The state directory cannot be made: {state_dir} is a file.",
            "Move it away, or set state_dir in inhouse.toml to another folder.",
        ) from error
    except OSError as error:
        raise unwritable(state_dir, error) from error


def write_whole(path: Path, text: str, sync: bool = True) -> None:
    """Write a small file, for the user alone, so that whoever reads it finds all of it or what was there before.

    Args:
        sync: also after a loss of power.

    Raises:
        OSError: it cannot be written.
    """
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # threads may write it at once
    partial = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def plain_disk_errors(state_dir: Path) -> Iterator[None]:
    """What keeps the state directory from being written, as a :class:`StateUnwritable`."""
    try:
        yield
    except OSError as error:
        raise unwritable(state_dir, error) from error


def unwritable(state_dir: Path, error: OSError) -> StateUnwritable:
    """The error that says why the state directory cannot be written."""
    return StateUnwritable(
        f"The state directory {state_dir} cannot be written: {error.strerror}.",
        "Free some space or change its rights, or set state_dir in inhouse.toml to a writable folder.",
    )
