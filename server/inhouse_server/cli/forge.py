"""The forge of ``[forge]`` in `inhouse.toml`, with its token from the environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from inhouse_retrieval.errors import InhouseError
from inhouse_server.settings import ForgeSettings

if TYPE_CHECKING:
    from inhouse_retrieval import Forge


def open_forge(settings: ForgeSettings, therefore: str) -> Forge:
    """The forge, with the token that the variable ``token_env`` holds, if any.

    Args:
        therefore: what follows when none is configured, as the error says it.

    Raises:
        InhouseError: none is configured, or its address or token cannot be used.
    """
    from inhouse_retrieval import Forge

    if settings.kind == "none":
        raise _none_configured(therefore)
    assert settings.project, "load_settings checks it"
    token = os.environ.get(settings.token_env, "").strip() or None
    return Forge(settings.kind, settings.project, settings.url or "", token, f"${settings.token_env}")


def require_forge_and_token(settings: ForgeSettings) -> None:
    """Raises:
    InhouseError: nothing can be posted, since no forge is configured, or the variable of the token is empty.
    """
    if settings.kind == "none":
        raise _none_configured("so there is nowhere to post to")
    if not os.environ.get(settings.token_env, "").strip():
        raise InhouseError(
            f"${settings.token_env} holds no token, and posting needs one.",
            "Set it to a token that may write to pull requests.",
        )


def forget_token(settings: ForgeSettings) -> None:
    """Take the token out of this process's environment, and so of every process that it starts from now on."""
    os.environ.pop(settings.token_env, None)


def _none_configured(therefore: str) -> InhouseError:
    return InhouseError(f"No forge is configured, {therefore}.", "Set kind and project under [forge] in inhouse.toml.")
