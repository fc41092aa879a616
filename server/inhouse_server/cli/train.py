"""`inhouse train`: fine-tune on the repository as it is now; `inhouse retrain` then evaluates and promotes."""

from __future__ import annotations

import typer

from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.plan import CardOption, DryRunOption, PriceOption, make_plan, only_with_dry_run, show_plan
from inhouse_server.cli.retrain import show_result, train_on_everything
from inhouse_server.cli.terminal import print_json, progress_bar
from inhouse_server.cli.training_job import AllDataOption, RecipeOption, training_job


def train(
    repo: RepoOption = HERE,
    recipe: RecipeOption = None,
    all_data: AllDataOption = False,
    dry_run: DryRunOption = False,
    card: CardOption = None,
    price: PriceOption = None,
    json: JsonOption = False,
) -> int:
    """Fine-tune without evaluating or promoting; a run that was interrupted continues."""
    only_with_dry_run(dry_run, card, price)
    if all_data:
        if dry_run:
            raise typer.BadParameter("--all-data runs now; it goes with --recipe and --json only.")
        show_result(train_on_everything(repo, recipe), json)
        return 0
    if dry_run:
        return show_plan(make_plan(repo, recipe, None, card, price, judged=False), json)
    from inhouse_training import hold_runs
    from inhouse_training.finetune import finetune, training_curve

    with progress_bar() as progress:
        job = training_job(repo, recipe, progress, "train")
        with hold_runs(job.state_dir), job.room(progress) as room:
            run, dataset = job.build_dataset(progress, room.make)
            room.make()
            adapter = finetune(job.base, dataset.directory, job.recipe, run.training, progress)
    curve = training_curve(run.training)
    first, last = (curve[0].loss, curve[-1].loss) if curve else (None, None)
    if json:
        print_json({"adapter": str(adapter), "steps": len(curve), "first_loss": first, "last_loss": last})
    else:
        loss = f", training loss {first:.3f} -> {last:.3f}" if first is not None and last is not None else ""
        typer.echo(f"{len(curve)} steps{loss}; the adapter lies in {adapter}.")
        typer.echo("'inhouse retrain' evaluates it and promotes it if it is better.")
    return 0
