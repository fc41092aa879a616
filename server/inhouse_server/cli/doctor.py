"""`inhouse doctor`: look at the machine and say what fits and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from inhouse_retrieval import Repository
from inhouse_retrieval.errors import InhouseError, NoCommits
from inhouse_server.cli.backend import locate
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json, start_logging
from inhouse_server.settings import Settings
from inhouse_training import can_be_base_model, fitting_recipe, load_recipe


def doctor(repo: RepoOption = HERE, json: JsonOption = False) -> int:
    """Look at the machine: what fits, what is missing."""
    checks = list(_checks(repo))
    if json:
        print_json({"checks": checks, "ok": all(check["ok"] for check in checks)})
    else:
        for check in checks:
            typer.echo(f"{'ok  ' if check['ok'] else 'FAIL'}  {check['name']}: {check['detail']}")
    return 0 if all(check["ok"] for check in checks) else 1


def _checks(repo: Path) -> Any:
    def check(name: str, ok: bool, detail: str) -> dict[str, Any]:
        return {"name": name, "ok": ok, "detail": detail}

    yield check("python", True, platform.python_version())
    git = shutil.which("git")
    version = subprocess.run([git, "--version"], capture_output=True, text=True).stdout if git else ""
    yield check("git", bool(git), version.strip() or "not found; install git")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield check("memory", memory >= 4, f"{memory:.1f} GiB (4 GiB are enough for the small model)")
    try:
        sqlite3.connect(":memory:").execute("CREATE VIRTUAL TABLE t USING fts5(x)")
        yield check("sqlite", True, f"{sqlite3.sqlite_version} with full-text search")
    except sqlite3.OperationalError:
        yield check("sqlite", False, "has no FTS5; use a Python whose sqlite has it")
    import torch

    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        size = gpu.total_memory / 2**30
        yield check("gpu", True, f"{gpu.name}, {size:.0f} GiB; the recipe {fitting_recipe(size)} fits")
    else:
        yield check("gpu", True, f"none; the recipe {fitting_recipe(None)} with SmolLM2-135M-Instruct fits")
    yield check("torch", True, f"{torch.__version__}, {torch.get_num_threads()} threads")
    try:
        root, settings, state_dir = locate(repo)
    except InhouseError as error:
        yield check("repository", False, str(error))
        return
    start_logging(state_dir, "doctor")
    yield check("repository", True, str(root))
    try:
        yield check("history", True, speed_of_history(Repository.open(root)))
    except NoCommits as error:
        yield check("history", False, str(error))
    try:
        load_recipe(settings.recipe)
    except InhouseError as error:
        yield check("recipe", False, str(error))
    else:
        yield check("recipe", True, settings.recipe)
    nearest = next(folder for folder in (state_dir, *state_dir.parents) if folder.exists())
    writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    yield check("data folder", writable, data_folder(state_dir) if writable else f"{nearest} cannot be written")
    free = shutil.disk_usage(state_dir if state_dir.is_dir() else root).free / 2**30
    yield check("disk", free > 2, f"{free:.1f} GiB free where the data lies (2 GiB are enough to begin)")
    from inhouse_server.owner import find_owner

    owner = find_owner(state_dir)
    yield check("owner", True, f"runs at {owner.url}" if owner else "does not run; it starts when needed")
    elsewhere = settings.engine.kind != "transformers"
    known = can_be_base_model(settings.base_model) or elsewhere
    unknown = f"{settings.base_model!r} is neither known, nor a folder, nor owner/repository of the model hub"
    yield check("base model", known, place_of_base_model(settings) if known else unknown)
    from inhouse_retrieval import load_encoder

    try:
        encoder = load_encoder(settings.encoder.choice(root))
    except InhouseError as error:
        yield check("encoder", False, str(error))
    else:
        yield check("encoder", True, f"{encoder.name}; {encoder.dimension} dimensions, on {settings.encoder.device}")
    yield check("inline completion", True, settings.no_inline_completion() or "offered to editors")


_MANY_COMMITS = 2_000


def speed_of_history(repository: Repository) -> str:
    """Whether git finds who last changed a line as fast as it can.

    Raises:
        NoCommits: there is no history yet.
    """
    repository.commit_id("HEAD")
    if repository.keeps_changed_paths():
        return "git keeps a filter of the paths that commits changed, so last changes are found fast"
    commits = int(repository.git("rev-list", "--count", "HEAD"))
    if commits < _MANY_COMMITS:
        return f"{commits:,} commit(s); last changes are found fast among so few"
    remedy = "git commit-graph write --reachable --changed-paths"
    return f"{commits:,} commits; `{remedy}` lets hovers find last changes in half the time"


def data_folder(state_dir: Path) -> str:
    """Where what inhouse keeps of the repository lies, and its size."""
    return f"{state_dir}, {_size(state_dir)}" if state_dir.is_dir() else f"{state_dir}, not made yet"


def place_of_base_model(settings: Settings) -> str:
    """The base model, where it lies, and its size."""
    from inhouse_training import base_model_folder

    name, folder = settings.base_model, base_model_folder(settings.base_model)
    if folder is None and settings.engine.kind != "transformers":
        return f"{name}, answered by another server ([engine] kind = {settings.engine.kind!r})"
    if folder is None:
        return f"{name}, not on this machine yet; it is fetched when first needed"
    return f"{name}, in {folder}, {_size(folder)}"


def _size(folder: Path) -> str:
    """How much the files in ``folder`` hold; what disappears meanwhile is left out."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return f"{total / 1e6:,.0f} MB" if total >= 1e6 else f"{total / 1e3:,.0f} kB"
