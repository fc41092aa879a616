"""One owner of two real repositories: no route, header, model's name or token leads from one into the other."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any, cast

import httpx
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from starlette.testclient import TestClient, WebSocketDenialResponse

from inhouse_retrieval import EVERYWHERE, InhouseError, Within
from inhouse_server.access import Scope, TokenStore
from inhouse_server.answers import Question
from inhouse_server.cli import main
from inhouse_server.elsewhere import REPOSITORY_HEADER
from inhouse_server.engines.failures import Overloaded
from inhouse_server.engines.shared import BaseModels
from inhouse_server.holding import Holding
from inhouse_server.http_api import build_app
from inhouse_server.http_api.routes import ACCESS
from inhouse_server.owner import OwnerAddress, _hold_later, find_owner
from inhouse_server.workspace import Workspace
from inhouse_training import AdapterManifest, Registry, load_tokenizer, resolve_base_model

from ..training.adapters import random_adapter
from ..training.conftest import make_tiny
from .conftest import git, make_repository
from .listening import listening
from .test_parts_of_a_repository import BY_THEMSELVES, Echo
from .test_parts_of_a_repository import OTHERS as NO_PASSAGES

PORT = 8470
ADDRESS = f"http://127.0.0.1:{PORT}"
LSP = f"ws://127.0.0.1:{PORT}/lsp"
DAY = timedelta(days=1)
QUESTION = "How does `settle_ledger` settle the ledger of a customer?"
WORDS = {"shop": "quetzal", "till": "axolotl"}
"""Each stands in one repository and in nothing of the other."""
PASSAGE = {"path": "settle.py", "start_line": 1, "end_line": 2}
CHAT = {"model": "inhouse", "messages": [{"role": "user", "content": QUESTION}]}
SHOWS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "/inhouse/search": ("POST", {"query": QUESTION, "limit": 50}),
    "/inhouse/ask": ("POST", {"question": QUESTION, "passages": True}),
    "/inhouse/passage": ("POST", PASSAGE),
    "/inhouse/uses": ("POST", {"name": "settle_ledger"}),
    "/v1/chat/completions": ("POST", CHAT),
    "/v1/completions": ("POST", {"model": "inhouse", "prompt": QUESTION, "inhouse": {"retrieve": True}}),
}
"""Routes whose answers hold the word of the repository that they are about."""
OTHERS = {path: asked for path, asked in NO_PASSAGES.items() if path not in SHOWS}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Workspace]]:
    """``shop``, in which the owner was started, and ``till``."""
    workspaces = {}
    for name, word in WORDS.items():
        root = make_repository(tmp_path_factory.mktemp("firm") / f"{name}-{word}")
        (root / "inhouse.toml").write_text("[server]\nrequests_per_minute = 10000\n")
        (root / "settle.py").write_text(f'def settle_ledger({word}):\n    """Settle the ledger of a customer."""\n')
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "-m", f"Settle the ledger ({word})")
        workspaces[name] = Workspace.open(root, "test").among_others(name, BaseModels(64))
        workspaces[name]._engine = Echo()
        workspaces[name].refresh()
    yield workspaces
    for each in workspaces.values():
        each.close()


@pytest.fixture(scope="module")
def client(held: dict[str, Workspace]) -> TestClient:
    app = build_app(held["shop"], "owner-of-shop", "127.0.0.1", PORT, beside=[(held["till"], "owner-of-till")])
    return TestClient(app, ADDRESS, follow_redirects=False)


@pytest.fixture(scope="module")
def tokens(held: dict[str, Workspace]) -> dict[str, str]:
    store = TokenStore(held["shop"].state_dir / "tokens.json")
    opens = {"of shop": ["shop"], "of till": ["till"], "of both": ["shop", "till"], "of none": [], "of gone": ["gone"]}
    made = {who: store.create(who, [Scope.ASK], DAY, repositories=names)[0] for who, names in opens.items()}
    return made | {"from before": store.create("from before", [Scope.ASK], DAY)[0]}


def asking(token: str, repository: str | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} | ({REPOSITORY_HEADER: repository} if repository is not None else {})


def audit_lines(held: dict[str, Workspace]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (held["shop"].state_dir / "audit.jsonl").read_text().splitlines()]


def test_every_route_that_a_question_opens_is_tried() -> None:
    assert {path for path, access in ACCESS.items() if access.scope is Scope.ASK} == {*SHOWS, *OTHERS, *BY_THEMSELVES}


@pytest.mark.parametrize("route", [*SHOWS, *OTHERS])
def test_no_route_leads_into_the_other_repository(route: str, client: TestClient, tokens: dict[str, str]) -> None:
    method, body = (SHOWS | OTHERS)[route]
    path = route.replace("{name}", "chat.js")

    def asked(headers: dict[str, str]) -> httpx.Response:
        return client.request(method, path, json=body, headers=headers)

    for mine, other in (("shop", "till"), ("till", "shop")):
        for headers in (
            asking(tokens[f"of {mine}"]),
            asking(tokens[f"of {mine}"], mine),
            asking(tokens["of both"], mine),
            asking(f"owner-of-{mine}"),
        ):
            told = asked(headers)
            assert WORDS[other] not in told.text
            its_place = route == "/inhouse/status" and "owner" in headers["Authorization"]
            shows = route in SHOWS or its_place
            assert (WORDS[mine] in told.text) == shows, "a test that could not fail shows nothing"
        refused, unknown = (asked(asking(tokens[f"of {mine}"], name)) for name in (other, "nowhere"))
        assert refused.status_code == unknown.status_code == 404
        assert refused.text.replace(other, "nowhere") == unknown.text


@pytest.mark.parametrize("route", SHOWS)
def test_who_may_use_several_says_which(route: str, client: TestClient, tokens: dict[str, str]) -> None:
    method, body = SHOWS[route]
    told = client.request(method, route, json=body, headers=asking(tokens["of both"]))
    assert told.status_code == 400 and "shop, till" in told.text
    assert not any(word in told.text for word in WORDS.values())


def test_the_status_is_of_the_repository_that_was_asked(client: TestClient, tokens: dict[str, str]) -> None:
    for name, word in WORDS.items():
        for headers in (asking(f"owner-of-{name}"), asking("owner-of-shop", name)):
            assert word in client.get("/inhouse/status", headers=headers).json()["root"]
        own, one_of_both = (asking(tokens[who], name) for who in (f"of {name}", "of both"))
        mine, chosen = (client.get("/inhouse/status", headers=headers).json() for headers in (own, one_of_both))
        assert mine == chosen and "root" not in mine
    assert client.get("/inhouse/status", headers=asking(tokens["of both"])).status_code == 400


@pytest.mark.parametrize("route", SHOWS)
def test_a_token_opens_nothing_that_it_was_not_given(route: str, client: TestClient, tokens: dict[str, str]) -> None:
    method, body = SHOWS[route]
    for who in ("of none", "of gone"):
        assert client.request(method, route, json=body, headers=asking(tokens[who])).status_code == 403
        for name in WORDS:
            refused = client.request(method, route, json=body, headers=asking(tokens[who], name))
            assert refused.status_code == 404
    earlier = client.request(method, route, json=body, headers=asking(tokens["from before"]))
    assert WORDS["shop"] in earlier.text and WORDS["till"] not in earlier.text
    assert client.request(method, route, json=body, headers=asking(tokens["from before"], "till")).status_code == 404


def test_a_model_s_name_may_say_the_repository(client: TestClient, tokens: dict[str, str]) -> None:
    def says(model: str, **headers: str) -> httpx.Response:
        return client.post("/v1/chat/completions", json=CHAT | {"model": model}, headers=headers)

    for name, word in WORDS.items():
        for token in (tokens["of both"], tokens[f"of {name}"], "owner-of-shop"):
            assert word in says(f"{name}/inhouse", **asking(token)).text
    for model, headers in (
        ("till/inhouse", asking(tokens["of shop"])),
        ("nowhere/inhouse", asking(tokens["of shop"])),
        ("shop/inhouse", asking("owner-of-till")),
        ("till/inhouse", asking(tokens["of both"], "shop")),
        ("shop/till/inhouse", asking(tokens["of both"])),
    ):
        refused = says(model, **headers)
        assert refused.status_code == 404 and refused.json()["error"]["code"] == "model_not_found"


def test_the_models_of_each_repository_are_listed_for_who_may_use_it(
    held: dict[str, Workspace], client: TestClient, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed(headers: dict[str, str]) -> set[str]:
        return {model["id"] for model in client.get("/v1/models", headers=headers).json()["data"]}

    plain = listed(asking(tokens["of shop"]))
    assert not any("/" in name for name in plain)
    assert listed(asking(tokens["of both"])) == {f"{name}/{model}" for name in WORDS for model in plain}
    assert listed(asking(tokens["of both"], "till")) == plain
    assert listed(asking(tokens["of none"])) == set()
    told = client.get("/inhouse/repositories", headers=asking(tokens["of both"])).json()
    assert told == {"repositories": ["shop", "till"], "default": None, "failed": {}}
    assert client.get("/inhouse/repositories", headers=asking("owner-of-shop")).json()["default"] == "shop"
    assert client.get("/inhouse/repositories", headers=asking(tokens["of till"])).json()["repositories"] == ["till"]


async def test_the_tools_of_mcp(held: dict[str, Workspace], tokens: dict[str, str]) -> None:
    """A session belongs to one repository: also where its id is sent with the name of the other."""
    with listening(held["shop"], beside=[(held["till"], "owner-of-till")]) as served:
        for name, other in (("shop", "till"), ("till", "shop")):
            for headers in (asking(tokens[f"of {name}"]), asking(tokens["of both"], name)):
                async with (
                    create_mcp_http_client(headers) as http,
                    Client(streamable_http_client(f"{served.url}/mcp", http_client=http)) as tools,
                ):
                    for tool, arguments in (
                        ("search", {"query": QUESTION}),
                        ("ask", {"question": QUESTION}),
                        ("read_passage", PASSAGE),
                    ):
                        told = (await asyncio.wait_for(tools.call_tool(tool, arguments), 60)).model_dump_json()
                        assert WORDS[name] in told and WORDS[other] not in told, tool
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        for headers, status in ((asking(tokens["of both"]), 400), (asking(tokens["of shop"], "till"), 404)):
            assert httpx.post(f"{served.url}/mcp", json=call, headers=headers).status_code == status


def test_an_editor(client: TestClient, tokens: dict[str, str]) -> None:
    elsewhere = {"inhouseCheckout": {"rootUri": "file:///home/ada", "answersUri": "file:///a", "commit": None}}
    for name, other in (("shop", "till"), ("till", "shop")):
        for headers in (asking(tokens[f"of {name}"]), asking(tokens["of both"], name)):
            with client.websocket_connect(LSP, headers=headers) as session:
                told: list[Any] = []
                for number, (method, params) in enumerate(
                    (
                        ("initialize", {"capabilities": {}, "initializationOptions": elsewhere}),
                        ("inhouse/ask", {"question": QUESTION}),
                        ("workspace/executeCommand", {"command": "inhouse.ask", "arguments": [QUESTION]}),
                    )
                ):
                    session.send_json({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
                    while not told or told[-1].get("id") != number or "method" in told[-1]:
                        told.append(session.receive_json())
                assert WORDS[name] in json.dumps(told) and WORDS[other] not in json.dumps(told)
        for headers, status in (
            (asking(tokens[f"of {name}"], other), 404),
            (asking(tokens["of both"]), 400),
            (asking(tokens["of none"]), 403),
        ):
            with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect(LSP, headers=headers):
                pass
            assert refused.value.status_code == status


def test_a_stranger_cannot_tell_which_repositories_there_are(client: TestClient) -> None:
    """``/healthz`` proves for any name, and for each the same twice: nothing tells a name that exists."""

    def proofs(name: str) -> set[str]:
        asked = {"nonce": "00ff", "repository": name}
        return {client.get("/healthz", params=asked).json()["proof"] for _ in range(2)}

    told = [proofs(name) for name in (*WORDS, "nowhere", "")]
    assert all(len(each) == 1 for each in told) and len(set.union(*told)) == len(told)
    # The proof of a name that is none is not to be had as that of a nonce, either.
    assert proofs("nowhere") != {
        client.get("/healthz", params={"nonce": nonce}).json()["proof"] for nonce in ("of none: nowhere", "nowhere")
    }


def test_a_cookie_ends_with_the_token_that_was_shown_for_it(held: dict[str, Workspace], client: TestClient) -> None:
    """The owner's token of ``till`` is made anew; that of ``shop``, which other cookies are made from, stays."""
    client.cookies.clear()
    signed = client.get("/", params={"token": "owner-of-till"}).cookies
    client.cookies.clear()
    for its_own, status in (("owner-of-till", 200), ("another-of-till", 401)):
        app = build_app(held["shop"], "owner-of-shop", "127.0.0.1", PORT, beside=[(held["till"], its_own)])
        asked = TestClient(app, ADDRESS, cookies=signed).get("/inhouse/repositories", headers={"X-Inhouse": "1"})
        assert asked.status_code == status


def test_one_repository_alone_has_no_name_that_an_earlier_token_could_mean(held: dict[str, Workspace]) -> None:
    alone = Workspace(held["shop"].repository, held["shop"].settings, held["shop"].state_dir, "test")
    stranger = TestClient(build_app(alone, "owner", "127.0.0.1", PORT), ADDRESS)
    store = TokenStore(alone.state_dir / "tokens.json")
    for opens in (["shop"], [alone.root.name], ["till", "shop"], []):
        former = store.create(f"former {len(store.all())}", [Scope.ASK], DAY, repositories=opens)[0]
        assert stranger.get("/inhouse/status", headers=asking(former)).status_code == 403
    for name in ("shop", alone.root.name):
        assert stranger.get("/inhouse/status", headers=asking("owner", name)).status_code == 404
    none = {"repositories": [], "default": None, "failed": {}}
    assert stranger.get("/inhouse/repositories", headers=asking("owner")).json() == none
    assert audit_lines(held)[-1]["repository"] is None


def test_answers_of_all_repositories_wait_in_one_line(held: dict[str, Workspace]) -> None:
    models = BaseModels(0)
    asked = []
    for name, each in held.items():
        workspace = Workspace(each.repository, each.settings, each.state_dir, "test").among_others(name, models)
        workspace._engine, workspace._index = Echo(), each.index
        asked.append(workspace.assistant(EVERYWHERE).ask(Question("When?", retrieve=False), Event()))
    shop, till = asked
    next(shop)
    with pytest.raises(Overloaded):
        next(till)
    cast("Generator[object]", shop).close()
    with models.admission.enter():
        pass  # there is room again


def test_what_cannot_be_held_is_told_to_who_may_use_it(held: dict[str, Workspace], tokens: dict[str, str]) -> None:
    failed = {"till": InhouseError("/srv/till is no repository.")}
    asked = TestClient(build_app(held["shop"], "owner", "127.0.0.1", PORT, failed=failed), ADDRESS)
    for route, (method, body) in (SHOWS | OTHERS).items():
        path = route.replace("{name}", "chat.js")
        told = [asked.request(method, path, json=body, headers=asking(tokens[who], "till")) for who in tokens]
        assert {each.status_code for each in told} <= {200, 400, 404, 503}
        assert not any("/srv" in each.text or WORDS["till"] in each.text for each in told)
        assert [who for who, each in zip(tokens, told, strict=True) if each.status_code != 404] == [
            "of till",
            "of both",
        ]
        if route in SHOWS:
            assert asked.request(method, path, json=body, headers=asking(tokens["of till"])).status_code == 503
            assert WORDS["shop"] in asked.request(method, path, json=body, headers=asking(tokens["of shop"])).text
    for who, reason in (("owner", "/srv/till is no repository."), (tokens["of both"], "")):
        assert asked.get("/inhouse/repositories", headers=asking(who)).json()["failed"] == {"till": reason}
    assert asked.get("/inhouse/repositories", headers=asking(tokens["of shop"])).json()["failed"] == {}


def test_a_folder_in_another_repository_is_not_that_repository(tmp_path: Path) -> None:
    root, outer = make_repository(tmp_path / "shop"), make_repository(tmp_path / "firm")
    (outer / "till").mkdir()
    (root / "inhouse.toml").write_text('[server.repositories]\nshop = "."\ntill = "../firm/till"\n')
    with Holding(root) as holding:
        assert [each.name for each in holding.workspaces] == ["shop"]
        assert "lies in that of" in str(holding.failed["till"])


def test_a_copied_token_opens_no_second_repository(tmp_path: Path) -> None:
    """It would lead what a checkout asks to the other one."""
    root, other = make_repository(tmp_path / "shop"), make_repository(tmp_path / "till")
    (root / "inhouse.toml").write_text('[server.repositories]\nshop = "."\ntill = "../till"\n')
    for each in (root, other):
        Workspace.open(each, "test").close()
        (each / ".inhouse" / "token").write_text("the-same-token")
    with Holding(root) as holding:
        assert "has the same token" in str(holding.failed["till"])
        (other / ".inhouse" / "token").unlink()
        assert [each.name for each in holding.try_again()] == ["till"]


def test_a_repository_that_is_busy_is_held_once_it_is_free(tmp_path: Path) -> None:
    root, other = make_repository(tmp_path / "shop"), make_repository(tmp_path / "till")
    (root / "inhouse.toml").write_text('[server.repositories]\ntill = "../till"\nshop = "."\n')
    with Workspace.open(other, "retrain"):
        with Holding(root) as ended:
            pass
        holding = Holding(root)
        assert "'inhouse retrain'" in str(holding.failed["till"])
        assert holding.try_again() == []
    with holding:
        (late,) = holding.try_again()
        assert (late.name, late.root, holding.failed) == ("till", other, {})
        assert [each.name for each in holding.workspaces] == ["shop", "till"]
    assert ended.try_again() == [], "an owner that stops takes nothing more"
    for free in (other, root):
        Workspace.open(free, "test").close()


def test_a_browser_stays_in_the_repository_of_its_token(
    held: dict[str, Workspace], client: TestClient, tokens: dict[str, str]
) -> None:
    page = {"X-Inhouse": "1"}
    for token, opens in (("owner-of-till", ["till"]), (tokens["of till"], ["till"]), ("owner-of-shop", [*WORDS])):
        client.cookies.clear()
        assert client.get("/", params={"token": token}).status_code == 303
        assert client.get("/inhouse/repositories", headers=page).json()["repositories"] == opens
        refused = client.get("/inhouse/status", headers=page | {REPOSITORY_HEADER: "shop"})
        assert (refused.status_code == 200) == ("shop" in opens)
    client.cookies.clear()


def test_the_audit_log_and_the_metrics_say_which_repository(
    held: dict[str, Workspace], client: TestClient, tokens: dict[str, str]
) -> None:
    client.post("/v1/chat/completions", json=CHAT | {"model": "till/inhouse"}, headers=asking(tokens["of both"]))
    client.get("/inhouse/status", headers=asking(tokens["of shop"], "till"))
    by_model, refused = audit_lines(held)[-2:]
    assert (by_model["name"], by_model["repository"], by_model["status"]) == ("of both", "till", 200)
    assert (refused["name"], refused["repository"], refused["status"]) == ("of shop", None, 404)
    store = TokenStore(held["shop"].state_dir / "tokens.json")
    for opens, hidden in ((["shop", "till"], None), (["till"], "shop"), ([], "till")):
        scraper = store.create(f"scraper {len(opens)}", [Scope.METRICS], DAY, repositories=opens)[0]
        seen = client.get("/metrics", headers=asking(scraper)).text
        assert "inhouse_answering" in seen
        assert hidden is None or f'repository="{hidden}"' not in seen
        assert all(f'inhouse_repository_answers_total{{reason="stop",repository="{name}"}}' in seen for name in opens)


def test_only_who_may_use_every_repository_stops_the_owner(held: dict[str, Workspace], client: TestClient) -> None:
    store = TokenStore(held["shop"].state_dir / "tokens.json")
    one = store.create("of one", [Scope.ADMIN], DAY, repositories=["till"])[0]
    every = store.create("of every", [Scope.ADMIN], DAY, repositories=["till", "shop"])[0]
    for token, status in ((one, 403), (every, 200), ("owner-of-till", 200)):
        assert client.post("/inhouse/shutdown", headers=asking(token)).status_code == status


def test_a_part_is_of_one_repository(held: dict[str, Workspace]) -> None:
    store = TokenStore(held["shop"].state_dir / "tokens.json")
    with pytest.raises(InhouseError, match="only be for that one"):
        store.create("part", [Scope.ASK], DAY, Within.of(["settle.py"]), ["shop", "till"])


@pytest.fixture
def firm(tmp_path: Path) -> Iterator[tuple[dict[str, Path], dict[str, tuple[Registry, list[str]]]]]:
    """Two checkouts with adapters of one small base model, and a running owner of both, started in the first."""
    folder = make_tiny(tmp_path / "tiny", load_tokenizer(resolve_base_model()), initializer_range=0.2)
    base = resolve_base_model(str(folder))
    roots, registries = {}, {}
    for name, ranks in (("shop", (4, 8)), ("till", (16,))):
        root = roots[name] = make_repository(tmp_path / name)
        table = '[server.repositories]\nshop = "."\ntill = "../till"\n' if name == "shop" else ""
        (root / "inhouse.toml").write_text(f"base_model = '{folder}'\n[answer]\npassages = 0\n{table}")
        registry, manifest = Registry(root / ".inhouse" / "adapters"), AdapterManifest(base.name, base.sha256, "abc")
        made = [random_adapter(base, tmp_path / f"made{rank}", r=rank) for rank in ranks]
        registries[name] = registry, [registry.add(each, manifest).version for each in made]
    command = [sys.executable, "-m", "inhouse_server.cli", "serve", "--repo", str(roots["shop"]), "--port", "0"]
    with subprocess.Popen(command) as process:
        try:
            owner_of(roots["till"])
            yield roots, registries
        finally:
            process.terminate()


def owner_of(root: Path) -> OwnerAddress:
    """The owner of a repository, once it answers: it is slow while it loads its model beside other tests."""
    deadline = time.monotonic() + 120
    while (owner := find_owner(root / ".inhouse")) is None:
        assert time.monotonic() < deadline, "the owner did not come up"
        time.sleep(0.1)
    return owner


def answer_of(owner: OwnerAddress, adapter: str = "current") -> tuple[str, str | None]:
    """An answer's text, and the adapter that it says produced it; the problem and "error" where there is none."""
    body = {"question": "When do couriers come?", "adapter": adapter, "max_tokens": 24}
    headers = {"Authorization": f"Bearer {owner.token}"}
    told = httpx.post(f"{owner.url}/inhouse/ask", json=body, headers=headers, timeout=300, trust_env=False).text
    name, data = told.strip().split("\n\n")[-1].split("\n")
    last = json.loads(data.removeprefix("data: "))
    if name == "event: error":
        return last["problem"], "error"
    return last["answer"], last["provenance"]["adapter"]


def test_each_checkout_finds_the_owner_and_a_swap_in_one_is_none_in_the_other(
    firm: tuple[dict[str, Path], dict[str, tuple[Registry, list[str]]]], capsys: pytest.CaptureFixture[str]
) -> None:
    roots, registries = firm
    shop, till = (owner_of(roots[name]) for name in ("shop", "till"))
    assert shop.url == till.url and shop.token != till.token
    (mine, (first, second)), (theirs, (third,)) = registries["shop"], registries["till"]
    plain = answer_of(till)
    assert plain[1] is None and answer_of(till, third)[1] == third and answer_of(shop, first)[1] == first
    assert [answer_of(till, first)[1], answer_of(shop, third)[1]] == ["error", "error"]
    theirs.promote(third)
    tuned = answer_of(till)
    assert tuned[1] == third and tuned[0] != plain[0]
    seen = set()
    for version in (first, second, first):
        mine.promote(version)
        text, adapter = answer_of(shop)
        assert adapter == version and answer_of(till) == tuned
        seen.add(text)
    assert len(seen) == 2 and tuned[0] not in seen, "mixed answers could not be told"
    for name in roots:
        assert main(["status", "--repo", str(roots[name]), "--json"]) == 0
        assert Path(json.loads(capsys.readouterr().out)["root"]) == roots[name]
    for name, warned in (("shop", False), ("till", True)):
        asked = ["token", "create", "who", "--repo", str(roots[name])]
        assert main([*asked, *(["--repository", "shop"] if name == "shop" else [])]) == 0
        assert ("--repository till" in capsys.readouterr().err) == warned, "no server reads the tokens made in till"
    assert main(["serve", "--repo", str(roots["till"]), "--port", "0"]) != 0, "it is held"
    owner_of(roots["till"])
    assert main(["serve", "--stop", "--repo", str(roots["till"])]) == 0
    assert find_owner(roots["shop"] / ".inhouse") is None


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('till = "../till"', "does not name"),
        ('shop = "."\nagain = "../shop"', "names a repository twice"),
        ('"../x" = "."', "not usable"),
    ],
)
def test_a_table_that_cannot_be_served(
    tmp_path: Path, table: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_repository(tmp_path / "shop")
    make_repository(tmp_path / "till")
    (root / "inhouse.toml").write_text(f"[server.repositories]\n{table}\n")
    assert main(["serve", "--repo", str(root), "--port", "0"]) != 0
    assert re.search(said, capsys.readouterr().err)


def test_the_command_gives_no_repository_that_it_was_not_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_repository(tmp_path / "shop")
    create = ["token", "create", "Ada", "--repo", str(root)]
    assert main([*create, "--repository", "shop"]) == 1
    assert "names no 'shop'" in capsys.readouterr().err
    (root / "inhouse.toml").write_text('[server.repositories]\nshop = "."\ntill = "../till"\n')
    assert main(create) == 1
    assert "Add --repository; there are shop, till" in capsys.readouterr().err
    assert main([*create, "--repository", "tilt"]) == 1
    assert main([*create, "--repository", "till", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["repositories"] == ["till"]
    assert main(["token", "list", "--repo", str(root)]) == 0
    assert "ask in till" in capsys.readouterr().out


async def test_a_full_disk_keeps_one_waiting_and_nobody_else(
    held: dict[str, Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late:
        def __init__(self) -> None:
            self.failed = ["shop", "till"]

        def try_again(self) -> list[Workspace]:
            names, self.failed = self.failed, []
            return [held[name] for name in names]

    asked: list[str] = []

    def late(workspace: Workspace) -> None:
        asked.append(workspace.name)
        if asked.count("shop") < 3 and workspace is held["shop"]:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("inhouse_server.owner.TRY_AGAIN_S", 0.01)
    await _hold_later(cast("Holding", Late()), late)
    assert asked == ["shop", "till", "shop", "shop"]
