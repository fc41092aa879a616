"""The language server: one pygls server object for each connected editor, all sharing one workspace.

``server.py`` lists every method that is handled; each file beside it is one capability, a thin handler over
plain functions. ``connection.py`` carries messages between a WebSocket and a server object.
"""

from __future__ import annotations

from inhouse_server.language_server.connection import serve_connection

__all__ = ["serve_connection"]
