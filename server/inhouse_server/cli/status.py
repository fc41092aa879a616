"""`inhouse status`: model, index, retraining, owner, and what is at work. It waits for nobody and changes nothing."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from inhouse_server.cli.backend import OwnerBackend, locate
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import plain, print_json, start_logging
from inhouse_server.holder import Holder
from inhouse_server.owner import SERVE


def status(repo: RepoOption = HERE, json: JsonOption = False) -> None:
    """Show model, index, retraining, owner, what it serves and what is at work; also while a command holds it."""
    held = _held(repo)
    if json:
        print_json(held)
        return
    for label, value in _lines(held):
        typer.echo(f"{label + ':':<{_WIDTH}}{value}")
    for server in held.get("servers", []):
        _show_server(server)
    for name, each in held.get("repositories", {}).items():
        typer.echo(plain(f"repository {name}: {_in_short(each)}"))


def _held(repo: Path) -> dict[str, Any]:
    from inhouse_server.owner import find_owner, holder_of, is_stopping, wait_for_owner

    _, _, state_dir = locate(repo)
    start_logging(state_dir, "client")
    owner = find_owner(state_dir)
    if owner is None and (holder := holder_of(state_dir)) and holder.command == SERVE:
        # An owner that has just been started holds the repository before it listens.
        owner = wait_for_owner(state_dir, _PATIENCE_S)
    if owner is not None:
        return OwnerBackend(owner).status()
    from inhouse_server.beside import look

    return {**look(repo), "stopping": is_stopping(state_dir)}


_PATIENCE_S = 10.0
_WIDTH = 18


def _lines(held: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and value of each line."""
    lines = [
        ("Repository", held["root"]),
        ("At work now", Holder(**held["busy"]).doing if held["busy"] else ""),
        ("Index", _index(held)),
        ("Base model", f"{held['base_model']}{_loaded(held)}"),
        ("Stepped aside", _aside(held.get("stepped_aside"))),
        ("Adapter", held["adapter"] or "none: the base model answers"),
        ("Adapters loaded", ", ".join(held["adapters_loaded"])),
        ("Served now", held.get("serving") or ""),
        ("Waited for", held.get("waiting") or ""),
        ("Retraining now", f"process {held['retraining']}" if held.get("retraining") else ""),
        ("Last retraining", _retraining(held["last_retrain"])),
        ("Next retraining", f"due from {_moment(held['next_retrain'])}" if held["next_retrain"] else "by hand"),
        ("Owner process", held["owner"] or _no_owner(held)),
    ]
    return [(label, plain(value)) for label, value in lines if value]


def _loaded(held: dict[str, Any]) -> str:
    if not held["model_loaded"]:
        return ""
    bits = {"8bit": " in 8 bits", "4bit": " in 4 bits"}.get(held.get("weights") or "", "")
    return f", loaded{bits}"


def _no_owner(held: dict[str, Any]) -> str:
    busy = held["busy"]
    if held.get("stopping"):
        return "is stopping: its last answers come to their end"
    if busy is not None and busy["command"] == SERVE:
        return f"process {busy['pid']} does not answer; end it with: kill -9 {busy['pid']}"
    return "does not run; editors and 'inhouse serve' start it"


def _index(held: dict[str, Any]) -> str:
    if not held["index_commit"]:
        read = f"; {held['files']} file(s) read so far" if held["files"] else ""
        return "being made" + read if held["busy"] else "none yet; 'inhouse index' makes it"
    told = f"{held['files']} files in {held['chunks']} chunks, at commit {held['index_commit'][:12]}"
    if held["pending"]:
        told += f"; {held['pending']} changed file(s) to read"
    if held["unembedded"]:
        told += f"; {held['unembedded']} chunk(s) have no vector yet and are found by words"
    return told


def _in_short(held: dict[str, Any]) -> str:
    """One of several repositories in a line."""
    if "problem" in held:
        return f"not served: {held['problem']}"
    return f"{held['root']}; {held['adapter'] or 'no adapter'}; {_index({**held, 'busy': None})}"


def _aside(lent: dict[str, Any] | None) -> str:
    if lent is None:
        return ""
    ending = "" if lent["aside"] else f"; {lent['answering']} answer(s) have yet to end"
    until = datetime.fromisoformat(lent["until"]).astimezone().strftime("%H:%M:%S")
    return f"for a retraining (process {lent['pid']}), until {until} unless it asks for longer{ending}"


def _retraining(last: dict[str, Any] | None) -> str:
    if not last:
        return "none yet"
    return f"{last['decision']}, candidate {last['candidate'] or 'none'}, finished {_moment(last['finished'])}"


def _moment(written: str) -> str:
    """A time as a person reads it, in the zone of this machine."""
    return datetime.fromisoformat(written).astimezone().strftime("%Y-%m-%d %H:%M %Z")


def _show_server(server: dict[str, Any]) -> None:
    state = f"ready for {', '.join(server['ready']) or 'the base model'}" if server["up"] else server["problem"]
    typer.echo(f"server {server['url']}: {state}")
    for version, reason in server["failed"].items():
        typer.echo(f"  {version}: {reason}")
    for version in server["not_telling"]:
        typer.echo(f"  {version}: checked, but it is too close to the base model to tell whether it was left out")
