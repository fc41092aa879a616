"""`inhouse retrain`: index, build, train, evaluate, and promote only what is better; `inhouse retrain install`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inhouse_retrieval.errors import Busy, Cancelled, InhouseError
from inhouse_server.cli.backend import locate, open_backend
from inhouse_server.cli.notify import notify
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.plan import CardOption, DryRunOption, PriceOption, make_plan, only_with_dry_run, show_plan
from inhouse_server.cli.schedules import Job, Timer, schedule
from inhouse_server.cli.terminal import print_json, progress_bar, warn
from inhouse_server.cli.training_job import AllDataOption, RecipeOption, training_job
from inhouse_server.cli.usage import interval

if TYPE_CHECKING:
    from inhouse_retrieval import Progress
    from inhouse_server.cli.training_job import TrainingJob
    from inhouse_training import LastRun, RetrainResult

app = typer.Typer()

REJECTED = 3
"""Exit code when the gate rejected the candidate."""

EveryOption = Annotated[
    str | None,
    typer.Option(
        "--every", metavar="7d", help="Run only when the last run is this old; 0 runs now.", callback=interval
    ),
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
    all_data: AllDataOption = False,
    dry_run: DryRunOption = False,
    card: CardOption = None,
    price: PriceOption = None,
    json: JsonOption = False,
) -> int:
    """Refresh the model's knowledge: train a candidate and promote it only if it is better.

    With --every or --after-prs, or [retrain] in inhouse.toml, it is skipped until one of them holds. `install` puts it
    on a schedule. Exit code 3: the candidate was rejected, and the current adapter stays.
    """
    if context.invoked_subcommand is not None:
        if repo != HERE or recipe or every or after_prs or all_data or dry_run or card or price or json:
            raise typer.BadParameter(f"The options of {context.invoked_subcommand!r} come after its name.")
        return 0
    only_with_dry_run(dry_run, card, price)
    if all_data:
        if dry_run or every or after_prs:
            raise typer.BadParameter("--all-data runs now; it goes with --recipe and --json only.")
        show_result(train_on_everything(repo, recipe), json)
        return 0
    last, waiting = _due(repo, recipe, every, after_prs)
    if dry_run:
        return show_plan(make_plan(repo, recipe, waiting, card, price), json)
    result = _not_due(repo, last, waiting) if last and waiting else _retrain(repo, recipe)
    show_result(result, json)
    return REJECTED if result.decision == "rejected" else 0


def _due(repo: Path, recipe: str | None, every: str | None, after_prs: int | None) -> tuple[LastRun | None, str | None]:
    """The last run, and why no further one is due yet."""
    from inhouse_retrieval import Repository
    from inhouse_training import is_ahead, landed_since, last_run, load_recipe, parse_interval, reason_to_wait

    root, settings, state_dir = locate(repo)
    last = last_run(state_dir)
    # An option names the whole condition: what inhouse.toml says as well would let a run through that nobody asked for.
    asked = (every, after_prs) if every or after_prs else (settings.retrain.every, settings.retrain.after_prs)
    age = parse_interval(asked[0]) if asked[0] else None

    def landed() -> int:
        assert last is not None
        return landed_since(last, Repository.open(root), load_recipe(recipe or settings.recipe), asked[1] or 0)

    if last is not None and is_ahead(last, datetime.now(UTC)):
        warn(
            f"The last run is dated {last.started:%Y-%m-%d %H:%M} UTC, which is yet to come: the clock of this machine "
            "was set back. The run does not wait for that time; nothing is lost."
        )
    return last, reason_to_wait(last, age, asked[1], landed, datetime.now(UTC))


def _not_due(repo: Path, last: LastRun, waiting: str) -> RetrainResult:
    from inhouse_training import Registry
    from inhouse_training.retrain import not_due

    return not_due(last, Registry(locate(repo)[2] / "adapters"), waiting)


def _retrain(repo: Path, recipe: str | None) -> RetrainResult:
    with progress_bar() as progress, _told(repo):
        job = training_job(repo, recipe, progress, "retrain")
        result = _retrained(job, progress)
    if result.decision != "skipped":
        _tell(repo, result.to_json())
    return result


def _retrained(job: TrainingJob, progress: Progress) -> RetrainResult:
    from inhouse_server.cli.adapters import held_versions
    from inhouse_server.cli.golden import note_golden
    from inhouse_training import Registry, hold_runs
    from inhouse_training.retrain import retrain as retrain_repository

    with open_backend(job.repository.root, "retrain") as (_, backend):
        backend.index(progress)
    with job.room(progress) as room:
        result = retrain_repository(
            job.repository, job.state_dir, job.recipe, job.base, progress, job.retrieval, room.make, job.weights
        )
    registry = Registry(job.state_dir / "adapters")
    if job.settings.engine.kind == "vllm" and result.decision == "promoted" and result.candidate:
        note_golden(registry, result.candidate, job.settings.base_model, progress)
    if result.decision != "skipped":
        with suppress(Busy), hold_runs(job.state_dir):  # who holds them then does the same in the end
            registry.collect_rejected(held=held_versions(job.settings, job.state_dir))
    return result


@contextmanager
def _told(repo: Path) -> Iterator[None]:
    """Tell the webhook of a run that fails: at night nobody reads what it says."""
    try:
        yield
    except Cancelled:
        raise
    except InhouseError as error:
        _tell(repo, {"decision": "failed", "reasons": [error.problem, *([error.remedy] if error.remedy else [])]})
        raise


def _tell(repo: Path, told: dict[str, Any]) -> None:
    root, settings, _ = locate(repo)
    webhook = settings.retrain.webhook
    if webhook and (failure := notify(webhook, {"repository": root.name, **told})):
        warn(failure)


def train_on_everything(repo: Path, recipe: str | None) -> RetrainResult:
    """Train with nothing held out and register the version."""
    from inhouse_training import retrain_on_everything

    with progress_bar() as progress:
        job = training_job(repo, recipe, progress, "retrain")
        with job.room(progress) as room:
            return retrain_on_everything(job.repository, job.state_dir, job.recipe, job.base, progress, room.make)


def show_result(result: RetrainResult, json: bool) -> None:
    """Print what a run came to."""
    if json:
        print_json(result.to_json())
        return
    typer.echo(f"{result.decision}: candidate {result.candidate}, current {result.current or 'none'}")
    for reason in result.reasons:
        typer.echo(f"  {reason}")
    if result.report:
        typer.echo(f"  report: {result.report}")


@app.command("install")
def install(
    timer: Annotated[Timer, typer.Option("--timer", help="Which scheduler.", show_default=False)],
    repo: RepoOption = HERE,
    at: Annotated[
        str, typer.Option("--at", metavar="02:00", help="Time of day; UTC in github and kubernetes.")
    ] = "02:00",
    every: EveryOption = None,
    after_prs: AfterPrsOption = None,
    recipe: RecipeOption = None,
    image: Annotated[str, typer.Option("--image", help="Container image for kubernetes.")] = "inhouse:latest",
    output: Annotated[
        Path | None, typer.Option("--output", help="Write there: a folder, or the file when there is one alone.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    json: JsonOption = False,
) -> None:
    """Print, or write, what makes a scheduler call `inhouse retrain`. Nothing is installed by itself."""
    job = _job(repo, at, every, after_prs, recipe, image)
    made = schedule(timer, job)
    if output is not None:
        written = _write(made.files, output, force)
    if json:
        print_json({"timer": timer, "command": list(job.command), "files": made.files, "next_step": made.next_step})
        return
    for name, content in made.files.items():
        typer.echo(f"Wrote {written[name]}" if output is not None else f"# {name}\n{content}")
    typer.echo(made.next_step, err=True)


def _job(repo: Path, at: str, every: str | None, after_prs: int | None, recipe: str | None, image: str) -> Job:
    from inhouse_retrieval import Repository
    from inhouse_training import load_recipe, parse_interval

    time_of_day = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)", at)
    if time_of_day is None:
        raise typer.BadParameter(f"{at!r} is not a time of day, such as 02:00.", param_hint="--at")
    root, settings, _ = locate(repo)
    options: list[str] = []
    if every:
        options += ["--every", every]
    if after_prs:
        options += ["--after-prs", str(after_prs)]
    if recipe:
        load_recipe(recipe)
        options += ["--recipe", str(Path(recipe).resolve()) if recipe.endswith(".toml") else recipe]
    wanted = every or (None if after_prs else settings.retrain.every)
    follows = Repository.open(root).git("rev-parse", "--abbrev-ref", "@{upstream}", allow_failure=True).strip()
    return Job(
        root=root,
        options=tuple(options),
        pull=bool(follows),
        hour=int(time_of_day[1]),
        minute=int(time_of_day[2]),
        hourly=wanted is not None and timedelta() < parse_interval(wanted) < timedelta(days=1),
        image=image,
    )


def _write(files: dict[str, str], output: Path, force: bool) -> dict[str, Path]:
    """Write ``files`` into the folder ``output``, or a single one to the file ``output``; where each lies."""
    single = len(files) == 1 and not output.is_dir()
    paths = {name: output if single else output / name for name in files}
    for path in paths.values():
        if path.exists() and not force:
            raise InhouseError(f"{path} exists already.", "Use --force to write a new one over it.")
    try:
        for name, path in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[name], encoding="utf-8")
    except OSError as error:
        raise InhouseError(
            f"{error.filename} cannot be written: {error.strerror}.", "Name another --output."
        ) from error
    return paths
