"""`inhouse dataset synthesize` as a user meets it: the estimate, the bound, and what a dataset makes of the replies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inhouse_server.cli import main
from inhouse_training import BaseModel, stored_replies

from ..training.history import commit, make_history
from ..training.synthesis.chat_server import KEY, ChatServer, honest
from ..training.synthesis.written import GUIDE

Inhouse = Callable[..., tuple[int, str, str]]

RECIPE = """
base_model = "SmolLM2-135M-Instruct"
[data]
max_tokens = 768
file_share = 0.5
conversation_share = 0.0
change_share = 0.2
qa_share = 0.2
absent_share = 0.1
[optimizer]
learning_rate = 1e-3
"""


@pytest.fixture
def inhouse(capsys: pytest.CaptureFixture[str]) -> Iterator[Inhouse]:
    """The command line in this process; gives exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments])
        said = capsys.readouterr()
        return code, said.out, " ".join(said.err.split())

    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


def test_rows_are_written_within_a_bound_built_and_labelled(
    inhouse: Inhouse, base_model: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_history(tmp_path / "shop", commits=3).root
    commit(root, "Write the guide", docs__refunds_md=GUIDE)
    for number in range(7):
        commit(root, f"Note {number}", **{f"note{number}_py": f"NOTE = {number}\n"})
    (tmp_path / "house.toml").write_text(RECIPE)
    monkeypatch.setenv("WRITER_KEY", KEY)
    at = ("--repo", str(root), "--recipe", str(tmp_path / "house.toml"))
    with ChatServer().running() as server:
        section = f'[synthesis]\nbase_url = "{server.url}"\nmodel = "writer"\napi_key_env = "WRITER_KEY"\n'
        (root / "inhouse.toml").write_text(section)
        code, estimated, _ = inhouse("dataset", "synthesize", "--dry-run", "--json", *at)
        told = json.loads(estimated)
        assert code == 0 and told["kinds"] == ["qa", "absent"] and told["max_tokens"] == 2_000_000
        assert (told["estimate"]["open"], told["estimate"]["cached"], told["estimate"]["generator"]) == (1, 0, "writer")
        assert not server.asked and not (root / ".inhouse").exists()

        code, said, _ = inhouse("dataset", "synthesize", "--max-tokens", "10", *at)
        assert code == 0 and "the bound of 10 tokens ends it before" in said and "1 left for another run" in said
        code, said, _ = inhouse("dataset", "synthesize", *at)
        made = "absent: made of the code by 'inhouse dataset build', without a model"
        assert said.startswith(f"qa: written by writer; {made}\n1 request, ")
        assert "questions: 1 of 1 can be used (100%)" in said
        report = json.loads(inhouse("dataset", "synthesize", "--json", *at)[1])
        assert (report["asked"], report["cached"], report["grounded"]) == (0, 1, {"questions": 1})
        assert len(server.asked) == 1 and KEY not in str(report)

        code, built, _ = inhouse("dataset", "build", *at)
        assert code == 0 and "\nqa " in built and "\nraft " not in built and "  generator: writer" in built
        shown = inhouse("dataset", "show", "--kind", "qa", *at)[1]
        assert "synthetic: written by writer from docs/refunds.md:1-7" in shown
        assert inhouse("dataset", "export", "--to", str(tmp_path / "out.jsonl"), *at)[1].count("of kind qa") == 1
    logs = "".join(path.read_text() for path in (root / ".inhouse" / "logs").iterdir())
    assert KEY not in logs


def test_what_cannot_be_written_is_said_with_a_remedy(inhouse: Inhouse, base_model: BaseModel, tmp_path: Path) -> None:
    root = make_history(tmp_path / "shop", commits=12).root
    at = ("dataset", "synthesize", "--dry-run", "--repo", str(root))
    code, _, error = inhouse(*at)
    assert code == 1 and "cpu-trial has no share for synthetic rows" in error and "qa_share = 0.1" in error
    code, _, error = inhouse(*at, "--kinds", "qa,qaa")
    assert code == 1 and "no synthetic kind called 'qaa'. There are qa, raft," in error
    assert json.loads(inhouse(*at, "--kinds", "qa", "--json")[1])["estimate"]["generator"].startswith("SmolLM2-135M-In")
    (root / "inhouse.toml").write_text('[engine]\nkind = "openai"\nurl = "http://127.0.0.1:1/v1"\nmodel = "house"\n')
    assert json.loads(inhouse(*at, "--kinds", "qa", "--json")[1])["estimate"]["generator"] == "house"
    for text, problem in (
        ('model = "writer"', "names a model and no server"),
        ('base_url = "http://127.0.0.1:1/v1"', "base_url needs a model"),
    ):
        (root / "inhouse.toml").write_text(f"[synthesis]\n{text}\n")
        code, _, error = inhouse(*at, "--kinds", "qa")
        assert code == 1 and problem in error


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_without_a_traceback_and_what_was_answered_stays(
    base_model: BaseModel, tmp_path: Path, number: int
) -> None:
    root = make_history(tmp_path / "shop", commits=12).root
    asked, over = threading.Event(), threading.Event()

    def write(count: int, prompt: str) -> str:
        if count == 2:
            asked.set()
            over.wait(timeout=60)
        return honest(prompt)

    with ChatServer().running() as server:
        server.write = write
        section = f'[synthesis]\nbase_url = "{server.url}"\nmodel = "writer"\napi_key_env = "WRITER_KEY"\n'
        (root / "inhouse.toml").write_text(section + "concurrency = 1\n")
        command = [sys.executable, "-m", "inhouse_server.cli", "dataset", "synthesize", "--kinds", "raft"]
        child = subprocess.Popen(
            [*command, "--repo", str(root)],
            env={**os.environ, "WRITER_KEY": KEY},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # Whoever runs the tests in a shell's background ignores SIGINT, and what it starts inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert asked.wait(timeout=60)
        child.send_signal(number)
        _, said = child.communicate(timeout=60)
        over.set()
    assert child.returncode == 130 and "Traceback" not in said
    assert len(stored_replies(root / ".inhouse").by_key) == 2
