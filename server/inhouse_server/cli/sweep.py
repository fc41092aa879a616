"""`inhouse sweep`: try settings around a recipe, and write the best one as a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.plan import CardOption, PriceOption, forecast_lines, only_with_dry_run
from inhouse_server.cli.terminal import print_json, progress_bar
from inhouse_server.cli.training_job import training_job
from inhouse_server.cli.usage import interval, known_recipe

if TYPE_CHECKING:
    from inhouse_training import SweepForecast, SweepPlan, SweepResult

_SHOWN = 5


def sweep(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A shipped recipe or a path; its [sweep] says what is tried.", callback=known_recipe),
    ] = None,
    trials: Annotated[
        int,
        typer.Option("--trials", min=1, help="How many settings are tried in all, those of a stopped sweep included."),
    ] = 20,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="8h", help="Begin no further trial after this time.", callback=interval),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be tried and what it would take, and write nothing.")
    ] = False,
    card: CardOption = None,
    price: PriceOption = None,
    repo: RepoOption = HERE,
    json: JsonOption = False,
) -> None:
    """Search rank, alpha, learning rate, batch and mix of data by the gate's score on later changes.

    Each GPU works at one trial at a time. A sweep that was stopped or killed goes on. Nothing is promoted: `inhouse
    retrain --recipe FILE` does that with the recipe that it writes, judged by changes that chose nothing.
    """
    only_with_dry_run(dry_run, card, price)
    if dry_run:
        _show_plan(repo, recipe, trials, card, price, json)
        return
    from inhouse_training import parse_interval, run_sweep, this_machine

    seconds = parse_interval(timeout).total_seconds() if timeout else None
    with progress_bar() as progress:
        job = training_job(repo, recipe, progress, "sweep")
        result = run_sweep(
            job.repository,
            job.state_dir,
            job.recipe,
            job.base,
            this_machine(),
            trials,
            seconds,
            progress,
            job.retrieval,
        )
    if json:
        print_json(result.to_json())
    else:
        _show(result)


def _show(result: SweepResult) -> None:
    from inhouse_training import sweep_reasons

    for reason in sweep_reasons(result):
        typer.echo(reason)
    finished = [trial for trial in result.trials if trial.tried.state == "finished" and trial.tried.gain is not None]
    finished.sort(key=lambda trial: -(trial.tried.gain or 0.0))
    typer.echo(_row("trial", "gain", {name: name for name in ("rank", "alpha", "learning_rate", "batch", "mix")}))
    for trial in finished[:_SHOWN]:
        choice = {**trial.tried.choice, "learning_rate": f"{trial.tried.choice['learning_rate']:.3g}"}
        typer.echo(_row(str(trial.tried.number), f"{trial.tried.gain:+.3f}", choice))
    for trial in result.trials:
        if trial.tried.state == "failed":
            typer.echo(f"trial {trial.tried.number} failed: {trial.tried.reason}")
    typer.echo(f"recipe: {result.recipe}")
    typer.echo(f"report: {result.report}")


def _row(number: str, gain: str, choice: Any) -> str:
    values = " ".join(f"{choice[name]!s:>13}" for name in ("rank", "alpha", "learning_rate", "batch", "mix"))
    return f"{number:>5} {gain:>7} {values}"


def _show_plan(repo: Path, recipe: str | None, trials: int, card: str | None, price: float | None, json: bool) -> None:
    from inhouse_training import forecast_sweep, named_card, plan_sweep, this_machine, visible_gpus

    chosen = named_card(card) if card else None
    with progress_bar() as progress:
        job = training_job(repo, recipe, progress, "sweep", look_only=True)
        machine = chosen or this_machine()
        plan = plan_sweep(job.repository, job.state_dir, job.recipe, job.base, machine, job.retrieval)
        at_once = 1 if chosen else max(1, len(visible_gpus()))
        cost = price if price is not None else job.settings.retrain.price
        forecast = forecast_sweep(
            plan, job.repository, job.state_dir, job.recipe, job.base, machine, trials, at_once, cost, progress
        )
    if json:
        print_json({**plan.to_json(), "forecast": forecast.to_json()})
        return
    for line in _plan_lines(plan, forecast):
        typer.echo(line)


def _plan_lines(plan: SweepPlan, forecast: SweepForecast) -> list[str]:
    space = plan.space
    low, high = space.learning_rates
    lines = [
        f"would try {forecast.trials} settings, {forecast.at_once} at once:",
        f"  ranks {_listed(space.ranks)}; alpha {_listed(space.alphas)} times the rank; rows in a step "
        f"{_listed(space.batches)}",
        f"  learning rates {low:.2g} to {high:.2g}; mixes {_listed(tuple(space.mixes))}",
        *(f"  {sentence}" for sentence in space.left_out),
        f"  chosen by {len(plan.selection)} changes after {plan.cut.snapshot[:12]}; {plan.judging} later ones are left "
        "to judge what comes of it",
        f"  sweep {plan.directory}",
        "the trial that takes most:",
        *(f"  {line}" for line in forecast_lines(forecast.largest)),
    ]
    if forecast.seconds is not None:
        cost = f", cost {forecast.cost:.2f}" if forecast.cost is not None else ""
        lines.append(
            f"all trials: about {forecast.seconds:,.0f} s of training{cost}, if none is given up early; scoring comes "
            "on top"
        )
    return lines


def _listed(values: tuple[Any, ...]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
