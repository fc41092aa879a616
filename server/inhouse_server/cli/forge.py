"""The forge of ``[forge]`` in `inhouse.toml`, with its token from the environment or the system's keyring."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from inhouse_retrieval.errors import InhouseError
from inhouse_server.settings import ForgeSettings

if TYPE_CHECKING:
    from inhouse_retrieval import Forge

KEYRING_SERVICE = "inhouse"
"""Under this name the keyring holds tokens: `keyring set inhouse INHOUSE_FORGE_TOKEN`."""


def open_forge(settings: ForgeSettings, therefore: str, with_token: bool = True) -> Forge:
    """The forge, with the token that the variable ``token_env`` or else the keyring holds, if any.

    Args:
        therefore: what follows when none is configured, as the error says it.
        with_token: without one it is only named, and nothing can be asked of it.

    Raises:
        InhouseError: none is configured, or its address or token cannot be used.
    """
    from inhouse_retrieval import Forge

    if settings.kind == "none":
        raise _none_configured(therefore)
    assert settings.project, "load_settings checks it"
    token, place = _token(settings) if with_token else (None, "")
    return Forge(settings.kind, settings.project, settings.url or "", token, place)


def require_forge_and_token(settings: ForgeSettings) -> None:
    """Raises:
    InhouseError: nothing can be posted, since no forge is configured, or there is no token.
    """
    if settings.kind == "none":
        raise _none_configured("so there is nowhere to post to")
    if _token(settings)[0] is None:
        raise InhouseError(
            f"${settings.token_env} holds no token, and posting needs one.",
            f"Set it to a token that may write to pull requests, or put one into the keyring: "
            f"keyring set {KEYRING_SERVICE} {settings.token_env}",
        )


def forget_token(settings: ForgeSettings) -> None:
    """Take the token out of this process's environment, and so of that of every process that it starts from now on. A
    keyring that is unlocked answers whoever asks."""
    os.environ.pop(settings.token_env, None)


def _token(settings: ForgeSettings) -> tuple[str | None, str]:
    """The token, and where it comes from: the variable, else ``inhouse`` and the variable's name in the keyring.

    Raises:
        InhouseError: there is a keyring, and it cannot be read.
    """
    variable = f"${settings.token_env}"
    if token := os.environ.get(settings.token_env, "").strip():
        return token, variable
    try:
        import keyring
        from keyring.errors import KeyringError, NoKeyringError
    except ImportError:  # the extra `keyring` is not installed
        return None, variable
    try:
        found = keyring.get_password(KEYRING_SERVICE, settings.token_env)
    except NoKeyringError:
        return None, variable
    except KeyringError as error:
        raise InhouseError(
            f"The keyring cannot be read: {error}.", f"Unlock it, or set {variable} to the token."
        ) from error
    return (found.strip() or None, "the keyring") if found else (None, variable)


def _none_configured(therefore: str) -> InhouseError:
    return InhouseError(f"No forge is configured, {therefore}.", "Set kind and project under [forge] in inhouse.toml.")
