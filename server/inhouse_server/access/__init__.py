"""Who may ask the owner for what: tokens with scopes, limits on each, and the log of what was asked."""

from __future__ import annotations

from inhouse_server.access.asking import Asking, Noting, TooManyOpen, TooMuch, TooOften, uncounted
from inhouse_server.access.audit import Audit, Handled, Work
from inhouse_server.access.limits import RequestLimits
from inhouse_server.access.tokens import Caller, Callers, Scope, Token, TokenStore, token_file

__all__ = [
    "Asking",
    "Audit",
    "Caller",
    "Callers",
    "Handled",
    "Noting",
    "RequestLimits",
    "Scope",
    "Token",
    "TokenStore",
    "TooManyOpen",
    "TooMuch",
    "TooOften",
    "Work",
    "token_file",
    "uncounted",
]
