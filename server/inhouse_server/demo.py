"""The main job on this repository, in the order that a newcomer would do it. Run by ``make demo``.

index -> retrain (build, train, evaluate, promote only if better) -> owner process -> three questions: over the
OpenAI-compatible API, through the language server, and with ``inhouse ask``. Each step is the command or protocol that
a user would use.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from inhouse_retrieval.errors import InhouseError
from inhouse_server.cli.ask import show_sources
from inhouse_server.cli.backend import locate
from inhouse_server.cli.retrain import REJECTED
from inhouse_server.owner import OwnerAddress, ensure_owner

console = Console(highlight=False, markup=False, soft_wrap=True)

API_QUESTION = "Which module promotes an adapter, and how is that made atomic?"
EDITOR_QUESTION = "How does the relay reconnect when the owner process dies?"
TERMINAL_QUESTION = "Where are secrets redacted before text is indexed?"


def main() -> int:
    """Run the demo; returns the exit code."""
    started = time.monotonic()
    root, settings, _ = locate(Path())
    step(f"inhouse index: read and index {root.name}")
    run("index")
    step("inhouse retrain: fine-tune on this repository's files and history, evaluate, promote if better")
    result = json.loads(run("retrain", "--json", capture=True, allowed=(0, REJECTED)))
    show_retraining(result)
    model = "inhouse"
    if result["current"] != result["candidate"]:
        model = result["candidate"]
        console.print(f"  The candidate {model} is shown below although it was NOT PROMOTED.", style="yellow")

    step("inhouse serve: one process holds the model and the index")
    run("serve", "--stop", capture=True)
    owner = ensure_owner(root, timeout_s=60)
    console.print(f"  {owner.url}")
    if size := size_of_small_model(settings.base_model):
        console.print(f"  A model of {size}: read the places below each answer, not its words.", style="yellow")
    try:
        step(f"OpenAI-compatible API, model {model!r}: {API_QUESTION}")
        ask_over_http(root, owner, model, API_QUESTION)
        step(f"language server, as an editor asks: {EDITOR_QUESTION}")
        asyncio.run(ask_in_editor(root, EDITOR_QUESTION, model))
        step(f"inhouse ask: {TERMINAL_QUESTION}")
        run("ask", TERMINAL_QUESTION, "--adapter", "current" if model == "inhouse" else model)
    finally:
        run("serve", "--stop", capture=True)
    console.print(f"\nReport: {result['report']}\nDone in {time.monotonic() - started:.0f} s.")
    return 0


def step(title: str) -> None:
    """Say what comes."""
    console.print(f"\n▸ {title}", style="bold")


def run(*arguments: str, capture: bool = False, allowed: tuple[int, ...] = (0,)) -> str:
    """Run one ``inhouse`` command.

    Raises:
        InhouseError: it ended with an exit code that is not allowed; it has said why.
    """
    process = subprocess.run(
        [sys.executable, "-m", "inhouse_server.cli", *arguments],
        stdout=subprocess.PIPE if capture else None,
        text=True,
    )
    if process.returncode not in allowed:
        raise InhouseError(f"'inhouse {arguments[0]}' ended with exit code {process.returncode}.")
    return process.stdout or ""


def show_retraining(result: dict[str, Any]) -> None:
    """Decision, reasons, and how the held-out loss moved.

    A run that was skipped has the reason of that alone; why the gate took or left its candidate is in its metrics.
    """
    from inhouse_training.report import MODES

    console.print(f"  {result['decision']}: {result['candidate']}")
    gate = result["metrics"].get("gate", ())
    for reason in dict.fromkeys([*result["reasons"], *gate]):
        console.print(f"    {reason}")
    held_out = result["metrics"].get("held_out", {})
    for mode, losses in held_out.items():
        if mode in MODES:
            moved = f"{MODES[mode]}: {losses['base']:.2f} -> {losses['candidate']:.2f} nats per token"
            current = f"current adapter {losses['current']:.2f}; " if "current" in losses else ""
            of = f"{losses['tokens']:,} tokens of {held_out['changes']} changes"
            console.print(f"    {moved} ({current}{of})")


def size_of_small_model(name: str) -> str:
    """``"135M"`` of a base model whose name says that it has fewer than a billion parameters; else empty."""
    size = re.search(r"(?<![0-9A-Za-z.])\d+M(?![0-9A-Za-z])", name)
    return size[0] if size else ""


def ask_over_http(root: Path, owner: OwnerAddress, model: str, question: str) -> None:
    """Stream one answer with the ``openai`` client."""
    import openai

    client = openai.OpenAI(base_url=f"{owner.url}/v1", api_key=owner.token)
    stream = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], max_tokens=128, stream=True
    )
    for chunk in stream:
        if chunk.choices and (text := chunk.choices[0].delta.content):
            console.print(text, end="")
        if (extra := chunk.model_extra) and "inhouse" in extra:
            show_sources(root, extra["inhouse"])


async def ask_in_editor(root: Path, question: str, model: str) -> None:
    """Stream one answer through ``inhouse lsp``, with the messages that an editor would send."""
    from lsprotocol import types
    from pygls.lsp.client import LanguageClient

    client = LanguageClient("inhouse-demo", "1")

    def on_progress(params: types.ProgressParams) -> None:
        if params.token == "answer":
            console.print(_field(params.value, "text"), end="")

    client.feature(types.PROGRESS)(on_progress)
    await client.start_io(sys.executable, "-m", "inhouse_server.cli", "lsp", "--repo", str(root))
    await client.initialize_async(
        types.InitializeParams(capabilities=types.ClientCapabilities(), process_id=os.getpid(), root_uri=root.as_uri())
    )
    client.initialized(types.InitializedParams())
    adapter = "current" if model == "inhouse" else model
    request = {"question": question, "partialResultToken": "answer", "adapter": adapter}
    answer = await client.protocol.send_request_async("inhouse/ask", request)
    citations = [
        {
            "path": _relative(root, _field(c, "uri")),
            "start_line": _field(_field(_field(c, "range"), "start"), "line") + 1,
        }
        for c in _field(answer, "citations")
    ]
    provenance, timings = _field(answer, "provenance"), _field(answer, "timings")
    show_sources(
        root,
        {
            "citations": citations,
            "notes": list(_field(answer, "notes")),
            "provenance": {
                name: _field(provenance, name) for name in ("base_model", "adapter", "index_commit", "pending")
            },
            "timings": {name: _field(timings, name) for name in ("first_token_ms", "completion_tokens", "total_ms")},
        },
    )
    await client.shutdown_async(None)
    client.exit(None)
    await client.stop()  # type: ignore[no-untyped-call]  # pygls leaves it untyped


def _field(value: Any, name: str) -> Any:
    """A custom result arrives as whatever object the client's JSON library makes."""
    return value[name] if isinstance(value, dict) else getattr(value, name)


def _relative(root: Path, uri: str) -> str:
    from urllib.parse import unquote, urlsplit

    return Path(unquote(urlsplit(uri).path)).relative_to(root).as_posix()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InhouseError as error:
        console.print(f"error: {error}", style="red")
        sys.exit(error.exit_code)
