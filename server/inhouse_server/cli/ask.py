"""`inhouse ask`: a streamed answer with the places it rests on and what produced it."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from inhouse_server.answers import CURRENT
from inhouse_server.cli.backend import open_backend
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import location, plain, print_json, while_waiting
from inhouse_server.cli.usage import asked


def ask(
    question: Annotated[str, typer.Argument(help="The question.", callback=asked)],
    repo: RepoOption = HERE,
    adapter: Annotated[str, typer.Option("--adapter", help="'current', 'base' or an adapter version.")] = CURRENT,
    retrieval: Annotated[
        bool,
        typer.Option("--retrieval/--no-retrieval", help="Put passages of the repository into the prompt."),
    ] = True,
    json: JsonOption = False,
) -> None:
    """Ask about the repository."""
    with open_backend(repo, "ask", reading=True, with_model=True) as (root, backend):
        for event in while_waiting("waiting for the answer", backend.ask(question, adapter, retrieval)):
            if isinstance(event, dict):
                if json:
                    print_json(event)
                else:
                    show_sources(root, event)
            elif not json:
                sys.stdout.write(plain(event))
                sys.stdout.flush()


def show_sources(root: Any, answer: dict[str, Any]) -> None:
    """Print what an answer rests on: citations, notes and provenance."""
    typer.echo("\n")
    for citation in answer["citations"]:
        typer.echo(f"  {location(root, citation['path'], citation['start_line'])}")
    for note in answer["notes"]:
        typer.echo(f"  note: {plain(note)}")
    provenance, timings = answer["provenance"], answer["timings"]
    commit = (provenance["index_commit"] or "none")[:12]
    typer.echo(
        f"  {provenance['base_model']}, adapter {provenance['adapter'] or 'none'}, index {commit}, "
        f"{provenance['pending']} pending; first token {timings['first_token_ms'] / 1000:.1f} s, "
        f"{timings['completion_tokens']} tokens in {timings['total_ms'] / 1000:.1f} s"
    )
