"""`inhouse dataset`: build the training data of the repository as it is now, and say what is in it."""

from __future__ import annotations

from typing import Any

import typer

from inhouse_retrieval.errors import InhouseError
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json, progress_bar
from inhouse_server.cli.training_job import RecipeOption, training_job

app = typer.Typer(help="The training data.", no_args_is_help=True)


@app.command("build")
def build(repo: RepoOption = HERE, recipe: RecipeOption = None, json: JsonOption = False) -> None:
    """Build the dataset: the time split first, then rows, then the account of every token."""
    from inhouse_training import hold_runs

    with progress_bar() as progress:
        job = training_job(repo, recipe, progress, "dataset")
        with hold_runs(job.state_dir):
            _, dataset = job.build_dataset(progress)
    _show({"directory": str(dataset.directory), **dataset.manifest}, json)


@app.command("stats")
def stats(repo: RepoOption = HERE, recipe: RecipeOption = None, json: JsonOption = False) -> None:
    """Show what the dataset holds: tokens read = trained + held out + dropped, by reason."""
    from inhouse_training import Dataset

    with progress_bar() as progress:
        run = training_job(repo, recipe, progress, "dataset").run()
    if not (run.dataset / "manifest.json").exists():
        raise InhouseError("There is no dataset for the repository as it is now.", "Run 'inhouse dataset build'.")
    _show({"directory": str(run.dataset), **Dataset(run.dataset).manifest}, json)


def _show(manifest: dict[str, Any], json: bool) -> None:
    if json:
        print_json(manifest)
        return
    for key, value in manifest.items():
        if isinstance(value, dict):
            typer.echo(f"{key}:")
            for inner, figure in value.items():
                typer.echo(f"  {inner}: {figure}")
        elif isinstance(value, list):
            typer.echo(f"{key}: {len(value)} entries, listed with --json")
        else:
            typer.echo(f"{key}: {value}")
