"""`inhouse dataset`: the rows, the mix and the export, as a user meets them."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import pytest

from inhouse_server.cli import main
from inhouse_server.cli.dataset import _say
from inhouse_training import BaseModel

from ..training.history import make_history

Inhouse = Callable[..., tuple[int, str]]


@pytest.fixture
def inhouse(capsys: pytest.CaptureFixture[str]) -> Iterator[Inhouse]:
    """The command line in this process, which spares each call the start of another one."""

    def run(*arguments: str) -> tuple[int, str]:
        return main([*arguments]), capsys.readouterr().out

    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


def test_rows_are_shown_with_their_masks_and_exported(
    inhouse: Inhouse, base_model: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_history(tmp_path / "shop", commits=12).root
    talk = {"messages": [{"role": "user", "content": "Clear?"}, {"role": "assistant", "content": "No\x1b[2J, [b]."}]}
    (tmp_path / "talk.jsonl").write_text(json.dumps(talk))
    (root / "inhouse.toml").write_text('conversations = ["../*.jsonl"]\nwiki = []\n')
    at = ("--repo", str(root))
    assert inhouse("dataset", "show", *at)[0] == 1  # not built yet
    code, built = inhouse("dataset", "build", *at)
    assert code == 0 and "█ trained ▓ held out ░ dropped" in built and "max_overlap" not in built
    manifest = json.loads(inhouse("dataset", "stats", "--json", *at)[1])
    assert manifest["tokens"]["edit"].keys() == {"read", "trained", "held_out", "dropped"}

    [row] = json.loads(inhouse("dataset", "show", "--name", "*talk*", "--json", *at)[1])
    assert (row["kind"], row["name"], row["part"]) == ("written", "../talk.jsonl:1", 0)
    assert json.loads(row["origin"]) == {
        "generator": "no model", "split": "training", "sources": [{"place": "../talk.jsonl:1"}],
    }  # fmt: skip
    assert [row["text"][begin:end] for begin, end in row["learned"]] == ["No\x1b[2J, [b].<|im_end|>"]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = inhouse("dataset", "show", "--name", "*talk*", *at)[1]
    assert f"snapshot {manifest['snapshot'][:12]}  {row['tokens']} tokens, {row['learned_tokens']} learned" in coloured
    assert "\x1b[2J" not in coloured and "\x1b[32mNo\ufffd[2J, [b].<|im_end|>\x1b[0m" in coloured
    monkeypatch.delenv("FORCE_COLOR")
    edits = inhouse("dataset", "show", "--kind", "edit", "--limit", "2", *at)[1]
    assert edits.count("\nedit  ") == 2 and "Write the lines to add to handlers/" in edits
    assert inhouse("dataset", "show", "--kind", "nonsense", *at)[0] == 2

    told = json.loads(inhouse("dataset", "export", "--to", str(tmp_path / "out.jsonl"), "--json", *at)[1])
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert told["rows"].keys() == {"written", "edit"} and sum(told["rows"].values()) == len(lines)
    assert talk["messages"] in [line["messages"][1:] for line in lines]


def test_completions_are_shown_with_their_sources_and_exported(
    inhouse: Inhouse, base_model: BaseModel, tmp_path: Path
) -> None:
    root = make_history(tmp_path / "shop", commits=12).root
    recipe = (resources.files("inhouse_training.recipes") / "cpu-trial.toml").read_text()
    shares = "edit_share = 0.1\ncompletion_share = 0.1\nreview_share = 0.1"
    (tmp_path / "house.toml").write_text(re.sub(r"edit_share = [\d.]+.*", shares, recipe))
    at = ("--repo", str(root), "--recipe", str(tmp_path / "house.toml"))
    code, built = inhouse("dataset", "build", *at)
    assert code == 0 and "\ncompletion " in built and "inhouse sync reads them" in " ".join(built.split())
    shown = inhouse("dataset", "show", "--kind", "completion", "--limit", "1", *at)[1]
    place = shown.partition("completion  ")[2].split()[0]
    assert f"from {place}" in shown and "Write the rest of `update_" in shown
    told = json.loads(inhouse("dataset", "export", "--to", str(tmp_path / "out.jsonl"), "--json", *at)[1])
    assert told["rows"]["completion"] > 0


def test_the_account_tells_what_is_there_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "near-copy of a held-out change, which would be learned although it judges the model, and so is left out"
    none = {"read": 0, "trained": 0, "held_out": 0, "dropped": {}}
    manifest = {
        "recipe": "cpu-trial",
        "canaries": 0,
        "tokens": {
            "file": {"read": 9, "trained": 7, "held_out": 0, "dropped": {reason: 2, "empty": 0}},
            "qa": none | {"dropped": {"not generated yet": 0}},
        },
        "skipped_files": {},
        "redactions": {"password or token": 2},
        "synthesis": {
            "generator": "",
            "rows": {"lookup": 1200, "absent": 3},
            "dropped": {"qa": {"not generated yet": 4}, "raft": {}, "absent": {"no room": 1, "asked before": 2}},
            "commits": ["a", "b"],
        },
    }
    _say(manifest, False)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == ["recipe: cpu-trial", "canaries: 0"]
    assert lines[4].endswith(f" {reason}") and not any(line.startswith("qa") for line in lines)
    assert lines[5:] == [
        "redactions:",
        "  password or token: 2",
        "synthesis:",
        "  rows: 1,200 lookup, 3 absent",
        "  dropped: qa: 4 not generated yet; absent: 1 no room, 2 asked before",
        "  commits: 2 entries, listed with --json",
    ]
