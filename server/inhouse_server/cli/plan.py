"""`--dry-run` of `train` and `retrain`: what would be done, and what it would take; nothing is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inhouse_retrieval.errors import InhouseError
from inhouse_server.cli.room import room_here
from inhouse_server.cli.terminal import print_json, progress_bar
from inhouse_server.cli.training_job import TrainingJob, training_job

if TYPE_CHECKING:
    from inhouse_training import Forecast, RetrainPlan, Room

DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done and what it would take, and write nothing.")
]
CardOption = Annotated[
    str | None, typer.Option("--card", metavar="a100-40gb", help="With --dry-run: plan for this card.")
]
PriceOption = Annotated[
    float | None, typer.Option("--price", min=0, metavar="2.79", help="With --dry-run: what an hour costs.")
]

_GIB = 2**30


def only_with_dry_run(dry_run: bool, card: str | None, price: float | None) -> None:
    """Refuse the options of a plan where a run would begin: whoever names a card does not mean this machine.

    Raises:
        typer.BadParameter: one of them is there, and `--dry-run` is not.
    """
    for option, given in (("--card", card), ("--price", price)):
        if given is not None and not dry_run:
            raise typer.BadParameter(f"{option} goes with --dry-run.")


def make_plan(
    repo: Path, recipe: str | None, waiting: str | None, card: str | None, price: float | None, judged: bool = True
) -> RetrainPlan:
    """What a run would do now.

    Args:
        waiting: why none is due.
        judged: whether it judges what it trains.

    Raises:
        InhouseError: there is no such card, or the history is too short.
    """
    from inhouse_training import named_card, plan_retraining, this_machine, with_forecast

    chosen = named_card(card) if card else None
    with progress_bar() as progress:
        job = training_job(repo, recipe, progress, "retrain", look_only=True)
        plan = plan_retraining(job.repository, job.state_dir, job.recipe, job.base, job.retrieval, judged)
        if waiting:
            return replace(plan, decision="skip", reasons=(waiting,))
        if plan.decision != "train":
            return plan
        room = _room_of(job) if chosen is None else None
        plan = with_forecast(
            plan,
            job.run(),
            job.repository,
            job.state_dir,
            job.recipe,
            job.base,
            chosen or this_machine(),
            price if price is not None else job.settings.retrain.price,
            here=chosen is None,
            progress=progress,
            room=room,
        )
    if not job.base.sha256:
        return replace(plan, reasons=(*plan.reasons, f"{job.base.name} is not on this machine and would be fetched."))
    return plan


def _room_of(job: TrainingJob) -> Room | None:
    """Where the memory would come from; ``None`` where the recipe cannot run here anyway, which the forecast tells."""
    try:
        return room_here(job.state_dir, job.recipe, job.base, job.settings.retrain.step_aside, weights=job.weights)
    except InhouseError:
        return None


def show_plan(plan: RetrainPlan, json: bool) -> int:
    """Print a plan; the exit code is 1 when the run would not fit."""
    code = 1 if plan.decision == "refuse" else 0
    if json:
        print_json(plan.to_json())
        return code
    typer.echo(f"would {plan.decision}:")
    for reason in plan.reasons:
        typer.echo(f"  {reason}")
    typer.echo(
        f"  snapshot {plan.snapshot}: {plan.training_changes} changes to learn from, {plan.held_out_changes} held out"
    )
    typer.echo(f"  recipe {plan.recipe}, base model {plan.base_model}, current adapter {plan.current or 'none'}")
    typer.echo(f"  run {plan.run}")
    if plan.room is not None and plan.room.decision != "refuse":
        typer.echo(f"  room: {plan.room.told}")
    for line in forecast_lines(plan.forecast) if plan.forecast is not None else ():
        typer.echo(f"  {line}")
    return code


def forecast_lines(forecast: Forecast) -> list[str]:
    """A forecast as lines of text."""
    rows, memory, machine = forecast.rows, forecast.memory, forecast.machine
    lines = ["rows: not counted, since no tokenizer is on this machine"]
    if rows is not None:
        lines = [
            f"rows: {rows.rows:,} of {rows.tokens:,} tokens together, {rows.label_tokens:,} of them learned",
            f"training: {_count(forecast.passes, 'pass', 'passes')}, {_count(forecast.steps, 'step', 'steps')}, "
            f"{forecast.tokens:,} tokens",
        ]
        lines += [rows.remark] if rows.remark else []
    if memory is not None:
        parts = ("weights", "adapter", "activations", "logits", "overhead")
        told = ", ".join(f"{part} {getattr(memory, part) / _GIB:.1f}" for part in parts)
        room = f"{machine.memory / _GIB:.1f} on {machine.name}"
        split = "the model split between them" if forecast.share.split else "the whole model on each"
        shared = f", on each of {forecast.share.workers} GPUs, {split}" if forecast.share.workers > 1 else ""
        lines.append(f"memory: about {memory.total / _GIB:.1f} GiB ({told}) of {room}{shared}")
    else:
        lines.append("memory: not predicted, since this base model's shape is not known")
    if forecast.precision == "float16":
        lines.append(
            f"precision: float16 with scaled gradients, since {machine.name} does not multiply bfloat16 itself"
        )
    cost = f", cost {forecast.cost:.2f}" if forecast.cost is not None else ""
    told = f"about {forecast.seconds:,.0f} s of training{cost}. " if forecast.seconds is not None else ""
    return [*lines, f"time: {told}{forecast.basis}"]


def _count(number: int | None, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"
