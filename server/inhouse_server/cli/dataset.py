"""`inhouse dataset`: build the training data of the repository as it is now, say what is in it, show and export it."""

from __future__ import annotations

from dataclasses import asdict
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inhouse_retrieval.errors import InhouseError
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.synthesize import synthesize
from inhouse_server.cli.terminal import plain, print_json, progress_bar
from inhouse_server.cli.training_job import RecipeOption, TrainingJob, training_job
from inhouse_training.kinds import Kind

if TYPE_CHECKING:
    from inhouse_training import Dataset, DatasetRow

app = typer.Typer(help="The training data.", no_args_is_help=True)

app.command("synthesize")(synthesize)

_BAR = 24
_PIPED_WIDTH = 400
_LEARNED = "green"


@app.command("build")
def build(repo: RepoOption = HERE, recipe: RecipeOption = None, json: JsonOption = False) -> None:
    """Build the dataset: the time split first, then rows, then the account of every token."""
    from inhouse_training import hold_runs

    with progress_bar() as progress:
        job = training_job(repo, recipe, progress, "dataset")
        with hold_runs(job.state_dir):
            _, dataset = job.build_dataset(progress)
    _say({"directory": str(dataset.directory), **dataset.manifest}, json)


@app.command("stats")
def stats(repo: RepoOption = HERE, recipe: RecipeOption = None, json: JsonOption = False) -> None:
    """Show what the dataset holds: tokens read = trained + held out + dropped, by reason."""
    dataset = _built(repo, recipe)[1]
    _say({"directory": str(dataset.directory), **dataset.manifest}, json)


@app.command("show")
def show(
    kind: Annotated[Kind | None, typer.Option("--kind", help="Only rows of this kind.")] = None,
    name: Annotated[str, typer.Option("--name", help="Only rows of this name: a path or a commit, with *.")] = "*",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show at most so many rows.")] = 5,
    repo: RepoOption = HERE,
    recipe: RecipeOption = None,
    json: JsonOption = False,
) -> None:
    """Show rows as the model is trained on them: what it learns in colour, the rest dim."""
    from inhouse_training import load_tokenizer, read_rows

    job, dataset = _built(repo, recipe)
    rows = list(read_rows(dataset, load_tokenizer(job.base), kind, name, limit))
    if json:
        print_json([asdict(row) for row in rows])
        return
    if not rows:
        typer.echo("No row is of that kind and name.")
    for row in rows:
        _show_row(row)


@app.command("export")
def export(
    to: Annotated[Path, typer.Option("--to", help="The file that is written, such as rows.jsonl.")],
    replay: Annotated[bool, typer.Option("--replay", help="Also the base model's own answers.")] = False,
    repo: RepoOption = HERE,
    recipe: RecipeOption = None,
    json: JsonOption = False,
) -> None:
    """Write all rows but raw text as JSON lines of messages, which other trainers read."""
    from inhouse_training import SYNTHETIC, export_conversations

    people: tuple[Kind, ...] = ("conversation", "written", "edit", "completion", "review")
    kinds: tuple[Kind, ...] = (*people, *SYNTHETIC, *(("replay",) if replay else ()))
    written = export_conversations(_built(repo, recipe)[1], to, kinds)
    if json:
        print_json({"file": str(to), "rows": written})
        return
    figures = ", ".join(f"{rows} of kind {of}" for of, rows in written.items()) or "none"
    typer.echo(f"{plain(str(to))}: {sum(written.values())} rows ({figures})")


def _built(repo: Path, recipe: str | None) -> tuple[TrainingJob, Dataset]:
    from inhouse_training import Dataset

    with progress_bar() as progress:
        job = training_job(repo, recipe, progress, "dataset")
        run = job.run()
    if not (run.dataset / "manifest.json").exists():
        raise InhouseError("There is no dataset for the repository as it is now.", "Run 'inhouse dataset build'.")
    return job, Dataset(run.dataset)


def _show_row(row: DatasetRow) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    name = plain(row.name).replace("\n", " ")
    origin = f"{row.kind}  {name}  part {row.part}  snapshot {row.snapshot[:12]}"
    console.rule(style="dim")
    console.print(Text(f"{origin}  {row.tokens} tokens, {row.learned_tokens} learned", style="bold"))
    if row.origin:
        console.print(Text(_origin(row.origin), style="yellow"))
    text = Text(plain(row.text), style="dim")
    for begin, end in row.learned:
        text.stylize(f"not dim {_LEARNED}", begin, end)
    console.print(text)


def _origin(origin: str) -> str:
    told = loads(origin)
    sources = ", ".join(plain(source["place"]).replace("\n", " ") for source in told["sources"])
    return f"synthetic: written by {plain(told['generator'])} from {sources}"


def _say(manifest: dict[str, Any], json: bool) -> None:
    if json:
        print_json(manifest)
        return
    for key, value in manifest.items():
        if key == "tokens":
            _draw_mix(value)
        elif isinstance(value, dict):
            shown = {inner: told for inner, figure in value.items() if (told := _told(figure))}
            if shown:
                typer.echo(f"{key}:")
            for inner, told in shown.items():
                typer.echo(f"  {inner}: {told}")
        elif told := _told(value):
            typer.echo(f"{key}: {told}")


def _told(value: Any) -> str:
    """A figure of the manifest for people; empty where there is nothing to tell. Of a dictionary each name with what it
    counts, and of one of dictionaries each name with its counts."""
    if isinstance(value, list):
        return f"{len(value)} {'entry' if len(value) == 1 else 'entries'}, listed with --json" if value else ""
    if not isinstance(value, dict):
        return str(value)
    if any(isinstance(figure, dict) for figure in value.values()):
        return "; ".join(f"{name}: {told}" for name, figure in value.items() if (told := _told(figure)))
    return ", ".join(f"{figure:,} {name}" for name, figure in value.items() if figure)


def _draw_mix(tokens: dict[str, dict[str, Any]]) -> None:
    """A line for each kind of text; bars are to the scale of the largest kind."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from inhouse_training import NO_REMARKS, SYNTHETIC

    largest = max((figures["read"] for figures in tokens.values()), default=0) or 1
    table = Table(box=None, pad_edge=False)
    table.add_column("tokens")
    for heading in ("read", "trained", "held out", "dropped"):
        table.add_column(heading, justify="right")
    table.add_column(Text.assemble(("█ trained ", _LEARNED), ("▓ held out ", "yellow"), ("░ dropped", "dim")))
    for kind, figures in tokens.items():
        dropped = sum(figures["dropped"].values())
        if kind in SYNTHETIC and not dropped and not figures["read"]:
            continue
        bar, before, drawn = Text(), 0, 0
        for mark, style, part in (
            ("█", _LEARNED, figures["trained"]),
            ("▓", "yellow", figures["held_out"]),
            ("░", "dim", dropped),
        ):
            before += part
            end = round(_BAR * before / largest)
            bar.append(mark * (end - drawn), style=style)
            drawn = end
        shown = (figures["read"], figures["trained"], figures["held_out"], dropped)
        table.add_row(kind, *(f"{figure:,}" for figure in shown), bar)
        for reason, figure in figures["dropped"].items():
            if figure or reason == NO_REMARKS:
                table.add_row("", "", "", "", f"{figure:,}", Text(reason, style="dim"))
    console = Console(highlight=False)
    if not console.is_terminal:  # what is piped has no width to wrap reasons into
        console.width = max(console.width, _PIPED_WIDTH)
    console.print(table)
