"""A passage in the terminal: where it is, its lines that matter most, and why it was found.

A terminal gets colours and locations that open; anything else gets the same text without them. What the repository says
is data: its control characters are shown as characters.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import typer

from inhouse_retrieval import identifiers, index_terms
from inhouse_retrieval.passage import of_day
from inhouse_server.cli.terminal import location, plain

_LONGEST_LINE = 160
_FOUND_BY = {
    "dense": "its meaning",
    "lexical": "its words",
    "path": "its path",
    "history": "past changes",
    "definition": "a name that it defines",
    "literal": "the quoted text",
    "described": "a page that describes it",
    "number": "its number",
}
"""Leg -> how a person would call it."""


def show_passage(root: Path, query: str, passage: dict[str, Any], lines: int) -> None:
    """Print one result of the search contract, with ``lines`` of its lines at most."""
    typer.echo(f"{location(root, passage['path'], passage['start_line'])}-{passage['end_line']}")
    first, shown = excerpt(plain(passage["text"]), query, lines)
    if sys.stdout.isatty():
        _print_coloured(passage["path"], shown, passage["start_line"] + first)
    else:
        for number, line in enumerate(shown, start=passage["start_line"] + first):
            typer.echo(f"{number:>6}  {line}")
    for reason in [*_reasons(passage), *_jump(query, passage)]:
        typer.secho(f"        {plain(reason)[:_LONGEST_LINE]}", dim=True)


def show_uses(root: Path, name: str, found: dict[str, Any]) -> None:
    """Print the contract of a name: where it is defined, then the lines that use it, file by file."""
    for place in found["definitions"]:
        typer.echo(f"{location(root, place['path'], place['line'])}  {plain(place['code'])[:_LONGEST_LINE]}")
    if not found["definitions"]:
        typer.echo(f"{plain(name)} is defined in no file of the index.")
    path = ""
    for use in found["uses"]:
        if use["path"] != path:
            path = use["path"]
            typer.echo(f"\n{location(root, path, use['line'])}")
        typer.echo(f"{use['line']:>6}  {plain(use['code'])[:_LONGEST_LINE]}")
        if use["within"]:
            typer.secho(f"        in {plain(use['within'])}", dim=True)
    files = len({use["path"] for use in found["uses"]})
    more = ", and there are more (--limit)" if found["more"] else ""
    typer.echo(f"\n{len(found['uses'])} use(s) in {files} file(s){more}")


def excerpt(text: str, query: str, lines: int) -> tuple[int, list[str]]:
    """``(how many lines come before, lines)``: the ``lines`` of ``text`` that hold most different words of ``query``,
    the first of them where several do."""
    all_lines = [line[:_LONGEST_LINE] for line in text.rstrip().split("\n")]
    opening = next((row for row, line in enumerate(all_lines) if line.strip()), 0)
    asked = {word for word in index_terms(query).split() if len(word) > 2}
    held = [asked.intersection(index_terms(line).split()) for line in all_lines]
    starts = range(opening, max(opening, len(all_lines) - lines) + 1)
    best = max(starts, key=lambda row: (len(set().union(*held[row : row + lines])), -row))
    return best, all_lines[best : best + lines]


def _print_coloured(path: str, shown: list[str], start: int) -> None:
    from rich.console import Console
    from rich.syntax import Syntax

    code = "\n".join(shown)
    language = Syntax.guess_lexer(path, code)
    Console().print(
        Syntax(code, language, theme="ansi_dark", line_numbers=True, start_line=start, background_color="default")
    )


def _jump(query: str, passage: dict[str, Any]) -> list[str]:
    """How to go on from a definition to what uses it."""
    names = identifiers(query) if "definition" in passage["legs"] else []
    return [f"used by: inhouse search --users {name}" for name in names if re.search(rf"\b{name}\b", passage["text"])]


def _reasons(passage: dict[str, Any]) -> list[str]:
    reasons = ["found by " + ", ".join(_FOUND_BY.get(leg, leg) for leg in passage["legs"])]
    changes = [" ".join(change.split()) for change in passage["changes"]]
    if passage["source"] == "pull_request":
        reasons.append(f"pull request {changes[0]}, merged on {passage['updated']}")
    elif changes:
        reasons.append(f"changed by {changes[0]}")
    if passage["source"] == "wiki" and passage["updated"]:
        newer = f"; {passage['newer_code']}, which it describes, changed later" if passage["newer_code"] else ""
        reasons.append(f"wiki page {of_day(passage['updated'])}{newer}")
    return reasons
