"""The owner's HTTP surface: an OpenAI-compatible API, and the routes that the command line uses."""

from __future__ import annotations

from inhouse_server.http_api.app import build_app

__all__ = ["build_app"]
