"""Errors in the shape that OpenAI clients understand."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse


def error_body(message: str, kind: str, param: str | None = None) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}``."""
    return {"error": {"message": message, "type": kind, "param": param, "code": kind}}


def error_response(status: int, message: str, kind: str, param: str | None = None) -> JSONResponse:
    """An error answer; 401 says which scheme is wanted."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(error_body(message, kind, param), status, headers)
