"""The command line as a user meets it: output, JSON contracts, exit codes, and never a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from inhouse_retrieval import Repository
from inhouse_server.cli.doctor import data_folder, place_of_base_model, speed_of_history
from inhouse_server.cli.found_passage import show_passage
from inhouse_server.cli.init import _of_forge
from inhouse_server.cli.terminal import how_far
from inhouse_server.settings import Settings
from inhouse_server.version import VERSION
from inhouse_server.workspace import Workspace
from inhouse_training import BaseModel, answering_weights

from .command_line import inhouse
from .conftest import git, make_repository


def json_of_its_own(*arguments: str) -> Any:
    """What the command line says in a process of its own, from its start to its end."""
    command = [sys.executable, "-m", "inhouse_server.cli", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return json.loads(done.stdout)


def in_a_terminal(*arguments: str) -> bytes:
    """What Python, run with ``arguments``, shows in a terminal."""
    child, terminal = pty.fork()
    if child == 0:
        environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        terminal_of = {"TERM": "xterm-256color", "INHOUSE_ANSWER_MAX_TOKENS": "48"}
        os.execve(sys.executable, [sys.executable, *arguments], {**environment, **terminal_of})
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the terminal was closed
        while data := os.read(terminal, 4096):
            shown += data
    os.waitpid(child, 0)
    os.close(terminal)
    return shown


def json_of(*arguments: str) -> Any:
    done = inhouse(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_index_then_search_keep_their_contracts(shop: Path) -> None:
    report = json_of("index", "--repo", str(shop))
    assert report.keys() >= {"files", "chunks", "embedded", "reused", "skipped", "seconds", "commit"}
    assert report["without_syntax"] == {}
    assert report["files"] == 2
    assert json_of("index", "--repo", str(shop))["embedded"] == 0

    found = json_of_its_own("search", "when do couriers come", "--repo", str(shop), "--limit", "1")
    assert found.keys() == {"results", "beside", "index_commit", "pending", "unembedded", "to_rerank", "reranked"}
    [best] = found["results"]
    assert best["path"] == "shipping.py"
    assert {"path", "start_line", "end_line", "score", "source", "legs", "commit"} <= best.keys()


@pytest.mark.parametrize("command", [("adapters", "list"), ("init", "--force")])
def test_every_command_can_be_followed_in_its_log(tmp_path: Path, command: tuple[str, ...]) -> None:
    shop = make_repository(tmp_path / "shop")
    said = inhouse(*command, "--repo", str(shop), INHOUSE_LOG="debug").stderr
    assert " DEBUG inhouse_retrieval.git_process: git " in said
    assert inhouse(*command, "--repo", str(shop)).stderr == ""


def test_many_queries_print_one_object_a_line(shop: Path, tmp_path: Path) -> None:
    queries = tmp_path / "queries.txt"
    queries.write_text("courier\ncharge customer\n")
    done = inhouse("search", "--queries", str(queries), "--repo", str(shop), "--json")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["results"][0]["path"] == "shipping.py"
    assert second["results"][0]["path"] == "billing.py"


def test_a_limit_holds_for_all_that_is_found(shop: Path, tmp_path: Path) -> None:
    git(shop, "commit", "--quiet", "--allow-empty", "--message", "Couriers come at noon (#5)")
    found = json_of("search", "what did #5 say of couriers?", "--repo", str(shop), "--limit", "1")
    assert [hit["source"] for hit in found["results"]] == ["pull_request"]
    assert [hit["path"] for hit in found["beside"]] == ["shipping.py"]
    shown = inhouse("search", "what did #5 say of couriers?", "--repo", str(shop), "--limit", "1").stdout
    assert "shipping.py" in shown and "pull-requests/5.md" in shown
    queries = tmp_path / "queries.txt"
    queries.write_text("courier\n\ncharge\n")
    done = inhouse("search", "--queries", str(queries), "--repo", str(shop), "--json")
    assert (done.returncode, f"{queries}:2 holds no query" in done.stderr, done.stdout) == (1, True, "")


def test_a_number_that_no_pull_request_has_is_said(shop: Path, base_model: BaseModel) -> None:
    answer = json_of("ask", "What did #4711 change?", "--repo", str(shop))
    assert "No pull request #4711 is in the history that was read." in answer["notes"]


def test_ask_keeps_its_contract(shop: Path, base_model: BaseModel) -> None:
    answer = json_of("ask", "Who books couriers?", "--repo", str(shop))
    assert {"answer", "citations", "provenance", "timings"} <= answer.keys()
    assert answer["provenance"].keys() == {"base_model", "adapter", "index_commit", "pending"}
    assert answer["timings"].keys() == {
        "retrieve_ms",
        "first_token_ms",
        "total_ms",
        "prompt_tokens",
        "completion_tokens",
    }
    for citation in answer["citations"]:
        lines = (shop / citation["path"]).read_text().splitlines()
        assert 1 <= citation["start_line"] <= citation["end_line"] <= len(lines)


def test_ask_streams_then_shows_what_it_rests_on(shop: Path, base_model: BaseModel) -> None:
    done = inhouse("ask", "Who books couriers?", "--repo", str(shop))
    assert done.returncode == 0
    assert "shipping.py:" in done.stdout
    assert "SmolLM2-135M-Instruct, adapter none, index " in done.stdout


def test_in_a_terminal_the_progress_bar_is_gone_before_the_answer_begins(shop: Path, base_model: BaseModel) -> None:
    (shop / "new_module.py").write_text("def new():\n    return 1\n")
    shown = in_a_terminal("-m", "inhouse_server.cli", "ask", "Who books couriers?", "--repo", str(shop))
    (shop / "new_module.py").unlink()
    bar, answer = "━".encode(), b"SmolLM2-135M-Instruct, adapter none"
    assert bar in shown
    assert answer in shown
    # Between the last bar and the provenance lies the whole answer: several hundred bytes, never redrawn over.
    assert shown.rindex(answer) - shown.rindex(bar) > 200
    assert shown.rindex(bar) < shown.rindex(b"shipping.py:")


def test_dataset_stats_writes_nothing(shop: Path, base_model: BaseModel) -> None:
    assert inhouse("dataset", "stats", "--repo", str(shop)).returncode == 1
    assert not (shop / ".inhouse" / "runs").exists()


def test_one_training_command_at_a_time(shop: Path, base_model: BaseModel) -> None:
    json_of("index", "--repo", str(shop))
    with FileLock(shop / ".inhouse" / "retrain.lock"):
        for command in (["train"], ["retrain"], ["dataset", "build"]):
            done = inhouse(*command, "--repo", str(shop))
            assert done.returncode == 1
            assert "being retrained already" in done.stderr


def test_one_sync_at_a_time(shop: Path) -> None:
    (shop / ".inhouse").mkdir(exist_ok=True)
    with FileLock(shop / ".inhouse" / "sync.lock"):
        done = inhouse("sync", "--repo", str(shop), INHOUSE_FORGE_KIND="gitlab", INHOUSE_FORGE_PROJECT="acme/shop")
    assert done.returncode == 1
    assert "Another 'inhouse sync' is at work here" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["search"], 2, "query"),
        (["search", " "], 2, "the query is empty"),
        (["search", "x", "--limit", "0"], 2, "limit"),
        (["nonsense"], 2, "nonsense"),
        (["adapters", "show", "nobody"], 1, "nobody"),
        (["adapters", "promote", "../../etc"], 1, "../../etc"),
        (["ask", ""], 2, "the question is empty"),
        (["ask", " \n"], 2, "the question is empty"),
        (["ask", "x", "--adapter", "nobody"], 1, "nobody"),
        (["retrain", "--recipe", "nobody"], 2, "nobody"),
        (["train", "--recipe", "cpu-tral"], 2, "Did you mean 'cpu-trial'?"),
        (["dataset", "stats", "--recipe", "none.toml"], 2, "There is no file none.toml"),
        (["sweep", "nobody"], 2, "nobody"),
        (["sweep", "--timeout", "7x"], 2, "'7x' is not a length of time"),
        (["retrain", "--every", "7x"], 2, "'7x' is not a length of time"),
        (["retrain", "--every", "0d"], 2, "'0d' is not longer than 0"),
        (["token", "create", "bob", "--expires", "0d"], 2, "'0d' must be longer than 0"),
        (["token", "create", "bob", "--expires", "0"], 2, "'0' must be longer than 0"),
        (["token", "create", "bob", "--expires", "soon"], 2, "'soon' is not a length of time"),
        (
            ["token", "create", "bob", "--scope", "metrcs"],
            2,
            "'metrcs' is not known. Did you mean 'metrics'? There are ask",
        ),
        (["retrain", "--recipe", "default-7b"], 1, "is for Qwen/Qwen2.5-Coder-7B-Instruct"),
        (["serve", "--port", "99999"], 2, "--port"),
        (["sync"], 1, "No forge is configured"),
        (["lsp", "--server", "http://127.0.0.1:9"], 1, "token"),
    ],
)
def test_wrong_use_is_told_plainly(shop: Path, arguments: list[str], code: int, told: str) -> None:
    done = inhouse(*arguments, "--repo", str(shop)) if arguments != ["nonsense"] else inhouse(*arguments)
    assert done.returncode == code
    assert told in done.stderr
    assert "Value error" not in done.stderr


def test_an_empty_question_is_refused_before_anything_is_looked_at(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "unread")
    assert inhouse("ask", " ", "--repo", str(root)).returncode == 2
    assert not (root / ".inhouse").exists()
    assert inhouse("ask", "", "--repo", str(tmp_path)).returncode == 2, "the question comes before the repository"


def test_the_version_is_told(tmp_path: Path) -> None:
    done = inhouse("--version")
    assert (done.returncode, done.stdout) == (0, f"inhouse {VERSION}, Python {platform.python_version()}\n")


def test_outside_a_repository(tmp_path: Path) -> None:
    done = inhouse("index", "--repo", str(tmp_path))
    assert done.returncode == 1
    assert "not inside a git work tree" in done.stderr
    here = subprocess.run(
        [sys.executable, "-m", "inhouse_server.cli", "status"], cwd=tmp_path, capture_output=True, text=True
    )
    assert f"error: {tmp_path} is not inside a git work tree." in here.stderr


def test_a_repository_without_commits(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    done = inhouse("index", "--repo", str(tmp_path))
    assert done.returncode == 1
    assert "no commit" in done.stderr


def test_too_short_a_history_to_train_on(shop: Path, base_model: BaseModel) -> None:
    done = inhouse("retrain", "--repo", str(shop))
    assert done.returncode == 1
    assert "too short" in done.stderr


def test_init_writes_a_file_that_is_then_used(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "fresh")
    assert inhouse("init", "--repo", str(root)).returncode == 0
    again = inhouse("init", "--repo", str(root))
    assert (again.returncode, "exists already" in again.stderr) == (1, True)
    settings = root / "inhouse.toml"
    settings.write_text(settings.read_text().replace('# state_dir = ".inhouse"', 'state_dir = ".cache/inhouse"'))
    assert inhouse("index", "--repo", str(root)).returncode == 0
    assert (root / ".cache" / "inhouse" / "catalog.sqlite").exists()
    assert not (root / ".inhouse").exists()


def test_init_says_what_it_found(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "fresh")
    git(root, "remote", "add", "origin", "git@github.example.org:acme/shop.git")
    (root / "docs").mkdir()
    detected = json_of("init", "--repo", str(root))["detected"]
    assert detected["exclude"] == "2 file(s) to learn from." and detected["wiki"] == "docs/ here."
    text = (root / "inhouse.toml").read_text()
    for line in ('# kind = "github"', '# project = "acme/shop"', '# url = "https://github.example.org/api/v3"'):
        assert f"{line}\n" in text
    assert "no NVIDIA GPU" in detected["recipe"] or shutil.which("nvidia-smi")
    found = json_of("search", "which port does the server listen on", "--repo", str(root))
    assert "inhouse.toml" not in {hit["path"] for hit in found["results"]}, "its comments are not the house's code"


@pytest.mark.parametrize(
    ("remote", "told"),
    [
        ("git@github.com-work:acme/shop.git", ("github", "acme/shop", None)),
        ("ssh://git@ssh.github.com:443/acme/shop.git", ("github", "acme/shop", None)),
        ("https://gitlab.example.org/acme/shop.git", ("gitlab", "acme/shop", "https://gitlab.example.org/api/v4")),
    ],
)
def test_init_knows_the_site_of_a_remote(tmp_path: Path, remote: str, told: tuple[str, str, str | None]) -> None:
    root = make_repository(tmp_path / "fresh")
    git(root, "remote", "add", "origin", remote)
    found = _of_forge(Repository.open(root))
    values = tuple(found[key].value if key in found else None for key in ("forge.kind", "forge.project", "forge.url"))
    assert values == told


def test_an_unknown_setting_stops_every_command(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "wrong")
    (root / "inhouse.toml").write_text("pasages = 3\n")
    done = inhouse("search", "x", "--repo", str(root))
    assert done.returncode == 1
    assert "inhouse.toml:1" in done.stderr


def test_the_state_is_ignored_by_git(shop: Path) -> None:
    json_of("index", "--repo", str(shop))
    assert git(shop, "status", "--porcelain") == ""


def test_a_port_in_use_is_told_plainly(shop: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = inhouse("serve", "--repo", str(shop), "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "Cannot listen on" in done.stderr


@pytest.mark.long  # tests/retrieval/test_index.py kills it at every stage
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_index_goes_on_after_a_signal(tmp_path: Path, signal_number: signal.Signals) -> None:
    root = make_repository(tmp_path / "stopped")
    for number in range(150):
        (root / f"module_{number}.py").write_text(f"def function_{number}():\n    return {number}\n" * 8)
    process = subprocess.Popen(
        [sys.executable, "-m", "inhouse_server.cli", "index", "--repo", str(root)],
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    said = ""
    while "embedding" not in said:
        said += process.stderr.readline()
    process.send_signal(signal_number)
    told = process.communicate(timeout=60)[1]
    assert "Traceback" not in told
    assert process.returncode == (-signal.SIGKILL if signal_number == signal.SIGKILL else 130)
    assert signal_number == signal.SIGKILL or "Cancelled." in told
    report = json_of("index", "--repo", str(root))
    assert report["files"] == 152
    assert json_of("search", "function_39", "--repo", str(root))["results"][0]["path"] == "module_39.py"


@pytest.fixture(scope="module")
def indexed_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A repository whose first `inhouse index` stands still while it embeds."""
    root = make_repository(tmp_path_factory.mktemp("large") / "large")
    for number in range(150):
        (root / f"module_{number}.py").write_text(f"def function_{number}():\n    return {number}\n" * 8)
    command = [sys.executable, "-m", "inhouse_server.cli", "index", "--repo", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "embedding" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGSTOP)
        yield root, process
        process.kill()


def test_status_search_and_ask_answer_while_another_process_indexes(
    indexed_elsewhere: tuple[Path, subprocess.Popen[str]], base_model: BaseModel
) -> None:
    root, process = indexed_elsewhere
    status = json_of("status", "--repo", str(root))
    assert (status["busy"]["command"], status["busy"]["pid"]) == ("index", process.pid)
    assert status["busy"]["stage"] == "embedding" and status["files"] == 152 and status["unembedded"] > 0
    told = inhouse("status", "--repo", str(root)).stdout
    assert re.search(rf"At work now: +'inhouse index' \(process {process.pid}\) is at work \(embedding", told)
    assert re.search(
        r"Index: +152 files in \d+ chunks, at commit [0-9a-f]{12}; \d+ chunk\(s\) have no vector yet", told
    )

    found = inhouse("search", "when do couriers come", "--repo", str(root), "--json")
    [best, *_] = json.loads(found.stdout)["results"]
    assert best["path"] == "shipping.py" and "dense" not in best["legs"]
    assert "searching what it has read so far, by words alone" in " ".join(found.stderr.split())
    answer = json_of("ask", "Who books couriers?", "--repo", str(root))
    assert answer["answer"] and "shipping.py" in {place["path"] for place in answer["citations"]}

    second = inhouse("index", "--repo", str(root))
    assert second.returncode == 1 and f"'inhouse index' (process {process.pid}) holds" in second.stderr

    process.send_signal(signal.SIGCONT)
    assert process.wait(120) == 0, "nobody disturbed it"
    status = json_of("status", "--repo", str(root))
    assert (status["busy"], status["unembedded"]) == (None, 0)
    found = json_of("search", "when do couriers come", "--repo", str(root))
    assert found["unembedded"] == 0 and "dense" in found["results"][0]["legs"]


def test_a_question_waits_for_a_command_that_holds_the_model_then_is_answered(
    shop: Path, base_model: BaseModel
) -> None:
    json_of("index", "--repo", str(shop))
    command = [sys.executable, "-m", "inhouse_server.cli", "ask", "Who books couriers?", "--repo", str(shop), "--json"]
    with Workspace.open(shop, "review"):
        waits = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert waits.stderr is not None
        assert "is at work; waiting until it" in waits.stderr.readline()
    out, _ = waits.communicate(timeout=120)
    assert waits.returncode == 0 and json.loads(out)["answer"]


def test_status_makes_nothing_and_reads_as_english(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "untouched")
    told = inhouse("status", "--repo", str(root)).stdout
    assert not (root / ".inhouse").exists()
    assert "none yet; 'inhouse index' makes it" in told and "none: the base model answers" in told
    assert not re.search(r"^\w+_\w+:", told, re.MULTILINE), "no key of the JSON"
    assert json_of("status", "--repo", str(root)).keys() >= {"root", "adapter", "index_commit", "busy", "owner"}


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.3])
def test_an_early_ctrl_c_is_no_traceback(shop: Path, delay_s: float) -> None:
    # Said from within ``main``: before it, an interrupt is Python's own to tell.
    code = (
        "import sys; from inhouse_server import cli; run = cli._run; "
        "cli._run = lambda given: print('here', flush=True) or run(given); sys.exit(cli.main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "status", "--repo", str(shop)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell in the background has its children ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    time.sleep(delay_s)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert "Traceback" not in told
    assert process.returncode == 130, "this soon it cannot be done"


def test_what_a_repository_is_called_does_not_steer_the_terminal(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "escapes")
    (root / "e\x1b]0;PWNED\x07.py").write_text("def pwned_zebra():\n    return '\x1b[31m'\n")
    done = inhouse("search", "pwned zebra", "--repo", str(root))
    assert done.returncode == 0 and "PWNED" in done.stdout
    assert "\x1b" not in done.stdout and "\x07" not in done.stdout


def test_a_terminal_gets_colours_links_and_reasons_and_no_escapes_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "import os\n\n\n\n\n\n\ndef total():\n    return '\x1b]0;PWNED\x07'  # sum\n"
    passage = {
        "path": "till\x1b[2J.py", "start_line": 10, "end_line": 18, "text": text, "source": "code", "updated": "",
        "legs": ["dense", "definition"], "changes": ["#4 Sum\x1b[31m\nup"], "newer_code": "",
    }  # fmt: skip
    show_passage(tmp_path, "where is the sum?", passage, 2)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "till�[2J.py:10-18"
    assert told[1:3] == ["    17  def total():", "    18      return '�]0;PWNED�'  # sum"], (
        "the lines that were asked for"
    )
    assert told[3:] == ["        found by its meaning, a name that it defines", "        changed by #4 Sum�[31m up"]

    code = "import json, sys; from inhouse_server.cli.found_passage import show_passage; from pathlib import Path; "
    code += "show_passage(Path(sys.argv[1]), 'where is the sum?', json.loads(sys.argv[2]), 2)"
    shown = in_a_terminal("-c", code, str(tmp_path), json.dumps(passage)).decode()
    assert f"\x1b]8;;{(tmp_path / 'till').as_uri()}" in shown, "opens on a click"
    assert re.search(r"\x1b\[[\d;]*mdef\b", shown), "coloured"
    assert "\x1b]0;" not in shown and "\x07" not in shown and "\x1b[2J" not in shown


def test_doctor_says_what_is_wrong_and_goes_on(shop: Path, tmp_path: Path) -> None:
    well = json_of_its_own("doctor", "--repo", str(shop))
    encoder = next(check["detail"] for check in well["checks"] if check["name"] == "encoder")
    assert encoder.startswith("all-MiniLM-L6-v2, ") and "int8" in encoder
    assert well["ok"] and {"git", "memory", "sqlite", "torch", "repository"} <= {c["name"] for c in well["checks"]}
    done = inhouse("doctor", "--repo", str(shop), "--json", PATH=str(tmp_path))
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1
    assert not checks["git"]["ok"] and not checks["repository"]["ok"] and checks["torch"]["ok"]


def test_doctor_fails_where_the_next_command_would(shop: Path, tmp_path: Path) -> None:
    done = inhouse("doctor", "--repo", str(shop), "--json", INHOUSE_BASE_MODEL="nope", INHOUSE_RECIPE="cpu-trail")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1 and "'nope' is neither known" in checks["base model"]["detail"]
    assert not checks["base model"]["ok"] and "cpu-trail" in checks["recipe"]["detail"] and not checks["recipe"]["ok"]
    git(tmp_path, "init", "--quiet", "empty")
    done = inhouse("doctor", "--repo", str(tmp_path / "empty"), "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert not checks["history"]["ok"] and "no commit yet" in checks["history"]["detail"] and checks["encoder"]["ok"]


def test_doctor_says_where_the_model_and_the_data_lie(
    shop: Path, base_model: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    json_of("index", "--repo", str(shop))
    details = {check["name"]: check["detail"] for check in json_of("doctor", "--repo", str(shop))["checks"]}
    place = re.escape(str(base_model.path))
    assert re.fullmatch(rf"{base_model.name}, in {place}, \d+ MB", details["base model"])
    assert re.fullmatch(rf"{re.escape(str(shop / '.inhouse'))}, \d+ [kM]B", details["data folder"])
    assert "last changes are found fast among so few" in details["history"]
    with monkeypatch.context() as patched:
        patched.setattr("inhouse_server.cli.doctor._MANY_COMMITS", 1)
        told = speed_of_history(Repository.open(shop))
        assert "commits; `git commit-graph write --reachable --changed-paths` lets hovers find" in told
    git(shop, "commit-graph", "write", "--reachable", "--changed-paths")
    assert speed_of_history(Repository.open(shop)).startswith("git keeps a filter of the paths")
    assert data_folder(tmp_path / "none") == f"{tmp_path / 'none'}, not made yet"
    asked = Settings.model_validate({"engine": {"kind": "openai", "url": "http://h/v1", "model": "m"}})
    assert place_of_base_model(asked).startswith(f"{base_model.name}, in {base_model.path}")
    monkeypatch.setenv("INHOUSE_CACHE", str(tmp_path))
    assert "answered by another server ([engine] kind = 'openai')" in place_of_base_model(asked)
    assert "not on this machine yet" in place_of_base_model(Settings())


def test_what_is_not_indexed_is_counted_by_reason_with_a_few_examples(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "pictures")
    for number in range(7):
        (root / f"picture{number}.bin").write_bytes(b"\0\1")
    (root / "poetry.lock").write_text("x = 1\n")
    (root / "notes.zzz").write_text("Couriers come on Mondays.\n")
    for number in range(2):
        (root / f"away{number}").symlink_to("billing.py")
    told = inhouse("index", "--repo", str(root)).stdout
    assert "  10 files were not indexed:\n" in told
    assert "    7 binary: 'picture0.bin', 'picture1.bin', 'picture2.bin', …\n" in told
    assert "    1 lock file: 'poetry.lock'\n" in told
    assert "    2 symbolic links: 'away0', 'away1'\n" in told
    assert told.endswith("    --verbose lists them all\n") and "picture3" not in told
    indented = "  cut by indentation, for want of a grammar: .zzz 1\n"
    assert indented in told and indented not in inhouse("index", "--repo", str(root)).stdout, "said where it is new"
    every = inhouse("index", "--verbose", "--repo", str(root)).stdout
    assert indented in every
    assert all(f"      'picture{number}.bin'\n" in every for number in range(7)) and "--verbose" not in every
    (root / "picture6.bin").unlink()
    assert len(json_of("index", "--repo", str(root))["skipped"]) == 9


def test_watching_ends_at_ctrl_c_without_a_warning(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "watched")
    command = [sys.executable, "-m", "inhouse_server.cli", "index", "--watch", "--repo", str(root)]
    with contextlib.ExitStack() as ends:
        watching = ends.enter_context(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                # Whoever runs the tests in a shell's background ignores SIGINT, and what it starts inherits that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
        )
        ends.callback(watching.kill)
        assert watching.stdout is not None and watching.stderr is not None
        while "Watching for changes" not in watching.stderr.readline():
            pass
        assert "2 files" in watching.stdout.readline() and "2 files" in watching.stdout.readline()
        time.sleep(1.5)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) in (0, 130) and "WARNING" not in watching.stderr.read()


def test_progress_says_how_far_it_is_and_when_it_ends() -> None:
    assert how_far("embedding", 1204, 5210) == "1,204 of 5,210 chunks"
    assert how_far("download base model", 12_400_000, 93_000_000) == "12 of 93 MB"
    assert how_far("reading the history", 0, None) == ""
    code = """
import time
from inhouse_server.cli.terminal import progress_bar
with progress_bar() as progress:
    for done in range(0, 20):
        progress("embedding", done * 32, 640)
        time.sleep(0.1)
"""
    shown = re.sub(rb"\x1b\[[\d;?]*[a-zA-Z]", b"", in_a_terminal("-c", code)).decode()
    assert re.search(r"embedding .* \d+ of 640 chunks 0:00:0\d left", shown)
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert piped.stderr == "embedding, 0 of 640 chunks …\n"


def test_commands_ask_the_owner_when_one_runs(tmp_path: Path, base_model: BaseModel) -> None:
    root = make_repository(tmp_path / "owned")
    (root / "logo\u2028x.png").write_bytes(b"\0\1")
    command = [sys.executable, "-m", "inhouse_server.cli", "serve", "--repo", str(root), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        url = json.loads(owner.stdout.readline())["url"]
        try:
            assert json_of("status", "--repo", str(root))["owner"] == url
            watching = inhouse("index", "--watch", "--repo", str(root))
            assert (watching.returncode, "error" in watching.stderr) == (0, False)
            assert "watches this repository already" in watching.stderr
            report = json_of("index", "--repo", str(root))
            assert [entry["path"] for entry in report["skipped"]] == ["logo\u2028x.png"]
            assert (
                json_of("search", "when do couriers come", "--repo", str(root))["results"][0]["path"] == "shipping.py"
            )
            users = json_of("search", "--users", "book_courier", "--repo", str(root))
            assert [place["path"] for place in users["definitions"]] == ["shipping.py"]
            answer = json_of("ask", "When do couriers come?", "--repo", str(root))
            assert answer["provenance"]["base_model"] == base_model.name and answer["citations"]
            weights = answering_weights("auto", False, base_model)
            assert json_of("status", "--repo", str(root))["weights"] == weights
            told = inhouse("status", "--repo", str(root)).stdout
            assert f"{base_model.name}, loaded{' in 8 bits' if weights == '8bit' else ''}\n" in told
            refused = inhouse("ask", "x", "--adapter", "nobody", "--repo", str(root))
            assert (refused.returncode, "nobody" in refused.stderr) == (1, True)
        finally:
            assert json_of("serve", "--stop", "--repo", str(root)) == {"stopped": True}
