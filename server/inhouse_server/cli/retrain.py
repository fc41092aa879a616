"""`inhouse retrain`: index, build, train, evaluate, and promote only what is better."""

from __future__ import annotations

import typer

from inhouse_server.cli.backend import open_backend
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json, progress_bar
from inhouse_server.cli.training_job import RecipeOption, training_job

REJECTED = 3
"""Exit code when the gate rejected the candidate."""


def retrain(repo: RepoOption = HERE, recipe: RecipeOption = None, json: JsonOption = False) -> int:
    """Refresh the model's knowledge: train a candidate and promote it only if it is better."""
    from inhouse_training.retrain import retrain as retrain_repository

    with progress_bar() as progress:
        job = training_job(repo, recipe, progress, "retrain")
        with open_backend(job.repository.root, "retrain") as (_, backend):
            backend.index(progress)
        result = retrain_repository(job.repository, job.state_dir, job.recipe, job.base, progress, job.retrieval)
    if json:
        print_json(result.to_json())
    else:
        typer.echo(f"{result.decision}: candidate {result.candidate}, current {result.current or 'none'}")
        for reason in result.reasons:
            typer.echo(f"  {reason}")
        if result.report:
            typer.echo(f"  report: {result.report}")
    return REJECTED if result.decision == "rejected" else 0
