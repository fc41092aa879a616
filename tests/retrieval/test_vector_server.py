"""Vectors with a real `chroma run` behind its gate: private, checked before use, and never needed for an answer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any

import httpx
import pytest

import inhouse_retrieval.mirror
import inhouse_retrieval.vector_client
from inhouse_retrieval import Encoder, Index, Repository
from inhouse_retrieval.errors import Busy, VectorsUnreachable
from inhouse_retrieval.vector_client import OwnVectorServer, VectorServer, vector_place
from inhouse_retrieval.vector_server import DATABASE, chroma_version, command, refusal
from inhouse_retrieval.vector_store import VectorFolder
from tests.retrieval.killable import HashEncoder
from tests.retrieval.trees import commit_all, write

COLLECTIONS = f"{DATABASE}/collections"


@contextmanager
def serving(folder: Path, place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server, as whoever runs it starts it."""
    process = subprocess.Popen(command(folder, place))
    try:
        deadline = time.monotonic() + 30
        while not place.exists() or asking(place).get("/inhouse").status_code != 200:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


def asking(place: Path) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(place), retries=5)
    return httpx.Client(transport=transport, base_url="http://inhouse", trust_env=False)


def chroma_of(gate: int) -> int:
    """The process of Chroma behind a gate."""
    return int(Path(f"/proc/{gate}/task/{gate}/children").read_text().split()[0])


@pytest.fixture(scope="module")
def run() -> Iterator[Path]:
    """A folder with a short path, since that of a socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="inhouse-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def place(run: Path) -> Iterator[Path]:
    """The socket of a server that runs for all tests of this module."""
    with serving(run / "data", run / "socket"):
        yield run / "socket"


def found(index: Index) -> tuple[str, ...]:
    """How the one file is found that only its vector leads to."""
    passages = index.search("shipping company pickup").passages
    return passages[0].legs if passages and passages[0].path == "shop/courier.py" else ()


def test_two_indexes_share_a_server(
    place: Path, root: Path, repository: Repository, state: Path, tmp_path: Path, encoder: Encoder
) -> None:
    with Index.open(repository, state, encoder, VectorServer(place, state)) as index:
        index.refresh()
        assert "dense" in found(index)
        other = tmp_path / "other"
        with Index.open(repository, other, encoder, VectorServer(place, other)) as second:
            second.refresh()
            (root / "shop/courier.py").unlink()
            commit_all(root, "No couriers")
            second.refresh()
            assert found(second) == ()
        write(root, {"shop/courier.py": 'def book_courier():\n    """Ask a courier to collect."""\n'})
        index.refresh()
        assert "dense" in found(index)
    names = [each["name"] for each in asking(place).get(COLLECTIONS).json()]
    assert len(names) == len(set(names)) >= 2


def test_it_is_reached_by_its_socket_alone(place: Path) -> None:
    assert place.stat().st_mode & 0o777 == 0o600
    gate = next(
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and str(place).encode() in _command_line(folder)
    )
    ours = Path("/proc/self/ns/net").readlink()
    assert {Path(f"/proc/{pid}/ns/net").readlink() for pid in (gate, chroma_of(gate))}.isdisjoint({ours})


def _command_line(folder: Path) -> bytes:
    try:
        return (folder / "cmdline").read_bytes()
    except OSError:
        return b""


CALLERS_MODEL = {"embedding_function": {"type": "known", "name": "sentence_transformer", "config": {}}}
REFUSED = {
    "a model of the caller's (CVE-2026-45829)": (
        "POST",
        COLLECTIONS,
        {"name": "a" * 8, "configuration": CALLERS_MODEL},
    ),
    "the same in a schema": ("POST", COLLECTIONS, {"name": "a" * 8, "schema": CALLERS_MODEL}),
    "beside the one configuration": (
        "POST",
        COLLECTIONS,
        {"name": "a" * 8, "configuration": {"hnsw": {"space": "cosine"}, **CALLERS_MODEL}},
    ),
    "later (CVE-2026-45833)": ("PUT", f"{COLLECTIONS}/{'0' * 36}", {"new_configuration": CALLERS_MODEL}),
    "a function": ("POST", f"{COLLECTIONS}/{'0' * 36}/functions/attach", {"function_id": "x"}),
    "everything dropped": ("POST", "/api/v2/reset", {}),
    "another database": ("POST", "/api/v2/tenants/default_tenant/databases", {"name": "another"}),
    "its documentation": ("GET", "/openapi.json", None),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_gate_refuses(what: str, place: Path) -> None:
    method, path, body = REFUSED[what]
    answer = asking(place).request(method, path, json=body)
    assert (answer.status_code, answer.json()["error"][:8]) == (403, "refused:")
    assert refusal("POST", path, b"{") is not None


def test_searches_go_on_by_words_while_it_is_gone(
    run: Path,
    root: Path,
    repository: Repository,
    state: Path,
    encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inhouse_retrieval.mirror, "_APART_S", 0.0)
    place = run / "again"
    with Index.open(repository, state, encoder, VectorServer(place, state)) as index:
        with serving(run / "first", place):
            index.refresh()
            assert "dense" in found(index)
        result = index.search("voucher")
        assert result.passages[0].path == "shop/basket.py"
        assert result.unembedded == 3, "nothing is found by its vector"
        write(root, {"shop/gift.py": 'def wrap_present():\n    """Paper and a ribbon."""\n'})
        with pytest.raises(VectorsUnreachable, match=r"does not answer.*Start it again"):
            index.refresh()
        assert index.search("ribbon").passages[0].path == "shop/gift.py"
        with serving(run / "second", place):  # with nothing in it
            assert "dense" in found(index)
            result = index.search("shipping company pickup")
            assert result.unembedded == 0
            report = index.refresh()
            assert (report.embedded, report.reused) == (0, 4)


def test_a_search_without_an_answer_leaves_a_refresh_its_store(
    place: Path, root: Path, repository: Repository, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives up the store that the refresh is filling, which goes on with another and keeps what was stored."""
    monkeypatch.setattr(inhouse_retrieval.mirror, "_MIRROR_A_STEP", 1)
    with Index.open(repository, state, HashEncoder(), VectorServer(place, state)) as index:
        index.refresh()
        generation = index._catalog.meta("generation")
        write(root, {f"shop/gift{number}.py": f"def wrap_{number}(): ...\n" for number in range(3)})

        def search_beside(stage: str, done: int, total: int | None) -> None:
            if stage == "storing vectors":
                with monkeypatch.context() as slow:
                    slow.setattr(inhouse_retrieval.vector_client, "_QUERY_S", 1e-6)
                    index._mirror._apart_until = 0.0
                    index.search("wrap a gift")

        index.refresh(search_beside)
        assert index._catalog.meta("generation") == generation, "nothing is uploaded again"
        assert index._mirror.opened_store().count() == 6


@pytest.mark.long
def test_a_collection_that_is_not_ours(place: Path, repository: Repository, state: Path, encoder: Encoder) -> None:
    with Index.open(repository, state, encoder, VectorServer(place, state)) as index:
        index.refresh()
    (ours,) = (each for each in asking(place).get(COLLECTIONS).json() if each["name"].startswith(_prefix(place, state)))
    asking(place).delete(f"{COLLECTIONS}/{ours['name']}")
    strange = {"name": ours["name"], "metadata": {"of": "somebody"}, "configuration": {"hnsw": {"space": "cosine"}}}
    assert asking(place).post(COLLECTIONS, json=strange).is_success
    with Index.open(repository, state, encoder, VectorServer(place, state)) as index:
        assert "dense" in found(index)
    names = [each["name"] for each in asking(place).get(COLLECTIONS).json()]
    assert ours["name"] in names, "what is another's stays"


def _prefix(place: Path, state: Path) -> str:
    store = VectorServer(place, state).open(10**6)
    store.close()
    (name,) = (each["name"] for each in asking(place).get(COLLECTIONS).json() if each["name"].endswith("-1000000"))
    return str(name).removesuffix("1000000")


class Impostor(BaseHTTPRequestHandler):
    """Whatever listens instead: says what ``greeting`` says, and takes whatever it is sent."""

    greeting: object = {}

    def do_GET(self) -> None:
        self._answer(self.greeting)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"id": "0", "metadata": {}})

    do_DELETE = do_GET

    def _answer(self, said: object) -> None:
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "local"

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        ([], "not inhouse's vector server"),
        ({"gate": 1, "chroma": "0.6.3"}, r"runs Chroma 0\.6\.3"),
        ({"gate": 1, "chroma": chroma_version()}, "CVE-2026-45829"),
    ],
)
def test_it_is_checked_before_it_is_used(greeting: object, said: str, run: Path, state: Path) -> None:
    state.mkdir()
    place = run / "impostor"
    place.unlink(missing_ok=True)
    with UnixStreamServer(str(place), type("Impostor", (Impostor,), {"greeting": greeting})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place.chmod(0o600)
        with pytest.raises(VectorsUnreachable, match=said):
            VectorServer(place, state).open(1)
        place.chmod(0o666)
        with pytest.raises(VectorsUnreachable, match="Others of this machine"):
            VectorServer(place, state).open(1)
        server.shutdown()
    with pytest.raises(VectorsUnreachable, match="does not answer"):
        place.chmod(0o600)
        VectorServer(place, state).open(1)
    place.unlink()
    with pytest.raises(VectorsUnreachable, match="No vector server is at"):
        VectorServer(place, state).open(1)


def test_what_the_setting_means(tmp_path: Path) -> None:
    assert isinstance(vector_place(None, tmp_path, tmp_path), VectorFolder)
    assert isinstance(vector_place("run/vectors.sock", tmp_path, tmp_path), VectorServer)
    own = vector_place("own", tmp_path, tmp_path)
    assert isinstance(own, OwnVectorServer)
    own.close()


def test_all_who_need_the_own_server_at_once_get_one(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = OwnVectorServer(state)
    started: list[subprocess.Popen[bytes]] = []

    class Started(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Started)
    try:
        with ThreadPoolExecutor(3) as pool:
            for prepared in [pool.submit(own.prepare) for _ in range(3)]:
                prepared.result()
        (gate,) = started
        assert gate.poll() is None
    finally:
        own.close()
    assert gate.poll() is not None
    with pytest.raises(VectorsUnreachable, match="was ended"):
        own.prepare()


def test_an_index_that_does_not_open_leaves_no_server(repository: Repository, state: Path) -> None:
    with Index.open(repository, state, HashEncoder()):
        own = OwnVectorServer(state)
        with pytest.raises(Busy):
            Index.open(repository, state, HashEncoder(), own)
        assert own._run is None


KILLED = """
import os, pathlib, signal, sys
from inhouse_retrieval.vector_client import OwnVectorServer
OwnVectorServer(pathlib.Path(sys.argv[1])).prepare()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.long
def test_an_owner_that_is_killed_takes_its_server_along(state: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(state)]).returncode == -signal.SIGKILL
    own = OwnVectorServer(state)
    try:
        own.prepare()
    finally:
        own.close()


@pytest.mark.long
def test_an_owner_keeps_its_own_server_running(repository: Repository, state: Path, encoder: Encoder) -> None:
    own = OwnVectorServer(state)
    with Index.open(repository, state, encoder, own) as index:
        index.refresh()
        assert "dense" in found(index)
        for damage in (False, True):
            gate = own._process
            assert gate is not None
            chroma = chroma_of(gate.pid)
            gate.send_signal(signal.SIGKILL)
            gate.wait()
            deadline = time.monotonic() + 5
            while Path(f"/proc/{chroma}").exists():  # it never outlives its gate
                assert time.monotonic() < deadline
                time.sleep(0.05)
            if damage:
                (state / "vector-server/data/chroma.sqlite3").write_bytes(b"no database" * 1000)
            assert found(index) or found(index), "gone once, back at the next search"
            assert index.refresh().embedded == 0
            assert "dense" in found(index)
        gate = own._process
    assert gate is not None
    assert gate.poll() is not None, "ended with the index"


CANARY = """
import pathlib
from sentence_transformers.models import Dense
pathlib.Path({marker!r}).write_text("loaded")
class Canary(Dense):
    pass
"""
LOAD = """
import sys
from sentence_transformers import SentenceTransformer
try:
    SentenceTransformer(sys.argv[1], trust_remote_code=True, device="cpu")
except Exception:
    pass
"""


@pytest.mark.long
def test_the_pinned_server_stores_a_callers_model_and_loads_nothing(tmp_path: Path) -> None:
    """Why there is a gate: `chroma run` takes the model of CVE-2026-45829 and answers 200. It has no way to load it."""
    marker, model = tmp_path / "marker", tmp_path / "model"
    model.mkdir()
    (model / "canary.py").write_text(CANARY.format(marker=str(marker)))
    (model / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "canary.Canary"}]))
    (model / "config.json").write_text("{}")
    chroma = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(tmp_path / "data")]
    inside = f"import sys; exec(open({str(tmp_path / 'ask.py')!r}).read())"
    kwargs = {"trust_remote_code": True}
    config = {"model_name": str(model), "device": "cpu", "normalize_embeddings": False, "kwargs": kwargs}
    chosen = {"embedding_function": {"type": "known", "name": "sentence_transformer", "config": config}}
    (tmp_path / "ask.py").write_text(
        f"""
import json, subprocess, time, httpx
from inhouse_retrieval.vector_server import _raise_loopback
_raise_loopback()
server = subprocess.Popen({[*chroma, "--port", "8000"]!r}, stdout=subprocess.DEVNULL)
at = httpx.Client(base_url="http://127.0.0.1:8000", trust_env=False)
for _ in range(600):
    try:
        at.get("/api/v2/heartbeat")
        break
    except httpx.HTTPError:
        time.sleep(0.05)
made = at.post({COLLECTIONS!r}, json={{"name": "canary", "configuration": {chosen!r}}})
there = {COLLECTIONS!r} + "/" + made.json()["id"]
said = [made.status_code]
record = {{"ids": ["1"], "documents": ["text"], "embeddings": [[0.1, 0.2]]}}
said.append(at.post(there + "/upsert", json=record).status_code)
said.append(at.post(there + "/query", json={{"query_texts": ["text"], "n_results": 1}}).status_code)
said.append(at.put(there, json={{"new_configuration": {chosen!r}}}).status_code)
server.terminate()
print(json.dumps([made.json()["configuration_json"]["embedding_function"]["name"], *said]))
"""
    )
    asked = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", inside],
        capture_output=True,
        text=True,
        check=True,
    )
    name, made, *_ = json.loads(asked.stdout.splitlines()[-1])
    assert (name, made) == ("sentence_transformer", 200)
    assert not marker.exists()
    subprocess.run([sys.executable, "-c", LOAD, str(model)], check=True)
    assert marker.exists(), "a Python client that builds what is stored runs it"
