"""`inhouse dataset synthesize`: let a model write rows about the repository, within a bound."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from inhouse_retrieval.errors import InhouseError
from inhouse_retrieval.progress import Progress
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import plain, print_json, progress_bar
from inhouse_server.cli.training_job import RecipeOption, TrainingJob, training_job

if TYPE_CHECKING:
    from inhouse_training import Engine, Estimate, Generator, SynthesisReport
    from inhouse_training.kinds import Kind


def synthesize(
    kinds: Annotated[
        str | None,
        typer.Option("--kinds", help="Such as qa,raft; without it, those that the recipe has a share for."),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Prompts and replies of this run take no more tokens.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only the estimate; nothing is asked.")] = False,
    repo: RepoOption = HERE,
    recipe: RecipeOption = None,
    json: JsonOption = False,
) -> None:
    """Let a model write questions, answers and explanations; what is answered already is not asked again."""
    from inhouse_training import ReplyCache, estimate, hold_runs
    from inhouse_training import synthesize as run

    with progress_bar() as progress:
        job = training_job(repo, recipe, progress, "dataset", look_only=dry_run)
        wanted = _kinds(kinds, job)
        tasks = job.synthesis_tasks(wanted, progress)
        generator = _generator(job, progress)
        bound = max_tokens or job.settings.synthesis.max_tokens_total
        predicted = estimate(tasks, job.replies_of(generator.name))
        if not json:
            _say_estimate(predicted, wanted, bound)
        if dry_run:
            if json:
                print_json({"kinds": list(wanted), "max_tokens": bound, "estimate": asdict(predicted)})
            return
        with hold_runs(job.state_dir), ReplyCache(job.state_dir) as cache:
            report = run(tasks, generator, cache, bound, progress)
    if json:
        estimated = {"kinds": list(wanted), "max_tokens": bound, "estimate": asdict(predicted)}
        print_json({**estimated, **report.to_json()})
    else:
        _say(report)


def _kinds(named: str | None, job: TrainingJob) -> tuple[Kind, ...]:
    from inhouse_training import SYNTHETIC, wanted_kinds

    if named is None:
        if wanted := wanted_kinds(job.recipe.data):
            return wanted
        raise InhouseError(
            f"The recipe {job.recipe.name} has no share for synthetic rows.",
            f"Give it one, such as qa_share = 0.1, or name kinds with --kinds: {', '.join(SYNTHETIC)}.",
        )
    words = [word.strip() for word in named.split(",")]
    if unknown := [word for word in words if word not in SYNTHETIC]:
        raise InhouseError(f"There is no synthetic kind called {unknown[0]!r}.", f"There are {', '.join(SYNTHETIC)}.")
    return tuple(kind for kind in SYNTHETIC if kind in words)


def _generator(job: TrainingJob, progress: Progress) -> Generator:
    """The server of [synthesis]; else the one that [engine] names; else the base model in this process."""
    from inhouse_training import EndpointGenerator, EngineGenerator

    settings, engine = job.settings.synthesis, job.settings.engine
    url, model, variable = settings.base_url, settings.model, settings.api_key_env
    if url is None and engine.kind == "openai":
        url, model, variable = engine.url, settings.model or engine.model, engine.api_key_env
    if url is not None and model is not None:
        key = os.environ.get(variable, "").strip() or None
        return EndpointGenerator(url, model, key, f"${variable}", settings.concurrency, settings.json_schema, progress)
    if settings.model is not None:
        raise InhouseError(
            "[synthesis] names a model and no server.",
            "Add base_url to [synthesis] in inhouse.toml, or remove model to let the base model write.",
        )
    return EngineGenerator(f"{job.base.name} {job.base.sha256[:12]}".strip(), partial(_load, job))


def _load(job: TrainingJob) -> Engine:
    from inhouse_training import Registry, TransformersEngine, weights_here

    verify = Registry(job.state_dir / "adapters").verify
    return TransformersEngine(job.base, verify, weights=weights_here(job.weights, job.recipe.trainer.load_in_4bit))


def _say_estimate(predicted: Estimate, kinds: tuple[Kind, ...], bound: int) -> None:
    from inhouse_training import TOPICS

    written = ", ".join(kind for kind in kinds if kind in TOPICS)
    made = ", ".join(kind for kind in kinds if kind not in TOPICS)
    told = [f"{written}: written by {plain(predicted.generator)}"] if written else []
    told += [f"{made}: made of the code by 'inhouse dataset build', without a model"] if made else []
    typer.echo("; ".join(told))
    requests = "request" if predicted.open == 1 else "requests"
    typer.echo(
        f"{predicted.open:,} {requests}, {predicted.prompt_tokens:,} tokens of prompts and "
        f"{predicted.reply_tokens:,} of replies at most (estimated); {predicted.cached:,} answered before"
    )
    if predicted.tokens > bound:
        typer.echo(f"the bound of {bound:,} tokens ends it before; run again to go on")


def _say(report: SynthesisReport) -> None:
    typer.echo(
        f"{report.asked:,} answered in {report.seconds:.0f} s with {report.tokens:,} tokens, {report.cached:,} before"
    )
    if report.beyond_bound:
        typer.echo(f"{report.beyond_bound:,} left for another run: they would pass the bound of tokens")
    for what, reasons in (("refused", report.refused), ("failed", report.failed)):
        for reason, count in reasons.items():
            typer.echo(f"  {count:,} {what}: {plain(reason)}")
    for topic in sorted({*report.grounded, *report.dropped}):
        dropped: dict[str, int] = dict(report.dropped.get(topic, {}))
        good, bad = report.grounded[topic], sum(dropped.values())
        typer.echo(f"{topic}: {good:,} of {good + bad:,} can be used ({good / (good + bad):.0%})")
        for reason, count in sorted(dropped.items(), key=lambda pair: -pair[1]):
            typer.echo(f"  {count:,} dropped: {reason}")
