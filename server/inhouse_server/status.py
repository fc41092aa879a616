"""The status of a repository, as every surface shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inhouse_retrieval import IndexStatus
from inhouse_server.settings import Settings
from inhouse_training import Registry, due_at, last_run, parse_interval, runs_holder


def status_json(
    root: Path, settings: Settings, state_dir: Path, index: IndexStatus, loaded: list[str] | None
) -> dict[str, Any]:
    """What every surface shows of a repository.

    Args:
        loaded: adapter versions beside the loaded model; ``None`` while no model is loaded.
    """
    return {
        "root": str(root),
        "base_model": settings.base_model,
        "adapter": Registry(state_dir / "adapters").current(),
        "index_commit": index.commit,
        "files": index.files,
        "chunks": index.chunks,
        "pending": index.pending,
        "unembedded": index.unembedded,
        "model_loaded": loaded is not None,
        "adapters_loaded": loaded or [],
        **_retraining(settings, state_dir),
    }


def _retraining(settings: Settings, state_dir: Path) -> dict[str, Any]:
    """How the last retraining ended, when the next is due, which only ``[retrain] every`` tells, and the process that
    retrains or evaluates now."""
    last, every = last_run(state_dir), settings.retrain.every
    due = due_at(last, parse_interval(every)).isoformat() if last and every else None
    ended = last and {
        "finished": last.finished.isoformat(),
        "decision": last.result["decision"],
        "candidate": last.result["candidate"],
    }
    return {"last_retrain": ended, "next_retrain": due, "retraining": runs_holder(state_dir)}
