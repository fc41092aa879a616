"""What of ``inhouse.toml`` may be believed while a change is reviewed: what the main branch says.

The file in the work tree may be the change's own, and a change can hide that it touches it: it can exclude the file
from what is read, link it elsewhere, or give it other line ends.
"""

from __future__ import annotations

import tomllib
from typing import Any

from inhouse_retrieval import InhouseError, Repository
from inhouse_server.review.diff import main_branch
from inhouse_server.settings_file import FILE_NAME


def settings_on_main(repository: Repository) -> tuple[str, bytes]:
    """The main branch, and what ``inhouse.toml`` holds there; empty where there is none."""
    main = main_branch(repository) or ""
    return main, repository.git("show", f"{main}:{FILE_NAME}", allow_failure=True) if main else b""


def require_trusted_forge(repository: Repository, head_commit: str) -> None:
    """See that ``[forge]``, which says where the token goes, is the operator's.

    It is when the main branch says the same, or when git knows no ``inhouse.toml`` at all.

    Args:
        head_commit: of the change.

    Raises:
        InhouseError: it may be the change's.
    """
    file = repository.root / FILE_NAME
    if not file.exists() and not file.is_symlink():
        return
    _, ours = settings_on_main(repository)
    if file.is_symlink():
        trusted = False
    elif ours:
        trusted = _forge_table(ours) == _forge_table(file.read_bytes()) is not None
    else:
        tracked = repository.git("ls-files", "--", FILE_NAME)
        trusted = not tracked and not repository.git("ls-tree", head_commit, "--", FILE_NAME)
    if not trusted:
        raise InhouseError(
            f"[forge] of {FILE_NAME} here is not that of the main branch, and may be the pull request's: the token "
            "would go where it says.",
            "Check out the main branch, then post.",
        )


def _forge_table(text: bytes) -> dict[str, Any] | None:
    """What the file says of the forge; ``None`` when it cannot be read."""
    try:
        found: dict[str, Any] = tomllib.loads(text.decode("utf-8")).get("forge", {})
    except ValueError:
        return None
    return found
