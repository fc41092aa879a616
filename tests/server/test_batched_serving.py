"""A served model that answers several clients together: streams, a cancellation, a promotion, and a full queue."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from inhouse_server.owner import OwnerAddress, find_owner
from inhouse_training import AdapterManifest, Registry, load_tokenizer, resolve_base_model

from ..training.adapters import random_adapter
from ..training.conftest import make_tiny
from .conftest import make_repository

STREAMS, WAITING, TOKENS = 8, 2, 32
ENDLESS = 1900
PATIENCE_S = 300
"""For what takes a second on a machine with nothing else to do."""


@pytest.fixture(scope="module", params=["full", "8bit"])
def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[OwnerAddress, Registry, str]]:
    """An owner of a small random model that answers together, and an adapter of it that is not promoted."""
    folder = tmp_path_factory.mktemp("batched")
    root = make_repository(folder / "shop")
    model = make_tiny(folder / "tiny", load_tokenizer(resolve_base_model()), initializer_range=0.2)
    (root / "inhouse.toml").write_text(
        f"base_model = '{model}'\n[answer]\npassages = 0\n[engine]\nbatched = 'on'\nwaiting = {WAITING}\n"
        f"weights = '{request.param}'\n"
    )
    base = resolve_base_model(str(model))
    registry = Registry(root / ".inhouse" / "adapters")
    manifest = AdapterManifest(base.name, base.sha256, "abc")
    version = registry.add(random_adapter(base, folder / "made", r=8), manifest).version
    command = [sys.executable, "-m", "inhouse_server.cli", "serve", "--repo", str(root), "--port", "0"]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + PATIENCE_S
        while (found := find_owner(root / ".inhouse")) is None:
            assert time.monotonic() < deadline and process.poll() is None, "the owner did not come up"
            time.sleep(0.1)
        yield found, registry, version
        process.terminate()


@pytest.fixture(autouse=True)
def nothing_promoted(house: tuple[OwnerAddress, Registry, str]) -> Iterator[None]:
    """The base model answers before and after each test."""
    _, registry, _ = house
    yield
    while registry.current() is not None:
        registry.rollback()


def client(owner: OwnerAddress) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{owner.url}/v1", api_key=owner.token, max_retries=0, timeout=PATIENCE_S)


def asked(number: int, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"When does courier {number} come?"}]
    return {"model": "inhouse", "messages": messages, "max_tokens": TOKENS, "stream": True, **more}


class Answer:
    """One streamed answer, read in a thread of its own."""

    def __init__(self, owner: OwnerAddress, number: int, **more: Any) -> None:
        self.text, self.ended, self.adapter = "", None, "nobody said"
        self.arrived: list[float] = []
        self.begun = threading.Event()
        self._asked = (owner, asked(number, **more))

    def read(self) -> Answer:
        owner, body = self._asked
        for chunk in client(owner).chat.completions.create(**body):
            self._take(chunk)
        return self

    def _take(self, chunk: Any) -> None:
        extra = chunk.model_extra or {}
        if "inhouse" in extra:
            self.adapter = extra["inhouse"]["provenance"]["adapter"]
        for choice in chunk.choices:
            self.ended = choice.finish_reason or self.ended
            if choice.delta.content:
                self.text += choice.delta.content
                self.arrived.append(time.monotonic())
                self.begun.set()


def alone(owner: OwnerAddress, numbers: range, model: str = "inhouse") -> list[str]:
    return [Answer(owner, number, model=model).read().text for number in numbers]


def test_eight_streams_at_once_are_what_they_are_alone(house: tuple[OwnerAddress, Registry, str]) -> None:
    owner, _, _ = house
    expected = alone(owner, range(STREAMS))
    assert len(set(expected)) == STREAMS, "mixed answers could not be told"
    with ThreadPoolExecutor(STREAMS) as pool:
        answers = list(pool.map(lambda number: Answer(owner, number).read(), range(STREAMS)))
    assert [answer.text for answer in answers] == expected
    assert {(answer.ended, answer.adapter) for answer in answers} == {("length", None)}
    last_to_begin = max(answer.arrived[0] for answer in answers)
    first_to_end = min(answer.arrived[-1] for answer in answers)
    assert last_to_begin < first_to_end, "made together, not one after the other"


def test_one_that_leaves_disturbs_nobody_and_is_not_answered_any_more(
    house: tuple[OwnerAddress, Registry, str],
) -> None:
    owner, _, _ = house
    expected = alone(owner, range(STREAMS - 1))
    before = figures(owner)["inhouse_answers_total", "cancelled"]
    headers = {"Authorization": f"Bearer {owner.token}"}
    leaving = asked(99, max_tokens=ENDLESS)
    with ThreadPoolExecutor(STREAMS) as pool:
        others = [Answer(owner, number) for number in range(STREAMS - 1)]
        staying = [pool.submit(each.read) for each in others]
        assert others[0].begun.wait(PATIENCE_S)
        url = f"{owner.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=leaving, headers=headers, timeout=PATIENCE_S) as stream:
            assert stream.status_code == 200, stream.read()
            deltas = (line for line in stream.iter_lines() if '"content": "' in line and '"content": ""' not in line)
            next(deltas)  # it is being written
        assert [each.result(PATIENCE_S).text for each in staying] == expected
    deadline = time.monotonic() + PATIENCE_S
    while figures(owner)["inhouse_answers_total", "cancelled"] == before:
        assert time.monotonic() < deadline, "the model went on for nobody"
        time.sleep(0.05)


def test_a_version_promoted_in_between_answers_what_comes_after(house: tuple[OwnerAddress, Registry, str]) -> None:
    owner, registry, version = house
    of_base, of_version = alone(owner, range(4)), alone(owner, range(4), version)
    assert not set(of_base) & set(of_version)
    longer = {"max_tokens": 400}
    expected = Answer(owner, 0, **longer).read().text
    with ThreadPoolExecutor(STREAMS) as pool:
        first = [Answer(owner, 0, **longer) for _ in range(4)]
        before = [pool.submit(answer.read) for answer in first]
        assert all(answer.begun.wait(PATIENCE_S) for answer in first)
        registry.promote(version)
        after = [pool.submit(Answer(owner, number).read) for number in range(4)]
        assert [each.result(PATIENCE_S).text for each in after] == of_version
        assert [each.result(PATIENCE_S).text for each in before] == [expected] * 4
    assert {each.result().adapter for each in after} == {version}
    assert {each.result().adapter for each in before} == {None}, "an answer ends on what it began with"


def test_beyond_the_queue_a_client_is_told_when_to_try_again(house: tuple[OwnerAddress, Registry, str]) -> None:
    owner, _, _ = house
    headers = {"Authorization": f"Bearer {owner.token}"}
    room = STREAMS + WAITING
    with ThreadPoolExecutor(room) as pool:
        filling = [pool.submit(Answer(owner, number, max_tokens=400).read) for number in range(room)]
        wait_for_answering(owner, room)
        for stream in (True, False):
            refused = httpx.post(
                f"{owner.url}/v1/chat/completions", json=asked(50, stream=stream), headers=headers, timeout=PATIENCE_S
            )
            assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["type"] == "overloaded"
        with pytest.raises(openai.RateLimitError):
            client(owner).completions.create(model="inhouse", prompt="Is there room?", max_tokens=4)
        assert {each.result(PATIENCE_S).ended for each in filling} <= {"length", "stop"}, "who was let in is answered"
    assert Answer(owner, 3).read().ended == "length", "and there is room again"


def wait_for_answering(owner: OwnerAddress, count: int) -> None:
    """Until so many answers are being made or wait; the look itself is a request, too."""
    deadline = time.monotonic() + PATIENCE_S
    while figures(owner)["inhouse_answering",] < count + 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def figures(owner: OwnerAddress) -> dict[tuple[str, ...], float]:
    """Samples by name, and by the reason why answers ended; those that are not there count 0."""
    text = httpx.get(f"{owner.url}/metrics", headers={"Authorization": f"Bearer {owner.token}"}).text
    found: dict[tuple[str, ...], float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, *([sample.labels["reason"]] if "reason" in sample.labels else [])] = sample.value
    return found
