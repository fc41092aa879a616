"""How `inhouse lsp` starts: an editor waits for it, so what takes long to import comes after its first answer."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from inhouse_retrieval.errors import InhouseError
from inhouse_server.greeting import Greeting, greet

TOKEN_VARIABLE = "INHOUSE_TOKEN"
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
"""Of a repository in ``[server.repositories]``, and so what may stand in the header."""
PLAIN = {"--repo": "repo", "--server": "server", "--ca": "authority", "--repository": "repository"}
"""Options of `inhouse lsp`, and the argument of :func:`start` that each sets."""


def plain_options(arguments: Sequence[str]) -> dict[str, str] | None:
    """Arguments for :func:`start`; ``None`` where they are not plainly ``--option value``, once each.

    Typer reads the others, shows the help, and says what is wrong; importing it takes an editor's time.
    """
    options, values = arguments[::2], arguments[1::2]
    plain = len(options) == len(values) and len(set(options)) == len(options) and all(each in PLAIN for each in options)
    if not plain or any(not value or value.startswith("-") for value in values):
        return None
    return {PLAIN[option]: value for option, value in zip(options, values, strict=True)}


def start(
    repo: str = ".", server: str | None = None, authority: str | None = None, repository: str | None = None
) -> int:
    """Answer an editor that has asked already, then find out about the repository, and relay.

    Args:
        repo: a folder in the repository.
        server: a team's server, which answers for itself.
        authority: certificates to trust for ``server``, in PEM.
        repository: which one of ``server``, where the token opens several.

    Returns:
        Exit code.

    Raises:
        InhouseError: not a repository, wrong settings, or a server that cannot be used.
    """
    if repository and server is None:
        raise InhouseError(
            "--repository names one of a team's server, and no --server is given.",
            "Leave it out: in a checkout on this machine, its own owner answers.",
        )
    if repository and not NAME.fullmatch(repository):
        raise InhouseError(f"{repository!r} is no repository's name.", "It has letters, digits, _ and - only.")
    greeting = greet(repo) if server is None else Greeting()
    try:
        return _relay(repo, server, authority, repository, greeting)
    except InhouseError as error:
        if greeting.answered:
            _tell_editor(error)
        raise


def _relay(repo: str, server: str | None, authority: str | None, repository: str | None, greeting: Greeting) -> int:
    from pathlib import Path

    from inhouse_retrieval.work_tree import top_of_work_tree
    from inhouse_server.cli.terminal import log_to_stderr, start_logging
    from inhouse_server.relay import run_relay
    from inhouse_server.settings import load_settings
    from inhouse_server.state_dir import prepare_state_dir

    log_to_stderr()
    root = top_of_work_tree(Path(repo))
    settings = load_settings(root)
    state_dir = settings.state_path(root)
    prepare_state_dir(state_dir)
    start_logging(state_dir, "lsp")
    token = os.environ.get(TOKEN_VARIABLE)
    if server and not token:
        raise InhouseError(f"The server {server} wants a token.", f"Set {TOKEN_VARIABLE}.")
    trusted = Path(authority) if authority else None
    offers = not settings.no_inline_completion()
    return run_relay(root, state_dir, server, token, trusted, offers, greeting, repository)


def _tell_editor(error: InhouseError) -> None:
    """The editor was answered, so it shows its user what ends the session; its log alone would be looked at by few."""
    import json
    from contextlib import suppress

    from inhouse_server.framing import frame
    from inhouse_server.lsp_messages import shown_error
    from inhouse_server.stdio import write_all

    with suppress(OSError):
        write_all(sys.stdout.fileno(), frame(json.dumps(shown_error(f"inhouse: {error}")).encode()))
