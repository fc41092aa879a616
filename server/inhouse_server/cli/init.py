"""`inhouse init`: write a commented `inhouse.toml` with what was detected."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from inhouse_retrieval.errors import InhouseError
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json, start_logging

if TYPE_CHECKING:
    from inhouse_retrieval import Repository, Snapshot
    from inhouse_server.settings_template import Detected


_SITES = {
    "github.com": "github.com",
    "ssh.github.com": "github.com",
    "gitlab.com": "gitlab.com",
    "altssh.gitlab.com": "gitlab.com",
}
"""Host of a remote -> the site that it is of."""


def init(
    repo: RepoOption = HERE,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a commented inhouse.toml with what was detected."""
    from inhouse_retrieval import Repository
    from inhouse_server.settings import Settings
    from inhouse_server.settings_file import FILE_NAME
    from inhouse_server.settings_template import settings_template

    repository = Repository.open(repo)
    start_logging(Settings().state_path(repository.root), "init")
    path = repository.root / FILE_NAME
    if path.exists() and not force:
        raise InhouseError(f"{path} exists already.", "Use --force to write a new one over it.")
    snapshot = repository.work_tree()
    detected = {**_of_repository(repository, snapshot), **_of_hardware(_gpu_gib())}
    try:
        path.write_text(settings_template(detected), encoding="utf-8")
    except OSError as error:
        raise InhouseError(f"{path} cannot be written: {error.strerror}.", "Change its rights.") from error
    if json:
        told = {key: each.remark for key, each in detected.items()}
        files = {"files": len(snapshot.files), "skipped": len(snapshot.skipped)}
        print_json({"file": str(path), **files, "detected": told})
        return
    typer.echo(f"Wrote {path}.")
    for key, each in detected.items():
        typer.echo(f"  {key}: {each.remark}")
    typer.echo("Next: inhouse index")


def _of_repository(repository: Repository, snapshot: Snapshot) -> dict[str, Detected]:
    from inhouse_server.settings import Settings
    from inhouse_server.settings_template import Detected

    skipped = f", {len(snapshot.skipped)} skipped" if snapshot.skipped else ""
    found = {"exclude": Detected(f"{len(snapshot.files)} file(s) to learn from{skipped}.")}
    pages = [folder for folder in Settings().wiki if (repository.root / folder).is_dir()]
    if pages:
        found["wiki"] = Detected(f"{' and '.join(f'{folder}/' for folder in pages)} here.")
    return {**found, **_of_forge(repository)}


def _of_forge(repository: Repository) -> Mapping[str, Detected]:
    """Where the pull requests of this clone can be read, as far as its remote says."""
    from inhouse_retrieval import read_origin
    from inhouse_server.settings_template import Detected

    origin = read_origin(repository)
    if origin is None:
        return {}
    host, project = origin
    host = _SITES.get(host, host)
    if any(host.startswith(f"{site}-") for site in _SITES.values()):  # an alias of SSH, as for a second account
        host = next(site for site in _SITES.values() if host.startswith(f"{site}-"))
    kind = next((each for each in ("github", "gitlab") if each in host), None)
    if kind is None:
        return {}
    found = {
        "forge.kind": Detected(f"origin is {host}; with kind and project, `inhouse sync` reads its reviews.", kind),
        "forge.project": Detected("the path of origin.", project),
    }
    if host not in _SITES.values() and "." in host:
        address = f"https://{host}/api/v3" if kind == "github" else f"https://{host}/api/v4"
        found["forge.url"] = Detected("a server of your own.", address)
    return found


def _of_hardware(gpu_gib: float | None) -> dict[str, Detected]:
    from inhouse_server.settings_template import Detected
    from inhouse_training import fitting_recipe, load_recipe

    name = fitting_recipe(gpu_gib)
    recipe = load_recipe(name)
    machine = "no NVIDIA GPU" if gpu_gib is None else f"an NVIDIA GPU of {gpu_gib:.0f} GiB"
    return {
        "base_model": Detected(f"{machine}: {recipe.base_model} fits.", recipe.base_model),
        "recipe": Detected(f"{machine}: {name} fits.", name),
    }


def _gpu_gib() -> float | None:
    """Memory of the first NVIDIA GPU, in GiB; ``None`` without one. The driver's tool knows sooner than torch."""
    if not shutil.which("nvidia-smi"):
        return None
    asked = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "--id=0"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=20)
        return float(said.stdout.split()[0]) / 1024
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None
