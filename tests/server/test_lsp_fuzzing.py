"""Generated messages at the language server of a real owner: no crash, no hang, no leak.

FUZZ_MESSAGES says how many; 20,000 without it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from inhouse_server.language_server.server import FEATURES
from inhouse_server.owner import OwnerAddress

from .speaker import scripted_owner

MESSAGES = int(os.environ.get("FUZZ_MESSAGES", "20000"))
IN_A_BATCH = 100
PROBE_WAIT_S = 60.0
GROWTH = 0.25
"""Of the owner's memory between half of the messages and all of them: before that, what is first asked for loads."""

_texts = st.text(max_size=40)
_numbers = st.one_of(st.integers(-3, 40), st.sampled_from([2**31 - 1, 2**31, 2**63, -(2**63), 10**30]))
_anything = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, st.floats(), _texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_texts, inner, max_size=4)),
    max_leaves=12,
)
_uris = st.one_of(
    st.sampled_from(
        ["ROOT/billing.py", "ROOT/shipping.py", "ROOT/none.py", "ROOT/../x", "ROOT/.inhouse/token", "ROOT"]
    ),
    st.sampled_from(["untitled:1", "http://x/y", "file:", "file:///%00", "file:///%ff", "", "a b\ud800"]),
    _texts,
)
_position = st.fixed_dictionaries({"line": _numbers, "character": _numbers})
_range = st.fixed_dictionaries({"start": _position, "end": _position})
_document = st.fixed_dictionaries({"uri": _uris})
_diagnostic = st.fixed_dictionaries(
    {"range": _range, "message": _texts},
    optional={"data": st.one_of(st.fixed_dictionaries({"fingerprint": st.one_of(_texts, _anything)}), _anything)},
)
_change = st.one_of(
    st.fixed_dictionaries({"range": _range, "text": _texts}), st.fixed_dictionaries({"text": st.text(max_size=400)})
)
_question = st.fixed_dictionaries(
    {"question": _texts},
    optional={
        "textDocument": _document,
        "range": _range,
        "adapter": st.sampled_from(["current", "base", "none"]),
        "partialResultToken": st.one_of(_numbers, _texts),
        "history": st.lists(
            st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": _texts})
        ),
    },
)
_PARAMS: dict[str, st.SearchStrategy[Any]] = {
    "initialize": st.fixed_dictionaries(
        {"capabilities": st.just({})}, optional={"rootUri": _uris, "initializationOptions": _anything}
    ),
    "textDocument/didOpen": st.fixed_dictionaries(
        {
            "textDocument": st.fixed_dictionaries(
                {"uri": _uris, "languageId": _texts, "version": _numbers, "text": st.text(max_size=400)}
            )
        }
    ),
    "textDocument/didChange": st.fixed_dictionaries(
        {
            "textDocument": st.fixed_dictionaries({"uri": _uris, "version": _numbers}),
            "contentChanges": st.lists(_change, max_size=4),
        }
    ),
    "textDocument/didClose": st.fixed_dictionaries({"textDocument": _document}),
    "textDocument/didSave": st.fixed_dictionaries({"textDocument": _document}),
    "textDocument/hover": st.fixed_dictionaries({"textDocument": _document, "position": _position}),
    "textDocument/codeLens": st.fixed_dictionaries({"textDocument": _document}),
    "textDocument/codeAction": st.fixed_dictionaries(
        {
            "textDocument": _document,
            "range": _range,
            "context": st.fixed_dictionaries({"diagnostics": st.lists(_diagnostic, max_size=2)}),
        }
    ),
    "codeAction/resolve": st.fixed_dictionaries({"title": _texts}, optional={"data": _anything, "kind": _texts}),
    "workspace/executeCommand": st.fixed_dictionaries(
        {"command": st.sampled_from(["inhouse.ask", "inhouse.change", "inhouse.why", "inhouse.nothing"])},
        optional={"arguments": st.lists(st.one_of(_question, _anything), max_size=2)},
    ),
    "inhouse/ask": _question,
    "$/cancelRequest": st.fixed_dictionaries({"id": _numbers}),
    "window/workDoneProgress/cancel": st.fixed_dictionaries({"token": st.one_of(_numbers, _texts)}),
}
_methods = st.one_of(st.sampled_from(sorted(_PARAMS)), st.sampled_from([name for name, *_ in FEATURES]), _texts)
_ids = st.one_of(st.integers(0, 50), _texts, _anything)


@st.composite
def _messages(draw: st.DrawFn) -> str:
    """Mostly what an editor might send, at times with a part of it replaced; seldom no message at all."""
    kind = draw(st.integers(0, 19))
    if kind == 0:
        return draw(
            st.one_of(st.text(max_size=60), st.sampled_from(["[" * 5000, "null", "{}", "[]", '{"jsonrpc":"2.0"}']))
        )
    method = draw(_methods)
    # `exit` ends the connection, as it should.
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": "shutdown" if method == "exit" and kind < 18 else method}
    likely = _PARAMS.get(method)
    message["params"] = draw(likely if likely is not None and kind < 16 else _anything)
    if draw(st.booleans()):
        message["id"] = draw(_ids)
    if kind == 19:
        message = {"jsonrpc": "2.0", "id": draw(_ids), draw(st.sampled_from(["result", "error"])): draw(_anything)}
    return json.dumps(message)


@pytest.fixture(scope="module")
def owner(shop: Path) -> Iterator[OwnerAddress]:
    with scripted_owner(shop) as found:
        yield found


def _open(owner: OwnerAddress) -> ClientConnection:
    address = owner.url.replace("http", "ws") + "/lsp"
    editor = connect(
        address,
        additional_headers={"Authorization": f"Bearer {owner.token}"},
        max_size=None,
        open_timeout=PROBE_WAIT_S,
        legacy=True,
    )
    hello = {"jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": {"capabilities": {}}}
    editor.send(json.dumps(hello))
    _until(editor, "hello")
    return editor


def _until(editor: ClientConnection, identifier: str) -> None:
    """Read until the request of this id is answered.

    Raises:
        TimeoutError: it is not, which is a hang.
    """
    until = time.monotonic() + PROBE_WAIT_S
    while True:
        message = json.loads(editor.recv(max(0.0, until - time.monotonic())))
        if message.get("id") == identifier and "method" not in message:
            return


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_generated_messages_neither_crash_nor_hang_nor_leak(owner: OwnerAddress, shop: Path) -> None:
    pid = int(json.loads((shop / ".inhouse" / "owner.json").read_text())["pid"])
    sent, ended, early = 0, 0, (0, 0)
    asked = {"query": "couriers"}
    # What loads once is no leak.
    httpx.post(
        f"{owner.url}/inhouse/search", json=asked, headers={"Authorization": f"Bearer {owner.token}"}, timeout=120
    ).raise_for_status()

    @settings(
        max_examples=max(1, MESSAGES // IN_A_BATCH),
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def batches(data: st.DataObject) -> None:
        nonlocal sent, ended, early
        # All drawn before one is sent: when `exit` closes the connection is not for hypothesis to know.
        batch = [data.draw(_messages()).replace("ROOT", shop.as_uri()) for _ in range(IN_A_BATCH)]
        editor = _open(owner)
        try:
            for message in batch:
                editor.send(message)
                sent += 1
            probe = f"probe {sent}"
            editor.send(json.dumps({"jsonrpc": "2.0", "id": probe, "method": "no/such/method"}))
            _until(editor, probe)
        except ConnectionClosed:
            ended += 1  # by `exit`
        finally:
            with suppress(ConnectionClosed):
                editor.close()
        if not early[0] and sent >= MESSAGES // 2:
            early = _resident(pid), _files(pid)

    batches()
    log = (shop / ".inhouse" / "logs" / "owner.log").read_text(encoding="utf-8")
    print(f"{sent} messages, {ended} connections ended, {early[0]} bytes early and {_resident(pid)} late")  # noqa: T201
    assert sent >= MESSAGES * 0.9
    assert "Traceback" not in log, log[log.index("Traceback") - 600 :][:4000]
    assert _resident(pid) < early[0] * (1 + GROWTH)
    assert _files(pid) <= early[1] + 8
