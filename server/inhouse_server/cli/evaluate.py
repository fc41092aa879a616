"""`inhouse eval`: score the base model and an adapter on the changes that were held out."""

from __future__ import annotations

from typing import Annotated

import typer

from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json, progress_bar
from inhouse_server.cli.training_job import RecipeOption, training_job


def evaluate(
    repo: RepoOption = HERE,
    recipe: RecipeOption = None,
    adapter: Annotated[str, typer.Option("--adapter", help="'current' or an adapter version.")] = "current",
    json: JsonOption = False,
) -> None:
    """Score the base model and an adapter on later changes that neither saw."""
    from inhouse_training import evaluate_version

    with progress_bar() as progress:
        job = training_job(repo, recipe, progress, "eval")
        evaluation = evaluate_version(
            job.repository, job.state_dir, job.recipe, job.base, adapter, progress, job.retrieval
        )
    metrics = evaluation.metrics()
    if json:
        print_json(metrics)
        return
    for mode, losses in metrics["held_out"].items():
        typer.echo(f"{mode}: {losses}")
    typer.echo(f"forgetting: {metrics.get('forgetting')}")
