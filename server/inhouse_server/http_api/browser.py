"""How a browser signs in: once with the token in an address, and from then on with a cookie.

Cookies are weaker than the token, so four things hold them. A browser sends the cookies of a host to every port of that
host: the cookie is made from the owner's token, is never a token itself, opens only what the pages read and ask,
changes no adapter, and ends after :data:`LIFETIME_S`. Pages of other sites cannot have it sent, since it is
SameSite=Strict. Pages of another port count as the same site and can, but cannot add :data:`PAGE_HEADER` to the
request: a browser first asks the server whether another origin may, and this one never agrees. A member of the team
signs in with a token of their own: their cookie has that token's scopes, and ends with it.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping

from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, RedirectResponse, Response

from inhouse_server.access import Caller, Callers
from inhouse_server.http_api.routes import Matched

PAGES = ("/", "/admin")
"""The chat, and what whoever runs the server sees."""
PAGE_HEADER = "x-inhouse"
LIFETIME_S = 7 * 24 * 3600
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Of the page, its files, and what stands in the page's place."""
_TOLD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>inhouse</title>
<p>{}</p></html>
"""
_LOCKED = _TOLD.format(
    "To open this page, use the address that <code>inhouse serve</code> prints in a terminal, or add "
    "<code>?token=</code> and the content of <code>.inhouse/token</code>, or your own token, to this one. A link on "
    "another page cannot sign you in."
)
_NOT_YOURS = _TOLD.format(
    "Your token does not open this page: it lacks the scope <code>admin</code>. <a href='/'>The chat</a> is yours."
)


class BrowserSession:
    """The cookies of the owner that listens on ``port``; their name says which, since ports share a host's cookies.

    Args:
        owners: the owner's own token of each repository, beginning with the one that it was started in. Cookies are
            made from that, or from the other that somebody showed.
        secure: browsers reach the owner over TLS.
    """

    def __init__(self, owners: Mapping[str, str], port: int, callers: Callers, secure: bool = False) -> None:
        self._owners = owners
        self._port = port
        self._callers = callers
        self._secure = secure
        # The prefix makes a browser refuse one that came without TLS or from another host of the domain.
        self._name = f"__Host-inhouse-{port}" if secure else f"inhouse-{port}"

    def signing_in(self, connection: HTTPConnection) -> Caller | None:
        """Who opens a page's address with a token in it.

        Not by a link of another site, which could sign somebody in under a name that is not theirs.
        """
        if not _reads_page(connection) or "token" not in connection.query_params:
            return None
        if connection.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return None
        return self._callers.by_token(connection.query_params["token"])

    def welcome(self, caller: Caller, page: str) -> Response:
        """The cookie, and the way to the page without the token."""
        answer = RedirectResponse(page, 303, {**HEADERS, "Cache-Control": "no-store"})
        expires = str(int(time.time()) + LIFETIME_S)
        value = f"{caller.id}.{expires}.{self._proof(caller.id, expires)}"
        answer.set_cookie(self._name, value, httponly=True, samesite="strict", secure=self._secure)
        return answer

    def caller(self, connection: HTTPConnection, route: Matched) -> Caller | None:
        """Whose cookie the request has, if it is one that the page makes."""
        if connection.scope["type"] != "http" or route.access is None or not route.exact:
            return None
        by_header = route.access.cookie == "with header" and connection.headers.get(PAGE_HEADER) == "1"
        if not (by_header or route.access.cookie == "alone"):
            return None
        token_id, _, rest = connection.cookies.get(self._name, "").partition(".")
        expires, _, given = rest.partition(".")
        if not hmac.compare_digest(given.encode(), self._proof(token_id, expires).encode()):
            return None
        return self._callers.by_id(token_id) if time.time() < int(expires) else None

    def _proof(self, token_id: str, expires: str) -> str:
        first, *_ = self._owners.values()
        key = self._owners.get(token_id.partition(":")[2], first)
        return hmac.new(key.encode(), f"browser:{self._port}:{token_id}:{expires}".encode(), "sha256").hexdigest()


def locked_page(connection: HTTPConnection, status: int) -> Response | None:
    """What a browser is told whose token or cookie is missing (401) or opens less (403); ``None`` where something else
    is wrong, or it did not ask for a page."""
    if not _reads_page(connection):
        return None
    if status == 401:
        return HTMLResponse(_LOCKED, status, {**HEADERS, "WWW-Authenticate": "Bearer", "Cache-Control": "no-store"})
    return HTMLResponse(_NOT_YOURS, status, {**HEADERS, "Cache-Control": "no-store"})


def _reads_page(connection: HTTPConnection) -> bool:
    scope = connection.scope
    return scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and scope["path"] in PAGES
