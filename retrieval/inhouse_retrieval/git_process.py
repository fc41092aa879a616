"""Running git: without its optional locks, and without hooks, prompts, text filters or network access."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import threading
from collections.abc import Generator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from inhouse_retrieval.errors import InhouseError

_log = logging.getLogger(__name__)
_BLOCK = 1 << 20
_GIT = (
    "git",
    "-c",
    "core.quotePath=false",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "log.showSignature=false",
)
_INHERITED = re.compile(r"GIT_(DIR|WORK_TREE|INDEX_FILE|PREFIX|OBJECT_DIRECTORY|ALTERNATE_\w+|COMMON_DIR|NAMESPACE)$")


def run_git(
    folder: Path, *args: str, given: bytes = b"", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """``git args`` run in ``folder``, to its end, whatever it returns.

    Args:
        given: standard input.
        environment: variables beside those that git is always run with.

    Raises:
        InhouseError: git cannot be started, or an argument holds what no argument can, such as a NUL.
    """
    _log.debug("git %s", " ".join(args)[:200])
    try:
        return subprocess.run(
            [*_GIT, *args],
            cwd=folder,
            env={**_environment(), **(environment or {})},
            input=given,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise _cannot_start(folder, error) from error
    except ValueError as error:
        raise InhouseError(f"git cannot be asked for that name: {error}.", "Name one that exists.") from error


def git_lines(folder: Path, *args: str, seconds: float, given: bytes = b"") -> Generator[bytes]:
    """Lines of what ``git args`` writes, as it writes them. Git is ended with the iteration, or after ``seconds``.

    Raises:
        TimeoutError: it had not finished by then.
        InhouseError: git cannot be started.
    """
    try:
        process = subprocess.Popen(
            [*_GIT, *args],
            cwd=folder,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise _cannot_start(folder, error) from error
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, stop)
    timer.start()
    with process:
        try:
            for end in (lambda: _pipe(process.stdin).write(given), _pipe(process.stdin).close):
                with suppress(BrokenPipeError):
                    end()
            yield from _pipe(process.stdout)
        finally:
            timer.cancel()
            process.kill()
    if late.is_set():
        raise TimeoutError(f"`git {args[0]}` took more than {seconds} seconds.")


class ObjectReader:
    """Reads blobs through one ``git cat-file --batch``, one at a time."""

    def __init__(self, root: Path) -> None:
        self._process = subprocess.Popen(
            [*_GIT, "cat-file", "--batch"],
            cwd=root,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> ObjectReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()

    def read(self, name: str, limit: int | None = None) -> bytes | None:
        """Content of a blob, named by its id or as ``COMMIT:PATH``.

        ``None`` when this clone does not have it, or when it has more than ``limit`` bytes; those are not held.
        """
        asked, told = _pipe(self._process.stdin), _pipe(self._process.stdout)
        try:
            asked.write(name.encode("utf-8", "surrogateescape") + b"\n")
            asked.flush()
        except BrokenPipeError:
            return None
        header = told.readline().split()
        if len(header) != 3 or not header[2].isdigit():
            return None
        size = int(header[2])
        if limit is not None and size > limit:
            for at in range(0, size, _BLOCK):
                told.read(min(_BLOCK, size - at))
            told.read(1)
            return None
        data = told.read(size)
        told.read(1)
        return data


def _cannot_start(folder: Path, error: OSError) -> InhouseError:
    if not isinstance(error, FileNotFoundError):
        return InhouseError(f"git cannot be started in {folder}: {error.strerror}.", "Check the folder.")
    if not folder.is_dir():
        return InhouseError(f"{folder} is not there any more.", "Check out the repository again.")
    return InhouseError("git is not installed.", "Install git and make sure that it is on PATH.")


def _environment() -> dict[str, str]:
    """The user's environment without what a git hook sets; git is kept quiet, offline and in English."""
    kept = {name: value for name, value in os.environ.items() if not _INHERITED.match(name)}
    # The last two keep a partial clone from fetching what it lacks; the second works before git 2.45 as well.
    return kept | {
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
    }


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("the process was started without this pipe")
    return stream
