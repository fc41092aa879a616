"""What the command line draws: errors, progress bars, clickable locations, logs."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from inhouse_retrieval.progress import Progress
from inhouse_server.locations import file_uri
from inhouse_server.logs import JsonLines, PlainLines

_T = TypeVar("_T")
LOG_VARIABLE = "INHOUSE_LOG"
_MEGABYTES = "MB"
UNITS = {
    "reading": "files",
    "embedding": "chunks",
    "embedding the history": "titles",
    "embedding pull requests": "passages",
    "reading pull requests": "pull requests",
    "storing vectors": "vectors",
    "checking vectors": "vectors",
    "download base model": _MEGABYTES,
    "check base model": _MEGABYTES,
    "convert base model": _MEGABYTES,
}
"""What a stage counts, where its name does not say so."""


def explain(problem: str, remedy: str = "") -> None:
    """Say on standard error what is wrong and what to do."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True)
    console.print(Text("error: ", style="bold red").append(Text(problem, style="not bold")))
    if remedy:
        console.print(Text(remedy, style="dim"))


def tell(sentence: str) -> None:
    """Say on standard error what the user should know meanwhile."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text(sentence, style="dim"))


def warn(sentence: str) -> None:
    """Say on standard error what went wrong beside the work, which is done all the same."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(
        Text("warning: ", style="bold yellow").append(sentence, style="not bold")
    )


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def log_to_stderr() -> None:
    """Write warnings, or what ``INHOUSE_LOG`` names, to standard error."""
    _log_to([logging.StreamHandler(sys.stderr)], _level())


def start_logging(state_dir: Path, name: str, json: bool = False) -> None:
    """Write what is logged to ``state_dir/logs/NAME.log`` as well; both as text, or as one JSON object a line.

    A state directory that does not exist yet is not made for a log alone.
    """
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setLevel(_level())
    handlers: list[logging.Handler] = [to_terminal]
    level = min(_level(), logging.INFO)
    if state_dir.is_dir():
        folder = state_dir / "logs"
        with suppress(OSError):  # a folder that cannot be written keeps nobody from reading what is in it
            folder.mkdir(exist_ok=True)
            to_file = logging.FileHandler(folder / f"{name}.log", encoding="utf-8")
            to_file.setLevel(level)
            handlers.append(to_file)
    _log_to(handlers, level, json)


def _level() -> int:
    return logging.getLevelNamesMapping().get(os.environ.get(LOG_VARIABLE, "warning").upper(), logging.WARNING)


def _log_to(handlers: list[logging.Handler], level: int, json: bool = False) -> None:
    logging.raiseExceptions = False  # on a full disk every line would print a traceback
    for handler in handlers:
        handler.setFormatter(JsonLines() if json else PlainLines())
    logging.basicConfig(level=level, handlers=handlers, force=True)


@contextmanager
def progress_bar(shown: bool = True) -> Iterator[Progress]:
    """A progress bar with time left, on standard error; one line per stage where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not shown:
        yield lambda stage, done, total: None
        return
    if not console.is_terminal:
        yield _stage_lines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[how_far]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def update(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                for begun in bars.tasks:  # over, also where its last report came before its last item
                    if begun.total is not None:
                        end = how_far(begun.description, int(begun.total), int(begun.total))
                        bars.update(begun.id, completed=begun.total, how_far=end, left="")
                tasks[stage] = bars.add_task(stage, total=total, how_far="", left="")
            left = "" if total is None or done >= total else "left"
            bars.update(tasks[stage], completed=done, total=total, how_far=how_far(stage, done, total), left=left)

        yield update


def while_waiting(what: str, events: Iterator[_T]) -> Iterator[_T]:
    """``events``; until the first of them comes, a terminal shows ``what`` and the seconds so far."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True
        ) as waiting:
            waiting.add_task(what, total=None)
            first = next(events, None)
        if first is not None:
            yield first
    yield from events


def how_far(stage: str, done: int, total: int | None) -> str:
    """``"1,204 of 5,210 chunks"``; empty where nothing was counted yet."""
    unit = UNITS.get(stage, "")
    if unit == _MEGABYTES:
        done, total = done // 1_000_000, None if total is None else total // 1_000_000
    if total is None:
        return f"{done:,} {unit}".rstrip() if done else ""
    return f"{done:,} of {total:,} {unit}".rstrip()


def _stage_lines(console: Any) -> Progress:
    seen: set[str] = set()

    def update(stage: str, done: int, total: int | None) -> None:
        if stage not in seen:
            seen.add(stage)
            count = f", {how_far(stage, done, total)}" if total and done < total else ""
            console.print(f"{stage}{count} …", highlight=False, markup=False)

    return update


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """``text`` without what a terminal would obey: control characters other than tab and line end."""
    # By number: an interrupt while Python looks a character up by its name becomes a SyntaxError.
    return _CONTROL.sub("\ufffd", text)


def location(root: Path, path: str, line: int) -> str:
    """``path:line`` as a link that terminals open (OSC 8), plain where output is no terminal."""
    text = f"{plain(path).replace(chr(10), ' ')}:{line}"
    if not sys.stdout.isatty():
        return text
    uri = file_uri(root, path)
    return f"\x1b]8;;{uri}#{line}\x1b\\{text}\x1b]8;;\x1b\\"
