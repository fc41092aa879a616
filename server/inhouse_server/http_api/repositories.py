"""Which repository a request is about: named by a header, or the only one that its caller may use.

A caller's rights come first: a repository that it may not use is answered as one that does not exist, before anything
of any repository is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from inhouse_retrieval.errors import InhouseError
from inhouse_server.access import Caller, Scope
from inhouse_server.elsewhere import REPOSITORY_HEADER
from inhouse_server.http_api.errors import Refused
from inhouse_server.workspace import Workspace


class Repositories:
    """The repositories of one owner; the first is the one that it was started in. Belongs to the event loop.

    Args:
        failed: why each of those is not held that should be.
    """

    def __init__(self, first: Workspace, failed: Mapping[str, InhouseError]) -> None:
        self._by_name: dict[str, Workspace | InhouseError] = {first.name: first, **failed}

    @property
    def held(self) -> tuple[Workspace, ...]:
        """Those that can answer."""
        return tuple(each for each in self._by_name.values() if isinstance(each, Workspace))

    def add(self, workspace: Workspace) -> None:
        """It is held from now on."""
        self._by_name[workspace.name] = workspace

    def of(self, caller: Caller) -> dict[str, Workspace | InhouseError]:
        """Those that ``caller`` may use, by name; for one that is not held, the reason."""
        first, *_ = self._by_name
        opens = [first] if caller.repositories is None else caller.repositories
        return {name: each for name, each in self._by_name.items() if caller.opens_all or name in opens}

    def opens_all(self, caller: Caller) -> bool:
        """Whether ``caller`` may use every one of them."""
        return len(self.of(caller)) == len(self._by_name)

    def default(self, caller: Caller) -> str | None:
        """What a request that names none is about: the only one, or for the owner's own token that of its folder."""
        usable = list(self.of(caller))
        return usable[0] if usable and (len(usable) == 1 or caller.is_owner) else None

    def model_servers(self) -> dict[str, Any]:
        """What :meth:`Workspace.model_servers` tells, of all of them; a server of several stands once."""
        told = [each for workspace in self.held if (each := workspace.model_servers())]
        if len(told) < 2:
            return told[0] if told else {}
        servers: dict[str, dict[str, Any]] = {}
        for server in (server for each in told for server in each["servers"]):
            seen = servers.setdefault(server["url"], {"url": server["url"], "up": True, "answering": 0, "failed": []})
            seen["up"] = seen["up"] and server["up"]
            seen["answering"] += server["answering"]
            seen["failed"] += server["failed"]
        waiting = [each["waiting"] for each in told if each["waiting"] is not None]
        return {"servers": list(servers.values()), "waiting": waiting[0] if waiting else None}


def usable_by(connection: HTTPConnection) -> dict[str, Workspace | InhouseError]:
    """The repositories that the caller may use, by name; for one that is not held, the reason."""
    repositories: Repositories = connection.app.state.repositories
    return repositories.of(connection.scope["caller"])


def named_by(connection: HTTPConnection) -> str | None:
    """The repository that the request names, which the guard has found to be one that its caller may use."""
    return connection.headers.get(REPOSITORY_HEADER)


def workspace_of(connection: HTTPConnection) -> Workspace:
    """The repository that the request is about.

    Raises:
        Refused: it names none, and its caller may use several, or none at all; or that one is not held.
    """
    usable, name = usable_by(connection), connection.scope["repository"]
    if name is not None:
        workspace = usable[name]
        if isinstance(workspace, InhouseError):
            # What is wrong with it is for whoever runs the server, not for every asker.
            raise Refused(503, f"The repository {name!r} is not served now; `inhouse status` says why.", "not_held")
        return workspace
    if not usable:
        raise Refused(403, "The token is for no repository that is served here.", "insufficient_scope")
    names = ", ".join(usable)
    raise Refused(
        400, f"Name one of the repositories {names} in {REPOSITORY_HEADER}.", "invalid_request_error", REPOSITORY_HEADER
    )


def asked_of(
    connection: HTTPConnection, model: str, models: Callable[[Workspace], Collection[str]]
) -> tuple[Workspace, str]:
    """The repository that ``model`` is asked of, and its name there: of OpenAI's routes, whose clients name a model.

    ``repository/model`` asks the one that it names, unless a header names another. A name of the request's own
    repository goes first, since names of models hold slashes, too.

    Args:
        models: the names that a repository has.

    Raises:
        Refused: the request says neither way which repository it is about.
    """
    default, (first, _, rest) = connection.scope["repository"], model.partition("/")
    usable, named = usable_by(connection), named_by(connection)
    is_own = default is not None and model in models(workspace_of(connection))
    if rest and first in usable and named in (None, first) and not is_own:
        connection.scope["repository"] = first  # for the audit log and the metrics, too
        return workspace_of(connection), rest
    return workspace_of(connection), model


async def repositories(request: Request) -> Response:
    """``{"repositories", "default", "failed"}``: names of what the caller may use, what a request that names none is
    about, and which of them are not served now, with the reason for who may administrate.

    Where the owner has one repository without a name, there are none.
    """
    caller: Caller = request.scope["caller"]
    usable = {name: each for name, each in usable_by(request).items() if name}
    failed = {name: str(error) for name, error in usable.items() if isinstance(error, InhouseError)}
    if not caller.may(Scope.ADMIN):
        failed = dict.fromkeys(failed, "")
    default = request.app.state.repositories.default(caller) or None
    return JSONResponse({"repositories": [*usable], "default": default, "failed": failed})
