"""`inhouse init`: write a commented `inhouse.toml` with what was detected."""

from __future__ import annotations

from typing import Annotated

import typer

from inhouse_retrieval.errors import InhouseError
from inhouse_server.cli.options import HERE, JsonOption, RepoOption
from inhouse_server.cli.terminal import print_json, start_logging


def init(
    repo: RepoOption = HERE,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a commented inhouse.toml with what was detected."""
    from inhouse_retrieval import Repository
    from inhouse_server.settings import Settings, settings_template
    from inhouse_server.settings_file import FILE_NAME

    repository = Repository.open(repo)
    start_logging(Settings().state_path(repository.root), "init")
    path = repository.root / FILE_NAME
    if path.exists() and not force:
        raise InhouseError(f"{path} exists already.", "Use --force to write a new one over it.")
    snapshot = repository.work_tree()
    remarks = {
        "state_dir": f"Detected: {len(snapshot.files)} files to learn from, {len(snapshot.skipped)} skipped.",
        "base_model": _hardware_remark(),
    }
    try:
        path.write_text(settings_template(Settings(), remarks), encoding="utf-8")
    except OSError as error:
        raise InhouseError(f"{path} cannot be written: {error.strerror}.", "Change its rights.") from error
    if json:
        print_json({"file": str(path), "files": len(snapshot.files), "skipped": len(snapshot.skipped)})
    else:
        typer.echo(f"Wrote {path}. Next: inhouse index")


def _hardware_remark() -> str:
    import shutil

    if shutil.which("nvidia-smi"):
        return "Detected: an NVIDIA driver. 24 GB of GPU memory or more fit Qwen/Qwen2.5-Coder-7B-Instruct."
    return "Detected: no NVIDIA driver, so the small model that a CPU can train and serve."
