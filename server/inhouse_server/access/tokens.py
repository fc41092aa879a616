"""Tokens of a team: named, scoped, expiring, kept as hashes in one file of mode 0600.

A token reads ``inhouse_ID_SECRET``. The secret has 256 random bits, so a plain SHA-256 keeps it: there is nothing to
guess that a slow hash would protect. The owner's own token, which the local relay and command line read from the state
directory, is not in this file and may do everything.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inhouse_retrieval.errors import InhouseError, StateUnwritable
from inhouse_retrieval.within import EVERYWHERE, Within

if TYPE_CHECKING:
    from inhouse_server.settings import Settings

log = logging.getLogger(__name__)

FILE_NAME = "tokens.json"
PREFIX = "inhouse_"
OWNER = "owner"
"""The id of the owner's own token; that of another repository which it serves is followed by a colon and a name."""
NAME = re.compile(r"[\w.@ -]{1,64}")
_SHAPE = re.compile(r"inhouse_(?P<id>[0-9a-f]{12})_[\w-]{43}", re.ASCII)


class Scope(StrEnum):
    """What a token opens."""

    ASK = "ask"
    REVIEW = "review"
    METRICS = "metrics"
    ADMIN = "admin"


SCOPES = {
    Scope.ASK: "ask, search, read passages, embed; the page, /lsp and /mcp",
    Scope.REVIEW: "review the changes that the server's own checkout holds",
    Scope.METRICS: "read /metrics",
    Scope.ADMIN: "all of these, and to index and to stop the owner",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request this is.

    Attributes:
        within: the part of the repository whose passages it may see.
        repositories: names of those that it may use; ``None`` for the one that the owner was started in, alone.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    within: Within
    repositories: tuple[str, ...] | None = None

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes

    @property
    def is_owner(self) -> bool:
        """Whoever can read the state directory, and so is on this machine."""
        return self.id.partition(":")[0] == OWNER

    @property
    def opens_all(self) -> bool:
        """Whether it may use every repository, also one that is added later."""
        return self.id == OWNER


OWNER_CALLER = Caller(OWNER, OWNER, frozenset({Scope.ADMIN}), EVERYWHERE)


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token.

    Attributes:
        id: public; names the token in the audit log.
        sha256: of the whole token, in hex.
        expires: ``None`` for never.
        revoked: ``None`` unless it was.
        within: the part of the repository whose passages it shows.
        repositories: names of those that it opens; ``None`` for the one that the owner was started in, alone.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    sha256: str
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    within: Within = EVERYWHERE
    repositories: tuple[str, ...] | None = None

    def state(self, now: datetime) -> str:
        """``"valid"``, ``"expired"`` or ``"revoked"``."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now >= self.expires else "valid"

    def caller(self) -> Caller:
        return Caller(self.id, self.name, self.scopes, self.within, self.repositories)

    def to_json(self) -> dict[str, Any]:
        def moment(value: datetime | None) -> str | None:
            return value.isoformat() if value else None

        return {
            "id": self.id,
            "name": self.name,
            "scopes": sorted(self.scopes),
            "sha256": self.sha256,
            "created": self.created.isoformat(),
            "expires": moment(self.expires),
            "revoked": moment(self.revoked),
            "within": None if self.within.paths is None else list(self.within.paths),
            "repositories": None if self.repositories is None else list(self.repositories),
        }

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Token:
        def moment(text: str | None) -> datetime | None:
            return datetime.fromisoformat(text) if text else None

        return cls(
            id=str(said["id"]),
            name=str(said["name"]),
            scopes=frozenset(map(Scope, said["scopes"])),
            sha256=str(said["sha256"]),
            created=datetime.fromisoformat(said["created"]),
            expires=moment(said["expires"]),
            revoked=moment(said["revoked"]),
            within=EVERYWHERE if said.get("within") is None else Within.of(said["within"]),
            # A token from before there were several is for the one that there was.
            repositories=None if said.get("repositories") is None else tuple(map(str, said["repositories"])),
        )


def token_file(settings: Settings, root: Path, state_dir: Path) -> Path:
    """Where the tokens of this repository are kept."""
    named = settings.server.tokens
    return state_dir / FILE_NAME if named is None else (root / Path(named).expanduser()).resolve()


class TokenStore:
    """The tokens of one file. Reads it again whenever it changed, so that what the command line did holds at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._tokens: dict[str, Token] = {}

    def all(self) -> list[Token]:
        """Every token, oldest first.

        Raises:
            InhouseError: the file cannot be read or used, or others may read or write it.
        """
        try:
            there = self._path.stat()
        except FileNotFoundError:
            self._seen, self._tokens = None, {}
            return []
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror}") from error
        if there.st_mode & 0o077:
            raise InhouseError(f"Others may read or write {self._path}.", f"Run 'chmod 600 {self._path}'.")
        seen = (there.st_ino, there.st_mtime_ns, there.st_size)
        if seen != self._seen:
            try:
                read = [Token.from_json(each) for each in json.loads(self._path.read_bytes())["tokens"]]
            except OSError as error:
                raise self._unusable(f"cannot be read: {error.strerror}") from error
            except (ValueError, KeyError, TypeError, InhouseError) as error:
                raise self._unusable("is not what 'inhouse token' wrote") from error
            self._tokens, self._seen = {token.id: token for token in read}, seen
        return list(self._tokens.values())

    def find(self, text: str) -> Caller | None:
        """Whose token ``text`` is; ``None`` when it is unknown, expired or revoked, or the file cannot be used."""
        shape = _SHAPE.fullmatch(text)
        token = self._valid(shape["id"]) if shape else None
        if token is None or not hmac.compare_digest(_hash(text), token.sha256):
            return None
        return token.caller()

    def caller(self, token_id: str) -> Caller | None:
        """Whose token has this id; ``None`` when it is not valid any more."""
        token = self._valid(token_id)
        return token.caller() if token else None

    def create(
        self,
        name: str,
        scopes: Iterable[Scope],
        lifetime: timedelta | None,
        within: Within = EVERYWHERE,
        repositories: Iterable[str] | None = None,
    ) -> tuple[str, Token]:
        """A new token: its text, which is kept nowhere, and what is kept.

        Args:
            within: the part of the repository whose passages it shows; with the scope ``ask`` alone, since reviews
                and indexing are of the whole, and with one repository, whose paths these are.
            repositories: names of those that it opens; without any, the one that the owner was started in.

        Raises:
            InhouseError: the name is not usable or taken by a valid token, the scopes see more than ``within``, that
                is not of one repository, or the file cannot be used.
        """
        scopes = frozenset(scopes)
        opens = None if repositories is None else tuple(dict.fromkeys(repositories))
        if not within.everywhere and opens is not None and len(opens) != 1:
            raise InhouseError(
                "A token for a part of a repository can only be for that one.", "Make one for each repository."
            )
        if not within.everywhere and scopes != {Scope.ASK}:
            raise InhouseError(
                "A token for a part of the repository can only have the scope 'ask'.",
                "Leave --scope out, or --within.",
            )
        if not NAME.fullmatch(name) or name != name.strip():
            raise InhouseError(
                f"{name!r} cannot name a token.", "Use at most 64 letters, digits, spaces and '.', '-', '_' or '@'."
            )
        now = datetime.now(UTC).replace(microsecond=0)
        with self._changing() as tokens:
            if any(each.name == name and each.state(now) == "valid" for each in tokens):
                raise InhouseError(f"A token named {name!r} is valid already.", "Choose another name, or revoke it.")
            token_id = secrets.token_hex(6)
            text = f"{PREFIX}{token_id}_{secrets.token_urlsafe(32)}"
            try:
                expires = now + lifetime if lifetime is not None else None
            except OverflowError:
                raise InhouseError("That is beyond the calendar.", "Write --expires never.") from None
            token = Token(token_id, name, scopes, _hash(text), now, expires, within=within, repositories=opens)
            tokens.append(token)
        return text, token

    def revoke(self, named: str) -> list[Token]:
        """Revoke the valid tokens that have this id or name.

        Raises:
            InhouseError: there is none, or the file cannot be used.
        """
        now = datetime.now(UTC).replace(microsecond=0)
        with self._changing() as tokens:
            hit = [at for at, t in enumerate(tokens) if named in (t.id, t.name) and t.state(now) == "valid"]
            if not hit:
                raise InhouseError(f"No valid token has the id or name {named!r}.", "See 'inhouse token list'.")
            for at in hit:
                tokens[at] = replace(tokens[at], revoked=now)
            return [tokens[at] for at in hit]

    def _valid(self, token_id: str) -> Token | None:
        try:
            self.all()
        except InhouseError as error:
            log.error("no token is let in: %s", error)
            return None
        token = self._tokens.get(token_id)
        return token if token and token.state(datetime.now(UTC)) == "valid" else None

    @contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        """The tokens as a list to change; written when the block ends well. Two commands take turns."""
        # Imported here: every command imports this module, and an editor waits for `inhouse lsp`.
        from filelock import FileLock

        try:
            with FileLock(self._path.with_name(f"{self._path.name}.lock"), timeout=10, mode=0o600):
                tokens = self.all()
                yield tokens
                self._write(tokens)
        except OSError as error:  # a lock that is not to be had in time is one
            raise StateUnwritable(
                f"The file of tokens {self._path} cannot be written: {error.strerror or error}.",
                "Make its folder, or make it writable.",
            ) from error

    def _write(self, tokens: list[Token]) -> None:
        body = json.dumps({"tokens": [token.to_json() for token in tokens]}, indent=1)
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)

    def _unusable(self, what: str) -> InhouseError:
        return InhouseError(f"The file of tokens {self._path} {what}.", "Mend it, or remove it and make new tokens.")


class Callers:
    """Who is who: the owner by its own tokens, and the team by theirs.

    Args:
        owners: the owner's own token of each repository, by its name, beginning with the one that it was started in;
            others may come later. The first opens them all, each other its own alone.
    """

    def __init__(self, owners: Mapping[str, str], team: TokenStore) -> None:
        self._owners = owners
        self._team = team

    def by_token(self, text: str) -> Caller | None:
        """Whose token ``text`` is, in a time that does not tell how much of it was right."""
        given = text.encode("utf-8", "surrogatepass")
        own = [name for name, token in self._owners.items() if hmac.compare_digest(given, token.encode())]
        return self._owner(own[0]) if own else self._team.find(text)

    def by_id(self, token_id: str) -> Caller | None:
        """Whose token has this id, while it is valid."""
        if token_id == OWNER:
            return OWNER_CALLER
        kind, _, name = token_id.partition(":")
        return self._owner(name) if kind == OWNER and name in self._owners else self._team.caller(token_id)

    def _owner(self, name: str) -> Caller:
        if name == next(iter(self._owners)):
            return OWNER_CALLER
        return replace(OWNER_CALLER, id=f"{OWNER}:{name}", repositories=(name,))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
