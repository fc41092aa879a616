"""What each route of the owner needs: one table, and what is not in it is opened by nothing.

A test walks the application's routes and fails on any that the table does not name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from starlette.routing import BaseRoute, Match
from starlette.types import Scope as AsgiScope

from inhouse_server.access import Scope

WEBSOCKET = "WEBSOCKET"
"""Stands where an HTTP request has its method."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", WEBSOCKET})
"""Others are no concern of any route, and a client may make up as many as it likes."""
UNKNOWN = "unknown"
"""How the audit log and the metrics name a path that is no route: the path itself may hold anything."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a route needs.

    Attributes:
        scope: a token's; ``None`` where nobody needs a token.
        cookie: whether the chat page's cookie stands for the token: never, only with the page's header, or by itself.
        whole: it is about all repositories of the owner, so a token must open them all.
        lasting: methods whose connections stay open while nothing is asked, so that nobody waits for their end.
    """

    scope: Scope | None
    cookie: Literal["no", "with header", "alone"] = "no"
    lasting: frozenset[str] = frozenset()
    whole: bool = False


ACCESS = {
    "/healthz": Access(None),
    "/metrics": Access(Scope.METRICS),
    "/": Access(Scope.ASK, cookie="alone"),
    "/web/{name}": Access(Scope.ASK, cookie="alone"),
    "/admin": Access(Scope.ADMIN, cookie="alone"),
    "/v1/models": Access(Scope.ASK),
    "/v1/chat/completions": Access(Scope.ASK),
    "/v1/completions": Access(Scope.ASK),
    "/v1/embeddings": Access(Scope.ASK),
    "/openapi.json": Access(Scope.ASK),
    "/inhouse/repositories": Access(Scope.ASK, cookie="with header"),
    "/inhouse/search": Access(Scope.ASK),
    "/inhouse/ask": Access(Scope.ASK, cookie="with header"),
    "/inhouse/passage": Access(Scope.ASK),
    "/inhouse/uses": Access(Scope.ASK),
    "/inhouse/status": Access(Scope.ASK, cookie="with header"),
    "/inhouse/adapters": Access(Scope.ASK, cookie="with header"),
    "/inhouse/feedback": Access(Scope.ASK, cookie="with header"),
    "/inhouse/review": Access(Scope.REVIEW),
    "/inhouse/admin": Access(Scope.ADMIN, cookie="with header"),
    "/inhouse/usage": Access(Scope.ADMIN, cookie="with header"),
    "/inhouse/adapters/{version}/{name}": Access(Scope.ADMIN, cookie="alone"),
    "/inhouse/promote": Access(Scope.ADMIN),
    "/inhouse/rollback": Access(Scope.ADMIN),
    "/inhouse/index": Access(Scope.ADMIN),
    "/inhouse/memory": Access(Scope.ADMIN, whole=True),
    "/inhouse/step-aside": Access(Scope.ADMIN, whole=True),
    "/inhouse/come-back": Access(Scope.ADMIN, whole=True),
    "/inhouse/shutdown": Access(Scope.ADMIN, whole=True),
    "/mcp": Access(Scope.ASK, lasting=frozenset({"GET"})),
    "/lsp": Access(Scope.ASK, lasting=frozenset({WEBSOCKET})),
}
"""By the route's path as the application spells it; it holds for all of the route's methods."""


@dataclass(frozen=True, slots=True)
class Matched:
    """The route that a request leads to.

    Attributes:
        path: as the table spells it, or :data:`UNKNOWN`.
        access: ``None`` where no route is, or none that the table names.
        exact: the route takes this method, too.
    """

    path: str
    access: Access | None
    exact: bool

    @property
    def named(self) -> bool:
        """Whether there is such a route at all."""
        return self.path != UNKNOWN


def matched(routes: Sequence[BaseRoute], scope: AsgiScope) -> Matched:
    """What ``scope`` leads to, as the router itself will decide."""
    partial = Matched(UNKNOWN, None, False)
    for route in routes:
        match, _ = route.matches(scope)
        path = str(getattr(route, "path", type(route).__name__))
        if match is Match.FULL:
            return Matched(path, ACCESS.get(path), True)
        if match is Match.PARTIAL and partial.path == UNKNOWN:
            partial = Matched(path, ACCESS.get(path), False)
    return partial
