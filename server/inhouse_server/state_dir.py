"""The state directory: what inhouse keeps of a repository lies there."""

from __future__ import annotations

import tempfile
from pathlib import Path

from inhouse_retrieval.errors import StateUnwritable


def prepare_state_dir(state_dir: Path) -> None:
    """Make the state directory, private to the user and ignored by git.

    Raises:
        StateUnwritable: it cannot be written.
    """
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        ignore = state_dir / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
        # A file without a name: two processes, or two threads, may try at once.
        with tempfile.TemporaryFile(dir=state_dir) as probe:
            probe.write(b"writable")
    except OSError as error:
        raise unwritable(state_dir, error) from error


def unwritable(state_dir: Path, error: OSError) -> StateUnwritable:
    """The error that says why the state directory cannot be written."""
    return StateUnwritable(
        f"The state directory {state_dir} cannot be written: {error.strerror}.",
        "Free some space or change its rights, or set state_dir in inhouse.toml to a writable folder.",
    )
