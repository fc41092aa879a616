"""Messages that are nearly right: valid ones of the language server and of HTTP, with a part of each replaced.

hypothesis draws a message in a few milliseconds, which a million of them are too many for; these take microseconds.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from inhouse_server.framing import frame

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 2**31 - 1, 2**31, 2**63, -(2**63), 10**30, 1e308, float("nan"), float("-inf"), "",
    " ", "\0", "é", "\U0001f600", "\ud800", "x" * 3000, "../" * 9, "%00", "$(id)", "<img src=x>", [], {}, [[]],
    {"": None}, [None] * 50, {"a": {"b": {"c": [1, {"d": "e"}]}}},
)  # fmt: skip
_BYTES = (
    b"\0",
    b"\xff",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"{",
    b"[" * 200,
    b'"',
    b":",
    b"Content-Length: 7\r\n",
    b"\xed\xa0\x80",
)


def odd(rng: random.Random) -> Any:
    """A value of its own that seldom belongs anywhere."""
    return copy.deepcopy(rng.choice(ODD))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value: what holds it, and its key or position there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: list[tuple[Any, Any]] = []
    for key, each in inner:
        found.append((value, key))
        found += _places(each)
    return found


def bend(rng: random.Random, value: Any) -> Any:
    """A copy of a JSON value with one to three places of it replaced, removed, doubled, or moved."""
    bent = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        places = _places(bent)
        if not places:
            return odd(rng)
        holder, key = rng.choice(places)
        match rng.randrange(6):
            case 0 | 1 | 2:
                holder[key] = odd(rng)
            case 3:
                del holder[key]
            case 4:
                other, there = rng.choice(places)
                holder[key] = copy.deepcopy(other[there])
            case 5 if isinstance(holder, dict):
                holder[str(rng.choice(ODD))] = holder[key]
            case _:
                holder[key] = [holder[key]] * rng.randint(1, 4)
    return bent


def break_bytes(rng: random.Random, data: bytes) -> bytes:
    """``data`` with one to three cuts, doublings, flipped bits or pieces put in."""
    broken = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at, length = rng.randrange(len(broken) + 1), rng.randint(1, 12)
        match rng.randrange(4):
            case 0:
                del broken[at : at + length]
            case 1:
                broken[at:at] = rng.choice(_BYTES)
            case 2:
                broken[at:at] = broken[at : at + length * 4]
            case _ if at < len(broken):
                broken[at] ^= 1 << rng.randrange(8)
    return bytes(broken)


# ----------------------------------------------------------------------------------------------------------
# The language server

_POSITION = {"line": 3, "character": 6}
_RANGE = {"start": {"line": 0, "character": 0}, "end": _POSITION}
_QUESTION = {
    "question": "When do couriers come?", "textDocument": {"uri": "ROOT/shipping.py"}, "range": _RANGE,
    "adapter": "current", "partialResultToken": 7, "history": [{"role": "user", "content": "Hello"}],
}  # fmt: skip
_BILLING = {"uri": "ROOT/billing.py"}
_LIGHT: tuple[tuple[str, Any], ...] = (
    (
        "textDocument/didOpen",
        {"textDocument": {**_BILLING, "languageId": "python", "version": 1, "text": "a = 1\n\nb\n"}},
    ),
    (
        "textDocument/didChange",
        {
            "textDocument": {**_BILLING, "version": 2},
            "contentChanges": [{"range": _RANGE, "text": "é"}, {"text": "a\r\nb"}],
        },
    ),
    (
        "textDocument/didChange",
        {"textDocument": {**_BILLING, "version": 2}, "contentChanges": [{"range": _RANGE, "text": ""}]},
    ),
    ("textDocument/didClose", {"textDocument": _BILLING}),
    ("textDocument/codeAction", {"textDocument": _BILLING, "range": _RANGE, "context": {"diagnostics": []}}),
    (
        "codeAction/resolve",
        {"title": "Ask", "kind": "quickfix", "data": {"command": "inhouse.ask", "uri": "ROOT/billing.py"}},
    ),
    (
        "textDocument/codeAction",
        {
            "textDocument": _BILLING,
            "range": _RANGE,
            "context": {
                "diagnostics": [{"range": _RANGE, "message": "m", "source": "inhouse", "data": {"fingerprint": "f"}}]
            },
        },
    ),
    (
        "codeAction/resolve",
        {"title": "Fix", "data": {"kind": "quickfix", "textDocument": {"uri": "ROOT/billing.py"}, "fingerprint": "f"}},
    ),
    (
        "codeAction/resolve",
        {
            "title": "Change",
            "data": {"kind": "inhouse.change", "textDocument": {"uri": "ROOT/billing.py"}, "range": _RANGE},
        },
    ),
    (
        "workspace/executeCommand",
        {"command": "inhouse.why", "arguments": [{"textDocument": {"uri": "ROOT/billing.py"}, "fingerprint": "f"}]},
    ),
    ("$/cancelRequest", {"id": 3}),
    ("$/setTrace", {"value": "verbose"}),
    ("window/workDoneProgress/cancel", {"token": "t"}),
    (
        "initialize",
        {"capabilities": {"general": {"positionEncodings": ["utf-8"]}}, "rootUri": "ROOT", "processId": None},
    ),
    ("no/such/method", {"a": 1}),
)  # fmt: skip
_HEAVY: tuple[tuple[str, Any], ...] = (
    ("textDocument/didSave", {"textDocument": _BILLING}),
    ("textDocument/hover", {"textDocument": _BILLING, "position": _POSITION}),
    ("textDocument/codeLens", {"textDocument": _BILLING}),
    ("workspace/executeCommand", {"command": "inhouse.ask", "arguments": [_QUESTION], "workDoneToken": 5}),
    ("workspace/executeCommand", {"command": "inhouse.change", "arguments": [_QUESTION]}),
    ("inhouse/ask", _QUESTION),
    ("inhouse/status", None),
    ("shutdown", None),
)
"""These ask git, the index or the model as long as enough of them is right, or end the questions."""
_NOTIFICATIONS = ("did", "$/", "window/")


def editor_messages(rng: random.Random, root: str) -> Iterator[bytes]:
    """Framed messages of an editor whose files lie at the address ``root``; their frames are broken at times, too."""
    for number in range(2**63):
        method, params = rng.choice(_HEAVY if rng.random() < 0.04 else _LIGHT)
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if not any(part in method for part in _NOTIFICATIONS):
            message["id"] = number
        kind = rng.random()
        if kind < 0.05:
            message = {"jsonrpc": "2.0", "id": rng.randrange(50), rng.choice(("result", "error")): odd(rng)}
        if kind < 0.75:
            message = bend(rng, message)
        body = json.dumps(message).replace("ROOT", root).encode()
        if kind > 0.9:
            body = break_bytes(rng, body)
        framed = frame(body)
        yield break_bytes(rng, framed[:40]) + framed[40:] if 0.85 < kind < 0.9 else framed


# ----------------------------------------------------------------------------------------------------------
# HTTP

_CHAT = {
    "model": "inhouse", "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}],
    "max_tokens": 2, "stream": False, "temperature": 0.5, "top_p": 0.9, "stop": ["\n"], "seed": 1,
    "stream_options": {"include_usage": True}, "inhouse": {"retrieve": False},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
}  # fmt: skip
_HELLO = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}},
}  # fmt: skip
_RPC = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": {"query": "a"}}}
_QUICK: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/healthz?nonce=abc", None),
    ("GET", "/", None),
    ("GET", "/?token=abc", None),
    ("GET", "/web/chat.js", None),
    ("GET", "/v1/models", None),
    ("GET", "/inhouse/adapters", None),
    ("POST", "/v1/chat/completions", _CHAT),
    ("POST", "/v1/completions", {"model": "inhouse", "prompt": "Hello", "max_tokens": 2, "stop": "\n"}),
    ("POST", "/v1/embeddings", {"model": "all-MiniLM-L6-v2", "input": ["a"], "encoding_format": "float"}),
    ("POST", "/inhouse/search", {"query": "couriers", "limit": 2}),
    ("POST", "/inhouse/uses", {"name": "book_courier", "limit": 3}),
    (
        "POST",
        "/inhouse/ask",
        {"question": "Hello", "adapter": "base", "retrieve": False, "max_tokens": 2, "history": [], "passages": True},
    ),
    ("POST", "/inhouse/passage", {"path": "billing.py", "start_line": 1, "end_line": 3}),
    ("POST", "/inhouse/feedback", {"question": "a", "provenance": {}, "verdict": "useful", "note": "b"}),
    ("POST", "/lsp", None),
)
_SLOW: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/metrics", None),
    ("GET", "/openapi.json", None),
    ("GET", "/inhouse/status", None),
    ("POST", "/inhouse/review", {"revisions": "HEAD~9..HEAD", "staged": False}),
    ("POST", "/mcp", _RPC),
    ("POST", "/mcp", _HELLO),
    ("DELETE", "/mcp", None),
)
"""These cost some milliseconds, right or not."""
_HEADERS = (
    "Host: evil.example", "Origin: http://evil.example", "Origin: null", "Content-Length: 5", "Content-Length: -1",
    "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Expect: 100-continue", "Connection: upgrade",
    "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Cookie: a=b; c",
    "Content-Type: text/plain", "Accept: text/event-stream", "Authorization: Bearer x", "Authorization: Basic ",
    "X-Inhouse: 1", "Range: bytes=0-1", "If-None-Match: *", "X: é", "Accept-Encoding: br", "Last-Event-ID: 1",
)  # fmt: skip
_METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PRI", "x")


def http_requests(rng: random.Random, token: str) -> Iterator[bytes]:
    """Requests as bytes, half of them with the token; some break HTTP itself, the others what a route wants."""
    while True:
        method, path, value = rng.choice(_SLOW if rng.random() < 0.05 else _QUICK)
        kind = rng.random()
        if kind < 0.1:
            method = rng.choice(_METHODS)
        elif kind < 0.2:
            path = quote(break_bytes(rng, path.encode()), safe="/?=%&")
        body = b"" if value is None else json.dumps(bend(rng, value)).encode()
        if 0.2 < kind < 0.3:
            body = break_bytes(rng, body)
        headers = ["Host: 127.0.0.1", "Content-Type: application/json", "Accept: application/json, text/event-stream"]
        if rng.random() < 0.5:
            headers.append(f"Authorization: Bearer {token}")
        if body:
            headers.append(f"Content-Length: {len(body)}")
        if kind > 0.7:
            headers.insert(rng.randint(0, len(headers)), rng.choice(_HEADERS))
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *headers, "", ""]).encode()
        yield (break_bytes(rng, head) if kind > 0.9 else head) + body
