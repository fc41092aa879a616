"""Keeping an index fresh while files change: by news of the file system, or by looking where it gives none."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from inhouse_retrieval.errors import Cancelled, InhouseError
from inhouse_retrieval.index import Index
from inhouse_retrieval.index_report import IndexReport

_log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 2.0
"""Where the file system tells nothing."""


def watch(
    index: Index,
    stop: threading.Event,
    on_refresh: Callable[[IndexReport], None],
    on_error: Callable[[InhouseError], None] | None = None,
) -> None:
    """Refresh ``index`` whenever the work tree or HEAD changes, until ``stop`` is set.

    Begins with a refresh. Where a few files changed, only they are looked at. A refresh that fails (a full disk, say)
    is reported and tried again at the next change.
    """
    told: set[str] = set()

    def refresh(paths: Collection[str] | None) -> None:
        try:
            report = index.refresh() if paths is None else index.refresh_files(paths)
            if report.changed or report.commit not in told:
                told.clear()
                told.add(report.commit)
                on_refresh(report)
        except Cancelled:
            stop.set()
        except InhouseError as error:
            _log.warning("refreshing failed: %s", error)
            if on_error is not None:
                on_error(error)

    refresh(None)
    for paths in _changes(index, stop):
        refresh(paths)


def _changes(index: Index, stop: threading.Event) -> Iterable[Collection[str] | None]:
    """Paths that changed, relative to the root; ``None`` where a look at everything is needed."""
    from watchfiles import Change
    from watchfiles import watch as watch_files
    from watchfiles._rust_notify import WatchfilesRustInternalError

    # Ctrl-C is how watching ends, and no warning; what goes wrong is raised.
    logging.getLogger("watchfiles.main").setLevel(logging.ERROR)
    root, git_folder, state = index.repository.root, index.repository.git_folder(), index.state_dir.resolve()
    refs = (str(git_folder / "HEAD"), str(git_folder / "refs"), str(git_folder / "packed-refs"))

    def matters(change: Change, path: str) -> bool:
        if path.startswith(f"{state}{os.sep}"):
            return False
        if path.startswith(f"{git_folder}{os.sep}"):
            return path.startswith(refs) and not path.endswith(".lock")
        return f"{os.sep}node_modules{os.sep}" not in path

    folders = (
        [root, *index.wiki.folders] if git_folder.is_relative_to(root) else [root, git_folder, *index.wiki.folders]
    )
    while not stop.is_set():
        # What changed before the watch was in place shows at the first time-out; what it misses later (a network
        # file system tells nothing), at every thirtieth.
        quiet = 0
        try:
            for changes in watch_files(
                *folders,
                watch_filter=matters,
                stop_event=stop,
                debounce=400,
                step=100,
                rust_timeout=1000,
                yield_on_timeout=True,
                raise_interrupt=False,
            ):
                if changes:
                    yield _within(root, git_folder, [path for _, path in changes])
                elif quiet % 30 == 0:
                    yield None
                # Something told is no reason to look at everything a second later.
                quiet = 1 if changes else quiet + 1
            return
        except WatchfilesRustInternalError as error:
            # A file whose name is not UTF-8 ends the watch that tells of it, with all else that it had to tell.
            _log.warning("watching begins anew: %s", error)
            if not stop.wait(_LOOK_AGAIN_S):
                yield None
        except OSError as error:
            # inotify runs out of watches in very large trees.
            _log.warning("watching is not possible, looking every two seconds instead: %s", error)
            while not stop.wait(_LOOK_AGAIN_S):
                yield None


def _within(root: Path, git_folder: Path, paths: Sequence[str]) -> Collection[str] | None:
    """The paths relative to ``root``; ``None`` when one is git's own or lies elsewhere."""
    found = {Path(path) for path in paths}
    if any(path.is_relative_to(git_folder) or not path.is_relative_to(root) or path == root for path in found):
        return None
    return {path.relative_to(root).as_posix() for path in found}
