"""`inhouse retrain`: index, build, train, evaluate, and promote only what is better; `inhouse retrain install`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inhouse_server.cli.backend import locate, open_backend
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json, progress_bar
from inhouse_server.cli.training_job import RecipeOption, training_job

if TYPE_CHECKING:
    from inhouse_training import LastRun, RetrainPlan, RetrainResult

app = typer.Typer()

REJECTED = 3
"""Exit code when the gate rejected the candidate."""

EveryOption = Annotated[
    str | None,
    typer.Option("--every", metavar="7d", help="Run only when the last run is this old; 0 runs now."),
]
AfterPrsOption = Annotated[
    int | None, typer.Option("--after-prs", min=1, help="Run only when this many changes have landed since.")
]


@app.callback(invoke_without_command=True)
def retrain(
    context: typer.Context,
    repo: RepoOption = HERE,
    recipe: RecipeOption = None,
    every: EveryOption = None,
    after_prs: AfterPrsOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
    json: JsonOption = False,
) -> int:
    """Refresh the model's knowledge: train a candidate and promote it only if it is better.

    With --every or --after-prs, or [retrain] in inhouse.toml, it is skipped until one of them holds. `install` puts it
    on a schedule. Exit code 3: the candidate was rejected, and the current adapter stays.
    """
    if context.invoked_subcommand is not None:
        if repo != HERE or recipe or every or after_prs or dry_run or json:
            raise typer.BadParameter(f"The options of {context.invoked_subcommand!r} come after its name.")
        return 0
    last, waiting = _due(repo, recipe, every, after_prs)
    if dry_run:
        _show_plan(_plan(repo, recipe, waiting), json)
        return 0
    result = _not_due(repo, last, waiting) if last and waiting else _retrain(repo, recipe)
    _show_result(result, json)
    return REJECTED if result.decision == "rejected" else 0


def _due(repo: Path, recipe: str | None, every: str | None, after_prs: int | None) -> tuple[LastRun | None, str | None]:
    """The last run, and why no further one is due yet."""
    from inhouse_retrieval import Repository
    from inhouse_training import landed_since, last_run, load_recipe, parse_interval, reason_to_wait

    root, settings, state_dir = locate(repo)
    last = last_run(state_dir)
    # An option names the whole condition: what inhouse.toml says as well would let a run through that nobody asked for.
    asked = (every, after_prs) if every or after_prs else (settings.retrain.every, settings.retrain.after_prs)
    age = parse_interval(asked[0]) if asked[0] else None

    def landed() -> int:
        assert last is not None
        return landed_since(last, Repository.open(root), load_recipe(recipe or settings.recipe))

    return last, reason_to_wait(last, age, asked[1], landed, datetime.now(UTC))


def _not_due(repo: Path, last: LastRun, waiting: str) -> RetrainResult:
    from inhouse_training import Registry
    from inhouse_training.retrain import not_due

    return not_due(last, Registry(locate(repo)[2] / "adapters"), waiting)


def _retrain(repo: Path, recipe: str | None) -> RetrainResult:
    from inhouse_training.retrain import retrain as retrain_repository

    with progress_bar() as progress:
        job = training_job(repo, recipe, progress, "retrain")
        with open_backend(job.repository.root, "retrain") as (_, backend):
            backend.index(progress)
        return retrain_repository(job.repository, job.state_dir, job.recipe, job.base, progress, job.retrieval)


def _show_result(result: RetrainResult, json: bool) -> None:
    if json:
        print_json(result.to_json())
        return
    typer.echo(f"{result.decision}: candidate {result.candidate}, current {result.current or 'none'}")
    for reason in result.reasons:
        typer.echo(f"  {reason}")
    if result.report:
        typer.echo(f"  report: {result.report}")


def _plan(repo: Path, recipe: str | None, waiting: str | None) -> RetrainPlan:
    from inhouse_training import plan_retraining

    with progress_bar() as progress:
        job = training_job(repo, recipe, progress, "retrain", look_only=True)
    plan = plan_retraining(job.repository, job.state_dir, job.recipe, job.base, job.retrieval)
    if waiting:
        return replace(plan, decision="skip", reasons=(waiting,))
    if not job.base.sha256:
        return replace(plan, reasons=(*plan.reasons, f"{job.base.name} is not on this machine and would be fetched."))
    return plan


def _show_plan(plan: RetrainPlan, json: bool) -> None:
    if json:
        print_json(plan.to_json())
        return
    typer.echo(f"would {plan.decision}:")
    for reason in plan.reasons:
        typer.echo(f"  {reason}")
    typer.echo(
        f"  snapshot {plan.snapshot}: {plan.training_changes} changes to learn from, {plan.held_out_changes} held out"
    )
    typer.echo(f"  recipe {plan.recipe}, base model {plan.base_model}, current adapter {plan.current or 'none'}")
    typer.echo(f"  run {plan.run}")
    if plan.rows is not None:
        typer.echo(f"  dataset: {plan.rows} rows of {plan.row_tokens} tokens together")
    else:
        typer.echo("  dataset: not built yet")
    if plan.predicted_seconds is not None:
        typer.echo(
            f"  training: about {plan.training_tokens} tokens in {plan.predicted_seconds:.0f} s, "
            f"as fast as {plan.predicted_from} was"
        )
    elif plan.decision == "train":
        typer.echo("  training: how long is not known, since no former version tells how fast this machine is")
