"""`inhouse adapters`: list, show, promote, roll back, collect what nothing needs, export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from inhouse_retrieval.errors import InhouseError
from inhouse_server.cli.backend import locate
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json, progress_bar, start_logging, warn

if TYPE_CHECKING:
    from inhouse_server.settings import Settings
    from inhouse_training import Registry

app = typer.Typer(help="The versions that training made.", no_args_is_help=True)

VersionArgument = Annotated[str, typer.Argument(help="An adapter version.")]


def _registry(repo: Path) -> Registry:
    from inhouse_training import Registry

    state_dir = locate(repo)[2]
    start_logging(state_dir, "adapters")
    return Registry(state_dir / "adapters")


@app.command("list")
def list_versions(repo: RepoOption = HERE, json: JsonOption = False) -> None:
    """List the versions, newest first."""
    from inhouse_server.json_contracts import adapter_json

    registry = _registry(repo)
    current = registry.current()
    rows = [adapter_json(version, current) for version in reversed(registry.list())]
    damaged = registry.damaged()
    for error in damaged:
        warn(str(error))
    if json:
        print_json(rows)
        return
    if not rows and not damaged:
        typer.echo("No adapter yet. 'inhouse retrain' makes one.")
    promoted = {promotion.version for promotion in registry.history()}
    for row in rows:
        mark = "*" if row["current"] else " "
        state = "promoted" if row["version"] in promoted else "never promoted"
        when = row["created"][:16].replace("T", " ")
        origin = f"{row['base_model']}, commit {row['snapshot'][:12]}"
        typer.echo(f"{mark} {row['version']}  {when}  {origin}: {_score(row)}, {state}")


@app.command("show")
def show(version: VersionArgument, repo: RepoOption = HERE, json: JsonOption = False) -> None:
    """Show one version's manifest: where it comes from, what was measured, what the gate said."""
    manifest = asdict(_registry(repo).get(version).manifest)
    if json:
        print_json(manifest)
        return
    reasons = manifest["metrics"].pop("gate", [])
    for line in _outline(manifest):
        typer.echo(line)
    for reason in reasons:
        typer.echo(f"gate: {reason}")


@app.command("promote")
def promote(
    version: Annotated[str, typer.Argument(help="An adapter version, or 'base' for the base model alone.")],
    repo: RepoOption = HERE,
    json: JsonOption = False,
) -> None:
    """Make a version the current one, by hand."""
    from inhouse_server.promotion import promote_by_hand

    made = promote_by_hand(_registry(repo), version, locate(repo)[1].base_model)
    if made.warning:
        warn(made.warning)
    _say({"current": made.current}, f"{made.current or 'The base model'} is current.", json)


@app.command("rollback")
def rollback(repo: RepoOption = HERE, json: JsonOption = False) -> None:
    """Go back to the version before the current one."""
    current = _registry(repo).rollback("by hand")
    _say({"current": current}, f"{current or 'The base model'} is current.", json)


@app.command("gc")
def collect(
    repo: RepoOption = HERE,
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, help="Keep this many that were promoted last; 5 unless told.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Remove versions that nothing needs, candidates that were never promoted among them, and the data of old runs.

    What is current, what a rollback goes back to and what the owner or [engine] adapters serve always stays.
    """
    from inhouse_training import KEPT_VERSIONS, forget_runs, hold_runs

    registry = _registry(repo)
    _, settings, state_dir = locate(repo)
    held = held_versions(settings, state_dir)
    keep = keep or KEPT_VERSIONS
    if dry_run or not state_dir.is_dir():
        versions = registry.unused(keep, held)
        run_bytes = forget_runs(state_dir, unfinished=True, dry_run=True)
    else:
        with hold_runs(state_dir):
            versions = registry.collect(keep, held)
            run_bytes = forget_runs(state_dir, unfinished=True)
    freed = run_bytes + sum(entry.size for entry in versions)
    if json:
        removed = [asdict(entry) for entry in versions]
        print_json({"dry_run": dry_run, "removed": removed, "run_bytes": run_bytes, "freed_bytes": freed})
        return
    for entry in versions:
        typer.echo(f"{entry.version}  {entry.size} bytes")
    typer.echo(f"data of old runs  {run_bytes} bytes")
    typer.echo(f"{'Would free' if dry_run else 'Freed'} {freed} bytes.")


@app.command("export")
def export(
    version: VersionArgument,
    to: Annotated[Path, typer.Option("--to", help="A new or an empty folder.", show_default=False)],
    kind: Annotated[Literal["peft", "merged", "gguf"], typer.Option("--format", help="What is written.")] = "peft",
    repo: RepoOption = HERE,
    json: JsonOption = False,
) -> None:
    """Write a version as other programs load it, load that again and compare.

    peft: for transformers and vLLM. merged: base model and adapter in one. gguf: an adapter for llama.cpp.
    """
    from inhouse_training import export_adapter, resolve_base_model

    registry = _registry(repo)
    settings = locate(repo)[1]
    with progress_bar() as progress:
        base = resolve_base_model(settings.base_model, progress)
        made = export_adapter(registry, version, base, to.absolute(), kind, progress)
    if json:
        print_json(made.to_json())
        return
    typer.echo(f"Wrote {made.path}.")
    typer.echo(
        f"Loaded again it scores {made.loss:.4f} nats per token, and {version} {made.registered_loss:.4f}: "
        f"{made.difference:.1e} apart, at most {made.bound} is allowed."
    )
    typer.echo(f"vLLM: loads ({made.vllm})" if made.vllm_loads else f"vLLM: does not load, since {made.vllm}")
    if made.trained_in_4bit:
        typer.echo(
            f"{version} was trained beside weights in 4 bit. Beside full ones, which the export is for, it "
            'may be worse: `inhouse eval model` with weights = "full" under [engine] says how it does there.'
        )


@app.command("golden")
def golden(version: VersionArgument, repo: RepoOption = HERE, json: JsonOption = False) -> None:
    """Note what a version computes for fixed texts, by which vLLM servers that load it are checked.

    'inhouse retrain' does so by itself where [engine] kind is "vllm".
    """
    from inhouse_server.cli.golden import note_golden

    with progress_bar() as progress:
        made = note_golden(_registry(repo), version, locate(repo)[1].base_model, progress)
    if json:
        print_json({"version": version, "tokens": sum(len(ids) for ids in made.ids), "effect": made.effect})
        return
    typer.echo(f"{version} moves {made.base_model} by {made.effect:.3f} nats per token on the fixed texts.")


def _outline(values: dict[str, Any], indent: str = "") -> Iterator[str]:
    """Keys and values, a line each; what holds more values, indented below its key."""
    for key, value in values.items():
        if isinstance(value, list) and any(isinstance(each, dict) for each in value):
            value = {str(number): each for number, each in enumerate(value, start=1)}
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:"
            yield from _outline(value, f"{indent}  ")
        elif isinstance(value, list):
            yield f"{indent}{key}: {', '.join(map(str, value))}"
        else:
            yield f"{indent}{key}: {value}"


def _score(row: dict[str, Any]) -> str:
    """What the evaluation found, in a few words."""
    gain = row["metrics"].get("gain", {}).get("over_base")
    if not row["evaluated"] or not gain:
        return "not evaluated"
    return f"{gain['mean']:+.3f} nats per token over the base ({gain['low']:+.3f} to {gain['high']:+.3f})"


def held_versions(settings: Settings, state_dir: Path) -> set[str]:
    """Versions that are served, whatever became of them: by configuration, or loaded by the owner."""
    return {*settings.engine.adapters, *_loaded_by_owner(state_dir)}


def _loaded_by_owner(state_dir: Path) -> list[str]:
    from inhouse_server.cli.backend import OwnerBackend
    from inhouse_server.owner import find_owner

    owner = find_owner(state_dir)
    if owner is None:
        return []
    loaded: list[str] | None = OwnerBackend(owner).status().get("adapters_loaded")
    if loaded is None:
        raise InhouseError(
            "The owner process is of an older version, and does not say what it serves.", "Stop it, then try again."
        )
    return loaded


def _say(value: dict[str, str | None], sentence: str, json: bool) -> None:
    if json:
        print_json(value)
    else:
        typer.echo(sentence)
