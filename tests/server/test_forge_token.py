"""Where the forge's token comes from: the variable, else the system's keyring."""

from __future__ import annotations

from collections.abc import Iterator

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

from inhouse_retrieval.errors import InhouseError
from inhouse_server.cli.forge import KEYRING_SERVICE, open_forge, require_forge_and_token
from inhouse_server.settings import ForgeSettings

SETTINGS = ForgeSettings(kind="github", project="acme/shop")


class InMemory(KeyringBackend):
    """A keyring as an unlocked desktop has one."""

    priority = 1.0  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise KeyringLocked("it is locked")
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemory]:
    monkeypatch.delenv("INHOUSE_FORGE_TOKEN", raising=False)
    before, made = keyring.get_keyring(), InMemory()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


def test_the_variable_is_asked_before_the_keyring(ring: InMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_forge(SETTINGS, "").token is None
    with pytest.raises(InhouseError, match=r"\$INHOUSE_FORGE_TOKEN holds no token"):
        require_forge_and_token(SETTINGS)
    keyring.set_password(KEYRING_SERVICE, "INHOUSE_FORGE_TOKEN", "of-the-keyring")
    forge = open_forge(SETTINGS, "")
    assert (forge.token, forge.token_source) == ("of-the-keyring", "the keyring")
    require_forge_and_token(SETTINGS)
    assert open_forge(SETTINGS, "", with_token=False).token is None, "who only names it does not ask"
    monkeypatch.setenv("INHOUSE_FORGE_TOKEN", "of-the-variable")
    assert open_forge(SETTINGS, "").token == "of-the-variable"


def test_a_locked_keyring_is_told_with_a_way_out(ring: InMemory) -> None:
    ring.locked = True
    with pytest.raises(InhouseError, match=r"The keyring cannot be read: it is locked\.") as caught:
        open_forge(SETTINGS, "")
    assert "$INHOUSE_FORGE_TOKEN" in caught.value.remedy


def test_without_a_keyring_there_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INHOUSE_FORGE_TOKEN", raising=False)
    before = keyring.get_keyring()
    from keyring.backends.fail import Keyring as NoKeyring

    keyring.set_keyring(NoKeyring())
    try:
        assert open_forge(SETTINGS, "").token is None
    finally:
        keyring.set_keyring(before)
