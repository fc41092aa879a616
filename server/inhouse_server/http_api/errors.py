"""Errors in the shape that OpenAI clients understand."""

from __future__ import annotations

import math
from typing import Any

from pydantic import ValidationError
from starlette.responses import JSONResponse


def error_body(message: str, kind: str, param: str | None = None) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}``."""
    return {"error": {"message": message, "type": kind, "param": param, "code": kind}}


def error_response(
    status: int, message: str, kind: str, param: str | None = None, retry_s: float = 0.0
) -> JSONResponse:
    """An error answer; 401 says which scheme is wanted, and ``retry_s`` when to try again."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if retry_s:
        headers["Retry-After"] = str(math.ceil(retry_s))
    return JSONResponse(error_body(message, kind, param), status, headers)


def bad_request(error: ValidationError) -> JSONResponse:
    """400 for a body that is not what the route wants; names the first field that is wrong."""
    detail = error.errors()[0]
    param = ".".join(str(part) for part in detail["loc"])
    return error_response(400, f"{param or 'body'}: {detail['msg']}.", "invalid_request_error", param)
