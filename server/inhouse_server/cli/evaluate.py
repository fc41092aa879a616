"""`inhouse eval model`: an adapter on held-out changes; `eval retrieval`: the search; `eval review`: the reviewer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inhouse_server.cli.backend import locate
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json, progress_bar, start_logging
from inhouse_server.cli.training_job import RecipeOption, training_job

app = typer.Typer(help="Score what was trained, or the search, on later changes.", invoke_without_command=True)

AdapterOption = Annotated[str, typer.Option("--adapter", help="'current' or an adapter version.")]
GenerateOption = Annotated[
    int,
    typer.Option(
        "--generate",
        min=0,
        max=1000,
        help="Also let each answer this many questions of each kind: completion, made-up names, outdated pages.",
    ),
]


@app.callback()
def evaluate(
    context: typer.Context,
    repo: RepoOption = HERE,
    recipe: RecipeOption = None,
    adapter: AdapterOption = "current",
    generate: GenerateOption = 0,
    json: JsonOption = False,
) -> None:
    """Score the base model, the current adapter and another one on later changes: the same as `eval model`."""
    if context.invoked_subcommand is None:
        model(repo, recipe, adapter, generate, json)


@app.command("model")
def model(
    repo: RepoOption = HERE,
    recipe: RecipeOption = None,
    adapter: AdapterOption = "current",
    generate: GenerateOption = 0,
    json: JsonOption = False,
) -> None:
    """Score the base model, the current adapter and another one on later changes that none of them saw."""
    from inhouse_training import evaluate_version, write_evaluation_report

    with progress_bar() as progress:
        job = training_job(repo, recipe, progress, "eval")
        evaluation = evaluate_version(
            job.repository, job.state_dir, job.recipe, job.base, adapter, progress, job.retrieval, generate, job.weights
        )
    report = write_evaluation_report(evaluation)
    metrics = evaluation.metrics()
    if json:
        print_json({**metrics, "report": str(report)})
        return
    from inhouse_server.cli.evaluation_text import evaluation_lines

    for line in evaluation_lines(metrics):
        typer.echo(line)
    typer.echo(f"report: {report}")


@app.command("retrieval")
def retrieval(
    repo: RepoOption = HERE,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", help="Snapshot to search: a revision or a date; by default what --queries changes follow."
        ),
    ] = None,
    queries: Annotated[int, typer.Option("--queries", min=10, max=5000, help="Later changes asked for at most.")] = 150,
    description: Annotated[
        bool, typer.Option("--with-description", help="Ask with the title and the description of a change.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure the search on this repository's own history: titles of later changes -> the files that they changed."""
    from inhouse_retrieval import Repository, load_encoder
    from inhouse_retrieval.benchmark import run_benchmark, select_queries
    from inhouse_retrieval.benchmark_report import reranker_line, table, write_benchmark_report
    from inhouse_server.state_dir import prepare_state_dir

    root, settings, state_dir = locate(repo)
    prepare_state_dir(state_dir)
    start_logging(state_dir, "eval")
    repository = Repository.open(root).excluding(settings.exclude)
    folder: Path = state_dir / "benchmark"
    chosen = select_queries(repository, at, queries)
    with progress_bar() as progress:
        measured = run_benchmark(
            repository,
            folder,
            load_encoder(settings.encoder.choice(root)),
            chosen,
            progress,
            with_description=description,
            reranker=settings.reranker.reranker(root),
        )
    report = write_benchmark_report(measured, root.name, folder)
    if json:
        print_json({**measured.to_json(), "report": str(report)})
        return
    rows = [[cell.split(" (")[0] for cell in row] for row in table(measured)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    typer.echo(f"{measured.queries} later changes, {measured.files} files at {measured.snapshot[:12]}")
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    gain = measured.gains["R@10"]
    typer.echo(f"R@10 over dense alone: {gain.mean:+.3f} (95 % interval {gain.low:+.3f} to {gain.high:+.3f})")
    if measured.reranker is not None:
        typer.echo(f"the reranker {reranker_line(measured.reranker)}")
    typer.echo(f"report: {report}")


@app.command("review")
def review(
    repo: RepoOption = HERE,
    changes: Annotated[int, typer.Option("--changes", min=20, max=5000, help="Later changes asked about.")] = 300,
    lines: Annotated[
        bool,
        typer.Option("--lines", help="Instead, judge scores of lines by the current adapter: reads with the model."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure the house reviewer on this repository's own history."""
    if lines:
        _lines(repo, changes, json)
        return
    from inhouse_retrieval import Repository
    from inhouse_server.review.evaluation import Share, evaluate_review

    root, settings, state_dir = locate(repo)
    start_logging(state_dir, "eval")
    with progress_bar() as progress:
        measured = evaluate_review(Repository.open(root).excluding(settings.exclude), changes, progress=progress)
    if json:
        print_json(measured.to_json())
        return

    def shown(share: Share) -> str:
        if share.mean is None:
            return "no case"
        return f"{share.mean:.1%} of {share.of} (95 % interval {share.low:.1%} to {share.high:.1%})"

    typer.echo(f"{measured.changes} changes; a missing companion was named in {measured.named}")
    typer.echo(f"named file changed within 30 days:     {shown(measured.came_true)}")
    typer.echo(f"busiest untouched file, same changes:  {shown(measured.busiest)}")
    typer.echo(f"a file left out: something was named:  {shown(measured.left_out)}")
    typer.echo(f"    and it was the file left out:      {shown(measured.left_out_found)}")
    typer.echo(f"house imports replaced, found:         {shown(measured.planted)}")
    typer.echo(f"remarks whose anchor is right:         {shown(measured.anchored)}")
    typer.echo(f"suggestions made that were shown:      {shown(measured.suggestions)}")
    typer.echo(f"remarks on {measured.replayed} changes ({measured.lines} added lines): {measured.remarks}")


def _lines(repo: Path, changes: int, json: bool) -> None:
    """ROC-AUC of every score of lines for those found wanting, and what it finds of planted breaks."""
    from inhouse_retrieval.errors import InhouseError
    from inhouse_server.review.line_evaluation import as_text, table
    from inhouse_server.review.line_measurement import report_lines
    from inhouse_server.review.planted import found_table
    from inhouse_training import Registry, TransformersEngine, load_tokenizer, trains_in_4bit, weights_here

    with progress_bar() as progress:
        job = training_job(repo, None, progress, "eval")
        registry = Registry(job.state_dir / "adapters")
        version = registry.current()
        if version is None:
            raise InhouseError("There is no adapter to score lines with.", "Run `inhouse retrain` first.")
        manifest = registry.get(version).manifest
        row_tokens = manifest.recipe.get("data", {}).get("max_tokens", job.recipe.data.max_tokens)
        weights = weights_here(job.weights, trains_in_4bit(manifest.recipe))
        engine = TransformersEngine(job.base, registry.verify, weights=weights)
        report = report_lines(
            job.repository, engine, load_tokenizer(job.base), version, manifest.snapshot, changes, row_tokens, progress
        )
    if json:
        print_json(report.to_json())
        return
    found = report.evaluation
    typer.echo(f"adapter {version}, trained on {report.snapshot[:12]}")
    typer.echo(f"{found.requests} later pull requests; {found.with_both} have lines of both kinds")
    typer.echo(f"{found.lines} added lines; {found.wanting} found wanting, {report.moved} only moved or reformatted")
    typer.echo(f"{report.truncated} lines read without the start of their file; {report.too_long} too long to read")
    for reason, count in report.left_out.items():
        typer.echo(f"not judged: {count} ({reason})")
    typer.echo(as_text(table(found)))
    if report.breaks:
        typer.echo(f"planted breaks, found at one false alarm in 200 lines: {report.breaks}")
        typer.echo(as_text(found_table(report.found)))
    typer.echo(f"house score: {'on' if report.decision.on else 'off'}: {report.decision.reason}")
    if report.calibration is not None:
        typer.echo(report.calibration.says)
