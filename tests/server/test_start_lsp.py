"""The first moments of `inhouse lsp`: an editor gets its answer before anything is imported that takes long."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from inhouse_server.cli import lsp as lsp_command
from inhouse_server.cli.start_lsp import PLAIN, plain_options
from inhouse_server.framing import FrameReader, frame
from inhouse_server.settings_file import may_complete_inline
from tests.server.editor import editor
from tests.server.house import INHOUSE, make_repository, stop_owner

INITIALIZE = {"id": 1, "method": "initialize", "params": {"capabilities": {}}}
SLOW = {"asyncio", "dataclasses", "logging", "pydantic", "rich", "subprocess", "tomllib", "typer", "websockets"}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = make_repository(tmp_path / "a shop")
    yield root
    stop_owner(root)


def framed(*messages: dict[str, Any]) -> bytes:
    return b"".join(frame(json.dumps({"jsonrpc": "2.0", **message}).encode()) for message in messages)


def greeted(root: Path, said: bytes) -> dict[str, Any]:
    """What a process that only greets answers to ``said``, which of the slow modules it imported, and what it kept."""
    code = (
        "import json, sys, inhouse_server.cli\n"
        "from inhouse_server.greeting import greet\n"
        f"greeting = greet({str(root)!r})\n"
        f"modules = sorted({SLOW!r} & set(sys.modules))\n"
        "kept = [None if body is None else body.decode() for body in greeting.bodies]\n"
        "print(json.dumps([greeting.answered, modules, kept]), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=said, capture_output=True, check=True, timeout=60)
    answered, modules, kept = json.loads(done.stderr)
    bodies = FrameReader().feed(done.stdout)
    return {
        "answers": [json.loads(body or b"") for body in bodies],
        "answered": answered,
        "slow": modules,
        "kept": kept,
    }


def test_initialize_is_answered_before_anything_slow_is_imported(root: Path) -> None:
    found = greeted(root / "src files", framed(INITIALIZE, {"method": "initialized", "params": {}}))
    (answer,) = found["answers"]
    assert answer["id"] == 1 and answer["result"]["serverInfo"]["name"] == "inhouse"
    assert found["answered"] and found["slow"] == []
    assert [json.loads(body)["method"] for body in found["kept"]] == ["initialize", "initialized"]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\r\n\r\n",
        frame(b"no JSON"),
        frame(b"[" * 100_000),
        framed({"id": 1, "method": "initialize", "params": None}),
        framed({"id": True, "method": "initialize", "params": {}}),
        framed({"id": 1, "method": "shutdown"}, INITIALIZE),
    ],
    ids=["nothing", "no length", "no JSON", "deep", "no parameters", "no id", "another request first"],
)
def test_anything_else_is_left_to_the_relay(root: Path, said: bytes) -> None:
    found = greeted(root, said)
    assert not found["answered"] and found["answers"] == []


def test_outside_a_repository_nobody_is_greeted(tmp_path: Path) -> None:
    found = greeted(tmp_path, framed(INITIALIZE))
    assert not found["answered"] and found["kept"] == []


@pytest.mark.parametrize(
    ("text", "may"),
    [
        (None, False),
        ("[answer]\nmax_tokens = 48\n", False),
        ("# [inline_completion]\n# enabled = true\n", False),
        ("[inline_completion]\nmax_tokens = 8\n", False),
        ("[inline_completion]\nenabled = false\n", False),
        ("[inline_completion]\nenabled = true\n", True),
        ("inline_completion.enabled = true\n", True),
        ('["inline\\u005fcompletion"]\nenabled = true\n', True),
        ("inline_completion = 3\n", True),
        ("inline_completion = [\n", True),
    ],
)
def test_whether_a_file_may_turn_inline_completion_on(tmp_path: Path, text: str | None, may: bool) -> None:
    if text is not None:
        (tmp_path / "inhouse.toml").write_text(text)
    assert may_complete_inline(str(tmp_path)) is may


def test_a_file_that_is_no_text_may_turn_it_on(tmp_path: Path) -> None:
    (tmp_path / "inhouse.toml").write_bytes(b"\xff\xfe")
    assert may_complete_inline(str(tmp_path))


async def test_an_editor_that_writes_in_pieces_gets_one_answer_and_its_session(root: Path) -> None:
    async with editor([INHOUSE, "lsp", "--repo", root]) as client:
        message = framed({**INITIALIZE, "id": "first"})
        client.send_raw(message[:30])
        await asyncio.sleep(0.1)
        client.send_raw(message[30:])
        early = (await client.response("first"))["result"]
        client.notify("initialized", {})
        assert (await client.request("inhouse/status"))["root"] == str(root)
        assert [each["id"] for each in client.received if "result" in each].count("first") == 1
        assert await client.leave() == 0
    async with editor([INHOUSE, "lsp", f"--repo={root}"]) as client:  # so written, Typer reads it
        await asyncio.sleep(3)  # the relay answers, not the greeting
        assert (await client.initialize(root, {})) == early


def test_wrong_settings_are_shown_to_an_editor_that_was_greeted(root: Path) -> None:
    (root / "inhouse.toml").write_text("[answer]\nmax_tokens = 'many'\n")
    heard, said = os.pipe()
    try:
        os.write(said, framed(INITIALIZE))
        # The pipe stays open: the editor is not what ends this.
        done = subprocess.run([INHOUSE, "lsp", "--repo", root], stdin=heard, capture_output=True, timeout=60)
    finally:
        os.close(heard)
        os.close(said)
    assert done.returncode == 1
    assert "answer.max_tokens" in done.stderr.decode() and "Traceback" not in done.stderr.decode()
    answer, shown = (json.loads(body or b"") for body in FrameReader().feed(done.stdout))
    assert answer["id"] == 1
    assert shown["method"] == "window/showMessage" and "answer.max_tokens" in shown["params"]["message"]


def test_wrong_settings_are_told_at_once_where_no_editor_speaks(root: Path) -> None:
    (root / "inhouse.toml").write_text("[answer]\nmax_tokens = 'many'\n")
    with subprocess.Popen(
        [INHOUSE, "lsp", "--repo", root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None and process.stdout is not None
        assert process.wait(60) == 1, "it waited for an editor"
        assert b"answer.max_tokens" in process.stderr.read() and process.stdout.read() == b""


def told(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, tuple[object, ...]]:
    """Exit code and arguments for ``start``, as Typer reads ``arguments``."""
    started: list[tuple[object, ...]] = []
    monkeypatch.setattr(lsp_command, "start", lambda *given: started.append(given))
    app = typer.Typer()
    app.command()(lsp_command.lsp)
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, started[0] if started else ()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--repo", "a shop"],
        ["--server", "wss://inhouse.example", "--repo", "/shop"],
        ["--ca", "team.pem", "--server", "wss://inhouse.example"],
        ["--server", "wss://inhouse.example", "--repository", "till"],
    ],
)
def test_plain_options_mean_what_typer_reads_in_them(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = plain_options(arguments)
    assert plain is not None
    expected = (plain.get("repo", "."), plain.get("server"), plain.get("authority"), plain.get("repository"))
    assert told(arguments, monkeypatch) == (0, expected)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--repo"],
        ["--repo", "--help"],
        ["--repo=a shop"],
        ["--repo", "one", "--repo", "two"],
        ["--repo", ""],
        ["--nonsense", "x"],
        ["somewhere"],
    ],
)
def test_everything_else_is_left_to_typer(arguments: list[str]) -> None:
    assert plain_options(arguments) is None


def test_every_option_of_the_command_is_a_plain_one() -> None:
    app = typer.Typer()
    app.command()(lsp_command.lsp)
    options = {name for each in typer.main.get_command(app).params for name in each.opts}
    assert set(PLAIN) == options - {"--help", "--install-completion", "--show-completion"}


def test_the_help_is_typers() -> None:
    done = subprocess.run([INHOUSE, "lsp", "--help"], capture_output=True, text=True, check=True, timeout=60)
    assert "Speak LSP on standard input and output" in done.stdout and "--ca" in done.stdout
