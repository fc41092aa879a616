"""Where a repository's work tree begins. For those who want to know only that, which takes fewer imports."""

from __future__ import annotations

from pathlib import Path

from inhouse_retrieval.errors import NotARepository
from inhouse_retrieval.git_process import run_git


def top_of_work_tree(path: Path) -> Path:
    """Absolute path of the top of the work tree that the folder ``path`` lies in.

    Raises:
        NotARepository: no git work tree there, or a bare repository, or git refuses to read it.
    """
    if not path.is_dir():
        raise NotARepository(f"{path} is not a folder.", "Give a folder inside a git repository.")
    asked = run_git(path, "rev-parse", "--is-bare-repository", "--show-toplevel")
    words = asked.stdout.decode("utf-8", "surrogateescape").split("\n")
    if asked.returncode == 0 and len(words) > 1 and words[1]:
        # The name may itself contain line breaks; only the last one is git's.
        return Path("\n".join(words[1:])[:-1])
    path = path.absolute()  # "." tells nobody where
    said = asked.stderr.decode("utf-8", "replace")
    if "dubious ownership" in said:
        raise NotARepository(
            f"Git does not trust {path}, since another user owns it.",
            f"Run `git config --global --add safe.directory {path}` if you trust it.",
        )
    if words[0] == "true":
        raise NotARepository(
            f"{path} is a bare repository, which has no files on disk.",
            "Clone it, and run inhouse in the clone.",
        )
    raise NotARepository(
        f"{path} is not inside a git work tree.",
        "Run inhouse in a git repository, or name one with --repo.",
    )
