"""How a browser signs in: once with the token in an address, and from then on with a cookie.

Cookies are weaker than the token, so three things hold them. A browser sends the cookies of a host to every port of
that host: the cookie is made from the token, never the token itself, and opens only what the page uses. Pages of other
sites cannot have it sent, since it is SameSite=Strict. Pages of another port count as the same site and can, but cannot
add :data:`PAGE_HEADER` to the request: a browser first asks the server whether another origin may, and this one never
agrees.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, RedirectResponse, Response

PAGE = "/"
STATIC = "/web/"
PAGE_HEADER = "x-inhouse"
ASKED_BY_PAGE = frozenset(
    {
        ("GET", "/inhouse/adapters"),
        ("GET", "/inhouse/status"),
        ("POST", "/inhouse/ask"),
        ("POST", "/inhouse/feedback"),
    }
)
"""What the cookie opens beside the page's own files, if :data:`PAGE_HEADER` comes with it."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Of the page, its files, and what stands in the page's place."""
_LOCKED = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>inhouse</title>
<p>To open this page, use the address that <code>inhouse serve</code> prints in a terminal, or add <code>?token=</code>
and the content of <code>.inhouse/token</code> to this one.</p></html>
"""


class BrowserSession:
    """The cookie of the owner that listens on ``port``; its name says which, since ports share a host's cookies."""

    def __init__(self, token: str, port: int) -> None:
        self._token = token.encode()
        self._name = f"inhouse-{port}"
        self._value = hmac.new(self._token, f"browser:{port}".encode(), "sha256").hexdigest()

    def sign_in(self, connection: HTTPConnection) -> Response | None:
        """The answer to the page's address with a valid token: the cookie, and the way to the page without it."""
        given = connection.query_params.get("token", "").encode()
        if not _reads(connection, PAGE) or not hmac.compare_digest(given, self._token):
            return None
        answer = RedirectResponse(PAGE, 303, {**HEADERS, "Cache-Control": "no-store"})
        answer.set_cookie(
            self._name, self._value, httponly=True, samesite="strict", secure=connection.scope["scheme"] == "https"
        )
        return answer

    def admits(self, connection: HTTPConnection) -> bool:
        """Whether the request has the cookie and is one that the page makes."""
        given = connection.cookies.get(self._name, "").encode()
        if connection.scope["type"] != "http" or not hmac.compare_digest(given, self._value.encode()):
            return False
        origin = connection.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != connection.headers["host"].lower():
            return False  # the guard lets every port of the host in, for clients that bring the token
        if _reads(connection, PAGE) or _reads(connection, STATIC):
            return True
        asked = connection.scope["method"], connection.scope["path"]
        return asked in ASKED_BY_PAGE and connection.headers.get(PAGE_HEADER) == "1"


def locked_page(connection: HTTPConnection) -> Response | None:
    """What a browser without token or cookie is told; ``None`` where it did not ask for the page."""
    if not _reads(connection, PAGE):
        return None
    return HTMLResponse(_LOCKED, 401, {**HEADERS, "WWW-Authenticate": "Bearer", "Cache-Control": "no-store"})


def _reads(connection: HTTPConnection, place: str) -> bool:
    """Whether this is a GET of ``place``, or of what lies under :data:`STATIC`."""
    if connection.scope["type"] != "http" or connection.scope["method"] not in ("GET", "HEAD"):
        return False
    path: str = connection.scope["path"]
    return path.startswith(STATIC) if place == STATIC else path == place
