"""`/inhouse/memory`, `/inhouse/step-aside` and `/inhouse/come-back`: asked by a retraining that needs the memory of the
owner's model.

One process has one model's memory to lend, however many repositories it holds, so a lease is about all of them.
"""

from __future__ import annotations

import os
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from inhouse_server.http_api.errors import Refused
from inhouse_server.http_api.reading import read_body
from inhouse_server.http_api.repositories import Repositories
from inhouse_server.lending import AlreadyLent, Lending
from inhouse_server.workspace import Workspace

LONGEST_LEASE_S = 300.0


class StepAsideRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    lease: str = Field(min_length=8, max_length=64)
    pid: int = Field(ge=1)
    seconds: float = Field(gt=0, le=LONGEST_LEASE_S)


class ComeBackRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    lease: str = Field(min_length=8, max_length=64)


async def memory(request: Request) -> Response:
    """``pid``, ``lends`` (whether it has memory of its own that it could lend) and ``device``, ``held``, ``model`` as
    :class:`~inhouse_training.HeldMemory` has them. Waits for a model that is loading, and for an answer under way."""
    workspace = _with_model(request) or _held(request)[0]
    held = await run_in_threadpool(workspace.held_memory)
    return JSONResponse({"pid": os.getpid(), "lends": workspace.lending is not None, **asdict(held)})


async def step_aside(request: Request) -> Response:
    """``{"lease", "pid", "seconds"}``: let the answers under way end, give the model's memory back, and answer no
    question until ``seconds`` have gone by; asked again with the same lease, until so many seconds from then.

    The answer is what :meth:`~inhouse_server.lending.Lending.status` tells; the memory is there once ``aside`` is true.
    """
    body = await read_body(request, StepAsideRequest)
    try:
        return JSONResponse(await run_in_threadpool(lambda: _lending(request).lend(body.lease, body.pid, body.seconds)))
    except AlreadyLent as error:
        raise Refused(409, str(error), "already_lent") from None


async def come_back(request: Request) -> Response:
    """``{"lease"}``: load the model again. A lease that has ended already is none, and no mistake."""
    body = await read_body(request, ComeBackRequest)
    lending = _lending(request)
    await run_in_threadpool(lambda: lending.take_back(body.lease))
    return JSONResponse({"stepped_aside": lending.status()})


def _held(request: Request) -> tuple[Workspace, ...]:
    repositories: Repositories = request.app.state.repositories
    return repositories.held


def _with_model(request: Request) -> Workspace | None:
    return next((workspace for workspace in _held(request) if workspace.lending is not None), None)


def _lending(request: Request) -> Lending:
    """What lends the memory of this process's models.

    Raises:
        Refused: it has none.
    """
    workspace = _with_model(request)
    if workspace is None or workspace.lending is None:
        raise Refused(409, "Another server answers here, so this process has no model to give up.", "nothing_to_lend")
    return workspace.lending
