"""`inhouse token`: make, list and revoke the tokens of a team."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from inhouse_retrieval.errors import InhouseError, StateUnwritable
from inhouse_retrieval.within import EVERYWHERE, Within
from inhouse_server.access import Audit, Scope, TokenStore, token_file
from inhouse_server.access.tokens import SCOPES, Token
from inhouse_server.cli.backend import locate
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import plain, print_json
from inhouse_server.cli.usage import NEVER, lifetime
from inhouse_server.owner import find_owner
from inhouse_server.settings import Settings

app = typer.Typer(help="Tokens for a team: named, scoped, expiring, kept as hashes.", no_args_is_help=True)
_SCOPE_HELP = "May be given more than once. " + "; ".join(f"{scope.value}: {what}" for scope, what in SCOPES.items())


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Whose it is, or what for.")],
    scope: Annotated[list[Scope] | None, typer.Option("--scope", help=f"{_SCOPE_HELP}.", show_default="ask")] = None,
    expires: Annotated[
        str, typer.Option("--expires", help="After how long, such as 12h or 90d; or never.", callback=lifetime)
    ] = "90d",
    within: Annotated[
        list[str] | None,
        typer.Option("--within", help="Folder or file that it may see, alone. May be given more than once."),
    ] = None,
    repository: Annotated[
        list[str] | None,
        typer.Option(
            "--repository",
            help="Name in [server.repositories] of one that it may use, and no other. May be given more than once.",
        ),
    ] = None,
    repo: RepoOption = HERE,
    json: JsonOption = False,
) -> None:
    """Make a token and show it, once: only its hash is kept."""
    from inhouse_training import parse_interval

    store, state_dir, settings = _store(repo)
    scopes = frozenset(scope or [Scope.ASK])
    opens = _opened(repository or [], [*settings.server.repositories], scopes)
    lifetime = None if expires == NEVER else parse_interval(expires)
    seen = Within.of(within) if within else EVERYWHERE
    text, token = store.create(name, scopes, lifetime, seen, opens)
    _note(state_dir, "token create", token.id, token.name)
    _warn_if_unread(state_dir, settings)
    ends = token.expires.isoformat() if token.expires else None
    if json:
        told = {"id": token.id, "name": name, "scopes": sorted(token.scopes), "expires": ends}
        kept = token.to_json()
        print_json({"token": text, **told, "within": kept["within"], "repositories": kept["repositories"]})
        return
    what = f"{', '.join(sorted(token.scopes))}{_part(token)}"
    typer.echo(f"The token of {name!r} ({what}), valid until {ends or 'revoked'}:", err=True)
    typer.echo(text)
    typer.echo("It is not kept and cannot be shown again.", err=True)


@app.command("list")
def list_tokens(repo: RepoOption = HERE, json: JsonOption = False) -> None:
    """List every token, oldest first; none of them as text."""
    now = datetime.now(UTC)
    tokens = _store(repo)[0].all()
    if json:
        shown = ({k: v for k, v in token.to_json().items() if k != "sha256"} for token in tokens)
        print_json([row | {"state": token.state(now)} for row, token in zip(shown, tokens, strict=True)])
        return
    if not tokens:
        typer.echo("No token yet. 'inhouse token create' makes one; the owner's own is not listed.")
    for token in tokens:
        ends = f"until {token.expires.isoformat()}" if token.expires else "for ever"
        what = f"{','.join(sorted(token.scopes))}{_part(token)}"
        typer.echo(f"{token.id}  {token.state(now):7}  {what}  {ends}  {plain(token.name)}")


@app.command("revoke")
def revoke(
    named: Annotated[str, typer.Argument(metavar="ID_OR_NAME", help="Its id or its name.")],
    repo: RepoOption = HERE,
    json: JsonOption = False,
) -> None:
    """Revoke a token. The owner refuses it at once, and ends what runs for it within a second."""
    store, state_dir, _ = _store(repo)
    revoked = store.revoke(named)
    for token in revoked:
        _note(state_dir, "token revoke", token.id, token.name)
    if json:
        print_json({"revoked": [token.id for token in revoked]})
    else:
        typer.echo(f"Revoked {', '.join(token.id for token in revoked)}.")


def _opened(named: list[str], served: list[str], scopes: frozenset[Scope]) -> list[str] | None:
    """The repositories that a token is to open; ``None`` where there is one.

    Raises:
        InhouseError: one is named that is not served, or none is where there are several.
    """
    if unknown := [name for name in named if name not in served]:
        there = f"There are {', '.join(served)}." if served else "This owner serves one, and its tokens are for that."
        raise InhouseError(f"[server.repositories] names no {unknown[0]!r}.", there)
    if served and not named and scopes != {Scope.METRICS}:
        raise InhouseError(
            "A token opens no repository that it is not given.", f"Add --repository; there are {', '.join(served)}."
        )
    return named if served else None


def _part(token: Token) -> str:
    """Which repositories it opens, and which part, where that is not all there is."""
    opens = "" if token.repositories is None else f" in {', '.join(map(plain, token.repositories)) or 'none'}"
    return opens + ("" if token.within.paths is None else f" within {', '.join(map(plain, token.within.paths))}")


def _store(repo: Path) -> tuple[TokenStore, Path, Settings]:
    from inhouse_server.state_dir import prepare_state_dir

    root, settings, state_dir = locate(repo)
    prepare_state_dir(state_dir)
    return TokenStore(token_file(settings, root, state_dir)), state_dir, settings


def _warn_if_unread(state_dir: Path, settings: Settings) -> None:
    """Say so where the running owner holds this repository beside its own, whose tokens alone it reads."""
    if settings.server.repositories or settings.server.tokens:
        return
    owner = find_owner(state_dir)
    if owner is not None and owner.repository:
        typer.echo(
            "Warning: the running owner was started in another repository and reads the tokens made there; make it "
            f"there with --repository {owner.repository}.",
            err=True,
        )


def _note(state_dir: Path, act: str, token_id: str, name: str) -> None:
    try:
        Audit(state_dir).act(act, token_id, name)
    except OSError as error:
        raise StateUnwritable(
            f"It is done, but the audit log in {state_dir} cannot be written: {error.strerror}.",
            "Free some space, or make it writable.",
        ) from error
