"""`/admin`: the page of whoever runs the server, and the routes that it asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from inhouse_server.access import Audit, Caller
from inhouse_server.feedback import count_verdicts
from inhouse_server.http_api.browser import HEADERS
from inhouse_server.http_api.errors import Refused
from inhouse_server.http_api.reading import read_body
from inhouse_server.http_api.repositories import usable_by, workspace_of
from inhouse_server.http_api.web import page_file
from inhouse_server.json_contracts import adapter_json
from inhouse_server.promotion import ByHand, promote_by_hand
from inhouse_server.usage import add_up
from inhouse_server.workspace import Workspace
from inhouse_training import FinishedRun, Judged, Overtaken, Registry, finished_runs

USAGE_DAYS = 30
MOST_USAGE_DAYS = 366
_SHOWN = 50
"""Promotions and retrainings that are told, the newest."""
_REPORT = "report.html"
REPORT_FILES = {_REPORT: "text/html", "loss.svg": "image/svg+xml", "decay.svg": "image/svg+xml"}
"""What is served of a run, by name: what a request names is looked up here and never becomes a path."""
_REPORT_HEADERS = {
    **HEADERS,
    # A report shows what a repository and a model wrote. It runs nothing and opens nothing.
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'none'",
}

_Version = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class PromoteRequest(BaseModel):
    """``seen``: the version that was current when whoever asks looked; ``None`` for the base model alone."""

    model_config = ConfigDict(extra="forbid")

    version: _Version
    seen: _Version | None


class RollbackRequest(BaseModel):
    """``seen``: as in :class:`PromoteRequest`."""

    model_config = ConfigDict(extra="forbid")

    seen: _Version | None


async def page(request: Request) -> Response:
    """The admin page."""
    return page_file("admin.html")


async def admin(request: Request) -> Response:
    """``{"status", "adapters", "base", "history", "retrainings", "damaged"}``: adapters oldest first, the other lists
    newest first."""
    return JSONResponse(await run_in_threadpool(_told, workspace_of(request)))


def _told(workspace: Workspace) -> dict[str, Any]:
    registry, state_dir = workspace.registry, workspace.state_dir
    runs, verdicts = finished_runs(state_dir), count_verdicts(state_dir)
    current = registry.current()
    adapters = [
        {
            **adapter_json(each, current),
            "recipe": each.manifest.recipe.get("name"),
            "parent": each.manifest.parent,
            "verdicts": verdicts.get(each.version, {}),
            "files": [name for name in REPORT_FILES if _file_of(each.version, name, runs) is not None],
        }
        for each in registry.list()
    ]
    history = [{"version": each.version, "at": each.at, "note": each.note} for each in registry.history()]
    told = ("candidate", "decision", "reasons")
    return {
        "status": workspace.status(administrates=True),
        "adapters": adapters,
        "base": {"base_model": workspace.settings.base_model, "verdicts": verdicts.get(None, {})},
        "history": history[: -_SHOWN - 1 : -1],
        "retrainings": [
            {
                "started": run.started.isoformat(),
                "finished": run.finished.isoformat(),
                **{name: run.result[name] for name in told},
            }
            for run in runs[:_SHOWN]
        ],
        "damaged": [str(error) for error in registry.damaged()],
    }


def _file_of(version: str, name: str, runs: list[FinishedRun]) -> Path | None:
    """The file ``name`` of the run that made ``version``, newest run first."""
    found = (run.directory / name for run in runs if run.result["candidate"] == version)
    return next((path for path in found if path.is_file()), None)


async def report_file(request: Request) -> Response:
    """A report of a retraining, or one of its plots. Links and pictures send no header, so that ``?repository=`` names
    one of several repositories."""
    version, name = request.path_params["version"], request.path_params["name"]
    named = request.query_params.get("repository")
    if named is not None and named in usable_by(request):
        request.scope["repository"] = named
    state_dir = workspace_of(request).state_dir
    path = None
    if name in REPORT_FILES:
        path = await run_in_threadpool(lambda: _file_of(version, name, finished_runs(state_dir)))
    if path is None:
        raise HTTPException(404, "There is no such report")
    return FileResponse(path, media_type=REPORT_FILES[name], headers=_REPORT_HEADERS)


async def promote(request: Request) -> Response:
    """``{"version", "seen"}`` -> ``{"current", "warning"}``; :data:`~inhouse_training.BASE` is the base model alone."""
    body = await read_body(request, PromoteRequest)
    workspace = workspace_of(request)
    by = _by(request)

    def done() -> ByHand:
        return promote_by_hand(workspace.registry, body.version, workspace.settings.base_model, by, Judged(body.seen))

    return await _answer(workspace.registry, done)


async def rollback(request: Request) -> Response:
    """``{"seen"}`` -> ``{"current", "warning"}``: back to what was current before."""
    body = await read_body(request, RollbackRequest)
    registry, by = workspace_of(request).registry, _by(request)
    return await _answer(registry, lambda: ByHand(registry.rollback(by, judged_against=Judged(body.seen))))


async def _answer(registry: Registry, done: Callable[[], ByHand]) -> Response:
    try:
        made = await run_in_threadpool(done)
    except Overtaken:
        current = registry.current() or "The base model"
        raise Refused(409, f"{current} became current meanwhile. Look again, then decide.", "overtaken") from None
    return JSONResponse({"current": made.current, "warning": made.warning})


def _by(request: Request) -> str:
    """Who promotes, for the registry's history."""
    caller: Caller = request.scope["caller"]
    return "by hand, with the owner's token" if caller.is_owner else f"by hand, with the token {caller.name!r}"


async def usage(request: Request) -> Response:
    """``?days=N`` -> what was asked of this owner in the last N days, of what the caller may see.

    Raises:
        Refused: ``days`` is no number from 1 to :data:`MOST_USAGE_DAYS`.
    """
    asked = request.query_params.get("days", str(USAGE_DAYS))
    if not (asked.isascii() and asked.isdigit() and len(asked) < 4 and 1 <= int(asked) <= MOST_USAGE_DAYS):
        raise Refused(400, f"days: a number from 1 to {MOST_USAGE_DAYS}.", "invalid_request_error", "days")
    caller: Caller = request.scope["caller"]
    names = set(usable_by(request))
    # Where repositories have names, a line without one is about none of them.
    sees_all = request.app.state.repositories.opens_all(caller)
    audit: Audit = request.app.state.audit
    told = await run_in_threadpool(
        add_up, audit.lines(), int(asked), lambda name: sees_all if name is None else name in names
    )
    return JSONResponse(told)
