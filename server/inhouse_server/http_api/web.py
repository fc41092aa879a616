"""`/` and `/web/…`: the chat page. `/inhouse/adapters` and `/inhouse/feedback`: what only the page asks so far."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from inhouse_server.answers import Provenance
from inhouse_server.feedback import Feedback, keep_feedback
from inhouse_server.http_api.browser import HEADERS
from inhouse_server.http_api.reading import read_body
from inhouse_server.http_api.repositories import workspace_of
from inhouse_server.json_contracts import adapter_json

FOLDER = Path(__file__).parent.parent / "web"
TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {file.name: file for file in FOLDER.iterdir() if file.suffix in TYPES}
"""All that is served, by name: what a request names is looked up here and never becomes a path."""

_Short = Annotated[str, StringConstraints(max_length=200)]


class _Provenance(BaseModel):
    model_config = ConfigDict(extra="forbid")

    base_model: _Short
    adapter: _Short | None
    index_commit: _Short | None
    pending: int = Field(ge=0)


class FeedbackRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    question: str = Field(min_length=1, max_length=8000)
    provenance: _Provenance
    verdict: Literal["useful", "not useful"]
    note: str = Field("", max_length=2000)


async def page(request: Request) -> Response:
    """The chat page."""
    return page_file("index.html")


async def static(request: Request) -> Response:
    """A file of the page."""
    return page_file(request.path_params["name"])


def page_file(name: str) -> Response:
    """One of :data:`FILES`, with the headers of the pages.

    Raises:
        HTTPException: there is no such file.
    """
    if name not in FILES:
        raise HTTPException(404, "There is no such file")
    path = FILES[name]
    return FileResponse(path, media_type=TYPES[path.suffix], headers=HEADERS)


async def adapters(request: Request) -> Response:
    """``{"adapters": […]}``, oldest first, each as the adapter contract says."""
    registry = workspace_of(request).registry

    def rows() -> list[dict[str, object]]:
        current = registry.current()
        return [adapter_json(version, current) for version in registry.list()]

    return JSONResponse({"adapters": await run_in_threadpool(rows)})


async def feedback(request: Request) -> Response:
    """``{"question", "provenance", "verdict", "note"}`` -> ``{"kept": true}``; a line in the state directory."""
    body = await read_body(request, FeedbackRequest)
    workspace = workspace_of(request)
    said = Feedback(
        question=body.question,
        verdict=body.verdict,
        note=body.note,
        provenance=Provenance(**body.provenance.model_dump()),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    await run_in_threadpool(keep_feedback, workspace.state_dir, said)
    return JSONResponse({"kept": True})
