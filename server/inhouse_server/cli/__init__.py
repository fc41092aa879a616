"""The command line: one file per command.

Exit codes: 0 done; 1 a problem, told in plain words; 2 wrong usage; 3 the gate rejected the candidate; 130 cancelled.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from types import FrameType

from inhouse_retrieval.errors import Cancelled, InhouseError
from inhouse_server.cli.start_lsp import plain_options, start


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code. Whatever goes wrong is told in plain words, never as a traceback."""
    try:
        signal.signal(signal.SIGTERM, _terminate)
        sys.unraisablehook = _unraisable
        if sys.stdout is None:  # as it is where a caller closed it
            sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  # until the process ends
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a terminal may not have every character of the code
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except InhouseError as error:
        _explain(error.problem, error.remedy)
        return error.exit_code
    except KeyboardInterrupt:
        return _cancelled()
    except BrokenPipeError:
        # The reader of our output went away, as `inhouse search … | head` does.
        sys.stderr.close()
        return 0
    except OSError as error:
        # What inhouse keeps is said to be unwritable where it is written; what is left is what was printed.
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EIO):
            sys.stdout = io.StringIO()  # else what is left is written once more at the exit
            _explain(f"The output cannot be written: {error.strerror}.", "Write it elsewhere, or free some space.")
        elif error.filename is not None and error.strerror:
            _log_unexpected()
            _explain(f"{error.filename} cannot be used: {error.strerror}.", "Mend that, then run it again.")
        else:
            _unknown(error)
        return 1
    except Exception as error:
        if _is_interrupt(error):
            return _cancelled()
        _unknown(error)
        return 1


def _run(arguments: list[str] | None) -> int:
    """Run one command with Typer, whose import takes a while: an editor does not wait for it.

    A signal may come in the middle of the import.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["lsp"] and (options := plain_options(given[1:])) is not None:
        return start(**options)

    import typer
    from typer.exceptions import TyperException

    from inhouse_server.cli.app import app
    from inhouse_server.cli.terminal import log_to_stderr
    from inhouse_server.cli.usage import plain_message

    log_to_stderr()
    try:
        result = app(args=arguments, prog_name="inhouse", standalone_mode=False)
        if result == Cancelled.exit_code:  # Typer makes this of an interrupt, and says nothing
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except typer.Exit as error:
        return error.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except TyperException as error:
        # Typer's usage errors show themselves with the usage line; the base class has only a message.
        error.message = plain_message(error.message)
        show = getattr(error, "show", None)
        show() if show else _explain(error.message)
        return error.exit_code


def _explain(problem: str, remedy: str = "") -> None:
    from inhouse_server.cli.terminal import explain

    explain(problem, remedy)


def _unknown(error: Exception) -> None:
    _log_unexpected()
    _explain(
        f"inhouse met a problem that it does not know: {type(error).__name__}: {error}.",
        "Run it again with INHOUSE_LOG=debug and report what .inhouse/logs says.",
    )


def _log_unexpected() -> None:
    import logging

    logging.getLogger(__name__).debug("unexpected", exc_info=True)


def _cancelled() -> int:
    _explain("Cancelled.", "What was finished is kept; run the command again to continue.")
    return Cancelled.exit_code


def _terminate(signum: int, frame: FrameType | None) -> None:
    """SIGTERM ends a job as Ctrl-C does: cleanly."""
    raise KeyboardInterrupt


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether ``error`` was made of one: Python 3.11 wraps an interrupt that comes while a class is made."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or _is_interrupt(error.__cause__))


def _unraisable(lost: sys.UnraisableHookArgs) -> None:
    """An interrupt raised where nothing can be raised, such as a weak reference's callback, is sent again."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        threading.Timer(0.01, signal.raise_signal, [signal.SIGINT]).start()
    else:
        sys.__unraisablehook__(lost)
