"""Errors in the shape that OpenAI clients understand."""

from __future__ import annotations

import math
from typing import Any

from starlette.responses import JSONResponse


class Refused(Exception):
    """A request that a route does not serve; becomes an answer in OpenAI's shape.

    Args:
        param: the field that is wrong.
        code: what ``kind`` does not tell.
    """

    def __init__(self, status: int, message: str, kind: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(message, kind, param, code)


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}``."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code or kind}}


def error_response(
    status: int, message: str, kind: str, param: str | None = None, retry_s: float = 0.0
) -> JSONResponse:
    """An error answer; 401 says which scheme is wanted, and ``retry_s`` when to try again."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if retry_s:
        headers["Retry-After"] = str(math.ceil(retry_s))
    return JSONResponse(error_body(message, kind, param), status, headers)
