"""Two small repositories, one owner process, two tokens: what is asked of one never shows the other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from inhouse_server.cli import main
from inhouse_server.elsewhere import REPOSITORY_HEADER
from inhouse_server.owner import find_owner

from .conftest import git, make_repository
from .editor import editor
from .speaker import Speaker, speaking

INHOUSE = [sys.executable, "-m", "inhouse_server.cli"]
QUESTION = "How does `settle_ledger` settle the ledger of a customer?"
WORDS = {"shop": "quetzal", "till": "axolotl"}
"""Each is a folder of one repository, and a word in its file."""
TABLE = '[server.repositories]\nshop = "."\ntill = "../till"\n'


def settings(model: Speaker, table: str = "") -> str:
    return f'[engine]\nkind = "openai"\nurl = "http://127.0.0.1:{model.server_port}/v1"\nmodel = "speaker"\n{table}'


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """`inhouse serve` of the repository at ``root``; the address."""
    with subprocess.Popen([*INHOUSE, "serve", "--repo", str(root), "--port", "0"]) as process:
        try:
            deadline = time.monotonic() + 120
            while (owner := find_owner(root / ".inhouse")) is None:
                assert time.monotonic() < deadline and process.poll() is None, "the owner did not come up"
                time.sleep(0.1)
            yield owner.url
        finally:
            process.terminate()


class Member:
    """Whoever has a token, over HTTP."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token

    def post(self, route: str, body: dict[str, Any], repository: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._token}"} | ({REPOSITORY_HEADER: repository} if repository else {})
        return httpx.post(f"{self._url}{route}", json=body, headers=headers, timeout=300, trust_env=False)

    def finds(self, repository: str | None = None) -> set[str]:
        """Paths that a search finds. It answers from what has been read so far, which at first is nothing."""
        deadline = time.monotonic() + 120
        while True:
            found = self.post("/inhouse/search", {"query": QUESTION, "limit": 50}, repository).raise_for_status()
            paths = {each["path"] for each in found.json()["results"]}
            if paths or time.monotonic() > deadline:
                return paths
            time.sleep(0.2)

    def cites(self, repository: str | None = None) -> set[str]:
        """Paths that an answer rests on."""
        told = self.post("/inhouse/ask", {"question": QUESTION}, repository).raise_for_status().text
        finished = re.search(r"^event: finished\ndata: (.*)$", told, re.M)
        assert finished, told
        return {each["path"] for each in json.loads(finished[1])["citations"]}


@pytest.fixture
def model() -> Iterator[Speaker]:
    """Both repositories' model server: it notes what it is asked."""
    with speaking() as running:
        yield running


@pytest.fixture
def roots(tmp_path: Path, model: Speaker) -> dict[str, Path]:
    """``shop``, whose settings name both, and ``till``, whose settings cannot be read."""
    made = {}
    for name, word in WORDS.items():
        root = made[name] = make_repository(tmp_path / name)
        (root / word).mkdir()
        (root / word / "settle.py").write_text(
            f'def settle_ledger({word}):\n    """Settle the ledger of a customer."""\n'
        )
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "-m", f"Settle the ledger ({word})")
    (made["shop"] / "inhouse.toml").write_text(settings(model, TABLE))
    (made["till"] / "inhouse.toml").write_text("base_model = \n")
    return made


def token(root: Path, name: str, repositories: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    named = [part for each in repositories for part in ("--repository", each)]
    assert main(["token", "create", name, "--repo", str(root), "--json", *named]) == 0
    return str(json.loads(capsys.readouterr().out)["token"])


def status_of(root: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["status", "--repo", str(root), "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_two_repositories_from_a_broken_one_to_one_that_was_taken_out(
    roots: dict[str, Path], model: Speaker, capsys: pytest.CaptureFixture[str]
) -> None:
    shop, till = roots["shop"], roots["till"]
    ada, grace = (token(shop, *given, capsys) for given in (("Ada", ["shop"]), ("Grace", ["shop", "till"])))
    with serving(shop) as url:
        of_shop, of_both = Member(url, ada), Member(url, grace)

        # One whose settings cannot be read keeps nobody from the other.
        assert "quetzal/settle.py" in of_shop.finds() and "quetzal/settle.py" in of_both.cites("shop")
        refused = of_both.post("/inhouse/search", {"query": QUESTION}, "till")
        assert refused.status_code == 503 and str(till) not in refused.text
        unknown = of_shop.post("/inhouse/search", {"query": QUESTION}, "till")
        assert unknown.status_code == 404, "broken or not, it does not exist for who may not use it"
        told = status_of(shop, capsys)["repositories"]
        assert told["shop"]["root"] == str(shop) and "inhouse.toml is not valid TOML" in told["till"]["problem"]
        assert main(["status", "--repo", str(shop)]) == 0
        shown = capsys.readouterr().out
        assert f"repository shop: {shop}; no adapter; " in shown and "repository till: not served: " in shown

        # Mended, it is served without a new start.
        (till / "inhouse.toml").write_text(settings(model))
        deadline = time.monotonic() + 120
        while of_both.post("/inhouse/search", {"query": QUESTION}, "till").status_code == 503:
            assert time.monotonic() < deadline, "it was not tried again"
            time.sleep(0.2)
        for name, other in (("shop", "till"), ("till", "shop")):
            for seen in (of_both.finds(name), of_both.cites(name)):
                assert f"{WORDS[name]}/settle.py" in seen and not any(WORDS[other] in path for path in seen)
            prompt = json.dumps(model.asked[-1])
            assert WORDS[name] in prompt and WORDS[other] not in prompt
        assert of_shop.post("/inhouse/search", {"query": QUESTION}, "till").status_code == 404
        assert of_both.post("/inhouse/search", {"query": QUESTION}).status_code == 400, "it says which there are"
        assert status_of(shop, capsys)["repositories"]["till"]["root"] == str(till)
        mine = status_of(till, capsys)
        assert mine["root"] == str(till) and "repositories" not in mine, "a checkout's own token opens it alone"

    # Taken out of the settings, it is served to nobody, and a token for both is for the one.
    (shop / "inhouse.toml").write_text(settings(model, '[server.repositories]\nshop = "."\n'))
    with serving(shop) as url:
        of_shop, of_both = Member(url, ada), Member(url, grace)
        for seen in (of_shop.finds(), of_both.finds(), of_both.cites()):
            assert "quetzal/settle.py" in seen and "axolotl/settle.py" not in seen
        assert of_both.post("/inhouse/search", {"query": QUESTION}, "till").status_code == 404
        assert find_owner(till / ".inhouse") is None


async def test_an_editor_elsewhere_names_its_repository(
    roots: dict[str, Path], model: Speaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop, till = roots["shop"], roots["till"]
    (till / "inhouse.toml").write_text(settings(model))
    ada, grace = (token(shop, *given, capsys) for given in (("Ada", ["shop"]), ("Grace", ["shop", "till"])))
    away = tmp_path / "home" / "till"
    subprocess.run(["git", "clone", "-q", till, away], check=True)
    with serving(shop) as url:
        relay = [*INHOUSE, "lsp", "--repo", str(away), "--server", url]
        async with editor([*relay, "--repository", "till"], INHOUSE_TOKEN=grace) as client:
            await client.initialize(away, timeout=180)
            answer = await client.request("inhouse/ask", {"question": QUESTION}, timeout=180)
            assert (away / "axolotl" / "settle.py").as_uri() in {each["uri"] for each in answer["citations"]}
            assert "quetzal" not in json.dumps([answer, *model.asked])
        for options, who, said in (
            ([], grace, "--repository names none"),
            (["--repository", "till"], ada, "no repository of that name for this token"),
        ):
            async with editor([*relay, *options], INHOUSE_TOKEN=who) as client:
                refusal = await client.response(client.start("initialize", {"capabilities": {}}), 180)
                assert said in refusal["error"]["message"]
