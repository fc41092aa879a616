"""The chat page in Chromium, against the real server and model. Needs node, npm and Chromium; `make test-editors`."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from inhouse_training import AdapterManifest, Registry
from tests.server.house import INHOUSE, NAME, make_repository

pytestmark = pytest.mark.editors
HERE = Path(__file__).parent / "web"


@contextmanager
def owner_in_a_terminal(root: Path) -> Iterator[str]:
    """`inhouse serve` as a user starts it; the address that it prints for a browser."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([INHOUSE, "serve", "--repo", root, "--port", "0"], stderr=theirs)
    os.close(theirs)
    try:
        said = ""
        while (found := re.search(r"In a browser: (\S+)\s", said)) is None:
            said += os.read(ours, 4096).decode()
        yield found[1]
    finally:
        process.kill()
        process.wait(30)
        os.close(ours)


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one adapter version, which is not current."""
    root = make_repository(tmp_path_factory.mktemp("web") / "a shop")
    (root / "inhouse.toml").write_text('[answer]\nmax_tokens = 120\n\n[retrain]\nevery = "7d"\n', encoding="utf-8")
    adapter = root.parent / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    (adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
    gain = {"over_base": {"mean": 0.512, "low": 0.4, "high": 0.6}}
    manifest = AdapterManifest("SmolLM2-135M-Instruct", "0", "f" * 40, metrics={"gain": gain})
    Registry(root / ".inhouse" / "adapters").add(adapter, manifest)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts, with what they need."""
    for program in ("node", "npm", "chromium"):
        assert shutil.which(program), f"{program} is needed for this test: install it, or run `make test` alone"
    folder = Path(shutil.copytree(HERE, tmp_path_factory.mktemp("npm") / "web"))
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def seen(root: Path, folder: Path) -> dict[str, Any]:
    """What a user of the page sees, in the order of ``drive.mjs``."""
    with owner_in_a_terminal(root) as url:
        given = {"url": url, "chromium": shutil.which("chromium"), "file": NAME, "pictures": str(root.parent)}
        told: dict[str, Any] = json.loads(run("node", "drive.mjs", json.dumps(given), cwd=folder))
        told["token"] = url.partition("token=")[2]
    return told


def test_the_printed_address_signs_in_and_the_token_stays_nowhere(root: Path, seen: dict[str, Any]) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", seen["address"])
    assert seen["script_sees"] == "", "no script reads the cookie"
    assert seen["token"] == (root / ".inhouse" / "token").read_text()
    assert seen["token"] not in (root / ".inhouse" / "logs" / "owner.log").read_text()
    assert seen["stranger"] == 401


def test_nothing_comes_from_elsewhere_and_nothing_is_wrong(seen: dict[str, Any]) -> None:
    assert seen["fetched"] == [] and seen["problems"] == []


def test_an_answer_streams_and_says_what_it_rests_on(seen: dict[str, Any]) -> None:
    assert seen["question"] == "How is the tax\nadded to a price?"
    assert len(seen["grown"]) > 5
    assert re.fullmatch(
        r"Answered by SmolLM2-135M-Instruct with no adapter, index at [0-9a-f]{12}, \d+ changed files pending\.",
        seen["provenance"],
    )


def test_a_screen_reader_is_told_the_answer_once(seen: dict[str, Any]) -> None:
    def words(text: str) -> str:
        return re.sub(r"[\W_]+", "", text)

    assert words(seen["spoken"]) == words(seen["answer"])


def test_a_passage_opens_with_its_lines(seen: dict[str, Any]) -> None:
    place, lines = seen["passage"]
    assert place == f"{NAME}:1-3"
    assert lines.startswith("def price_with_tax(amount):")
    assert seen["why"].startswith("Found by: ")


def test_a_verdict_is_kept(root: Path, seen: dict[str, Any]) -> None:
    assert seen["kept"] == "Kept as not useful, on this machine."
    (line,) = (root / ".inhouse" / "feedback.jsonl").read_text(encoding="utf-8").splitlines()
    kept = json.loads(line)
    assert (kept["verdict"], kept["note"]) == ("not useful", "It is too long.")
    assert kept["provenance"]["base_model"] == "SmolLM2-135M-Instruct"


def test_an_answer_can_be_stopped_and_follows_the_turn_before(seen: dict[str, Any]) -> None:
    assert seen["stopped"] == "Stopped."
    assert [turn["role"] for turn in seen["history"]] == ["user", "assistant"]
    assert seen["history"][0]["content"] == seen["question"]


def test_two_models_answer_side_by_side(seen: dict[str, Any]) -> None:
    assert seen["turns"] == 0, "a new chat is empty"
    assert seen["asked"] == [
        {"adapter": "current", "retrieve": True, "history": []},
        {"adapter": "base", "retrieve": False, "history": []},
    ]
    first, second = seen["compared"]
    assert first["name"].startswith("current adapter (none yet), with ")
    assert second["name"] == "SmolLM2-135M-Instruct, without retrieval"
    assert second["provenance"].endswith("with no adapter, no retrieval.")
    assert second["left"] > first["left"]


def test_the_panel_shows_versions_index_and_retraining(seen: dict[str, Any]) -> None:
    assert "+0.512 nats per token (95 % interval +0.400 to +0.600)" in seen["status"]
    assert "2 files, " in seen["status"] and "Next retraining" in seen["status"]


def test_it_fits_a_telephone_and_the_dark(seen: dict[str, Any]) -> None:
    assert seen["wide"] == [0, 0, 0, 0], "nothing is wider than the screen"
    light, dark = seen["papers"]
    assert light != dark


def test_what_a_model_says_is_only_shown(seen: dict[str, Any]) -> None:
    assert seen["drawn"] == (
        "<h4>A &lt;b&gt;title&lt;/b&gt;</h4>"
        "<p>&lt;img src=x onerror=alert(1)&gt; [link](javascript:alert(1)) ![i](http://x.example/i.png)</p>"
        '<ol start="1"><li>one <strong>bold</strong> and <code>&lt;i&gt;</code><ul><li>inner</li></ul></li>'
        "<li>two more of two</li></ol><p>last  </p>"
        '<pre tabindex="0"><code>&lt;script&gt;alert(1)&lt;/script&gt;</code></pre>'
    )


def test_there_is_no_choice_of_repositories_where_there_is_one(seen: dict[str, Any]) -> None:
    assert seen["choice"] is False


def test_one_of_several_repositories_is_chosen(folder: Path, tmp_path: Path) -> None:
    shop = make_repository(tmp_path / "shop")
    make_repository(tmp_path / "till")
    named = '[server.repositories]\nshop = "."\ntill = "../till"\ngone = "../gone"\n'
    (shop / "inhouse.toml").write_text(f"[answer]\nmax_tokens = 8\n{named}", encoding="utf-8")
    with owner_in_a_terminal(shop) as url:
        given = json.dumps({"url": url, "chromium": shutil.which("chromium")})
        told = json.loads(run("node", "repositories.mjs", given, cwd=folder))
    assert told["problems"] == []
    assert told["first"] == ["shop", "shop"] and told["reloaded"] == ["till", "till"]
    assert told["offered"] == [["shop", False], ["till", False], ["gone (not served now)", True]]
    assert told["turns"] == 0, "what was said about one is not told to another"
    assert told["asked"] == [["shop", 0], ["till", 0]]


def test_a_page_of_another_port_reaches_nothing(seen: dict[str, Any]) -> None:
    assert set(seen["elsewhere"].values()) == {"refused"}


@pytest.fixture(scope="module")
def administered(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What whoever runs the server sees and does, in the order of ``admin.mjs``."""
    root = make_repository(tmp_path_factory.mktemp("admin") / "shop")
    adapter = root.parent / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    (adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
    metrics = {"gain": {"over_base": {"mean": 0.512, "low": 0.4, "high": 0.6}}, "gate": ["It is better."]}
    manifest = AdapterManifest(
        "SmolLM2-135M-Instruct", "0", "f" * 40, {"name": "cpu-trial"}, metrics=metrics, evaluated=True
    )
    version = Registry(root / ".inhouse" / "adapters").add(adapter, manifest).version
    run_folder = root / ".inhouse" / "runs" / "one"
    run_folder.mkdir(parents=True)
    times = {"started": "2026-01-01T02:00:00+00:00", "finished": "2026-01-01T02:07:00+00:00"}
    result = {"candidate": version, "decision": "rejected", "reasons": ["It is <b>worse</b>."], **times}
    (run_folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    script = "<script>document.title = 'it ran'</script>"
    (run_folder / "report.html").write_text(f"<title>The report</title>{script}", encoding="utf-8")
    square = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40" style="background: red"/>'
    (run_folder / "loss.svg").write_text(square, encoding="utf-8")
    with owner_in_a_terminal(root) as url:
        given = {"url": url, "chromium": shutil.which("chromium"), "version": version, "pictures": str(root.parent)}
        given["token"] = url.partition("token=")[2]
        told: dict[str, Any] = json.loads(run("node", "admin.mjs", json.dumps(given), cwd=folder))
    return {**told, "version": version}


def test_the_admin_page_shows_versions_plots_retrainings_and_usage(administered: dict[str, Any]) -> None:
    assert administered["fetched"] == [] and administered["problems"] == []
    assert administered["address"].endswith("/admin")
    assert "SmolLM2-135M-Instruct" in administered["facts"] and "Next retraining" in administered["facts"]
    adapter, base = administered["versions"]
    assert administered["version"] in adapter and "+0.512 (+0.400 to +0.600)" in adapter and "Promote" in adapter
    assert "(current)" in base and administered["drawn"] == "+0.512 (+0.400 to +0.600)"
    assert administered["plot"] > 0, "the picture is one"
    (retraining,) = administered["retrainings"]
    assert "7 min" in retraining and "It is <b>worse</b>." in retraining, "markup is shown, not obeyed"
    assert any("owner" in caller for caller in administered["callers"])
    assert administered["bars"].startswith("Answers by day")


def test_a_report_opens_and_runs_nothing(administered: dict[str, Any]) -> None:
    assert administered["report"] == ["The report", "null"], "an origin of its own, which no script leaves"


def test_a_version_is_promoted_with_a_token_and_rolled_back(administered: dict[str, Any]) -> None:
    version = administered["version"]
    assert "Make" in administered["asks"] and "changes nothing" in administered["asks"]
    assert administered["refused"] == "That is no valid token."
    said, row = administered["promoted"]
    assert said.startswith(f"{version} is current.") and version in row and "(current)" in row
    back, forth = administered["history"]
    assert "The base model" in back and version in forth and "by hand, with the owner's token" in forth


def test_the_admin_page_fits_a_telephone(administered: dict[str, Any]) -> None:
    assert set(administered["wide"]) == {0}, "nothing is wider than the screen"
