"""What a model is asked, how often, and what happens when it does not answer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from inhouse_retrieval import InhouseError, Repository
from inhouse_training import (
    BaseModel,
    EndpointGenerator,
    EngineGenerator,
    ReplyCache,
    Task,
    estimate,
    stored_replies,
    synthesize,
)
from inhouse_training.synthesis import grounding
from inhouse_training.synthesis.generator import ATTEMPTS
from inhouse_training.synthesis.sources import Section

from .chat_server import KEY, ChatServer, Failure, honest
from .written import GUIDE, PAGE, run, tasks_of


def test_equal_requests_are_shared_and_a_section_that_only_moved_is_the_same(sections: list[Section]) -> None:
    alone = tasks_of(sections, "qa")
    assert [task.sections[0].path for task in alone] == ["docs/refunds.md"]
    both = tasks_of(sections, "qa", "raft")
    assert len({task.key("m") for task in both}) == len(both) and alone[0] in both
    related = {tuple(section.path for section in task.sections) for task in tasks_of(sections, "relation")}
    assert ("desk.py", "handlers/area0.py") in related
    moved = Task("questions", (Section("docs/refunds.md", "other", 1, 7, GUIDE, True, ()),), "shop")
    assert moved.key("m") == Task("questions", (PAGE,), "shop").key("m")
    assert moved.key("m") != moved.key("another model")


def test_all_is_asked_once_and_several_at_a_time(sections: list[Section], server: ChatServer, tmp_path: Path) -> None:
    tasks = tasks_of(sections)
    three = threading.Barrier(3)

    def write(number: int, prompt: str) -> str:
        if number < 3:
            three.wait(timeout=30)
        return honest(prompt)

    server.write = write
    before = estimate(tasks, stored_replies(tmp_path, "writer"))
    assert (before.open, before.cached) == (len(tasks), 0) and before.tokens > 1000
    report = run(tasks, server, tmp_path)
    assert report.asked == len(tasks) == len(server.asked) and report.dropped == {}
    assert report.grounded == Counter(task.topic for task in tasks)
    assert report.tokens <= before.tokens and server.most_at_once == 3
    again = run(tasks, server, tmp_path)
    assert (again.asked, again.cached, again.grounded) == (0, len(tasks), report.grounded)
    assert len(server.asked) == len(tasks)
    assert estimate(tasks, stored_replies(tmp_path, "writer")).tokens == 0


def test_bad_replies_are_kept_counted_and_not_asked_for_again(
    sections: list[Section], server: ChatServer, tmp_path: Path
) -> None:
    bad: list[str | tuple[str, str]] = [
        "I would rather not.",
        (honest("a\n```\n" + GUIDE + "```\n")[:20], "length"),
        json.dumps({"items": [{"quote": "We never said any such thing.", "statement": "But so it is."}]}),
    ]
    server.write = lambda number, prompt: bad[number] if number < len(bad) else honest(prompt)
    tasks = tasks_of(sections, "explanation")
    report = run(tasks, server, tmp_path)
    assert report.dropped == {"explanation": {grounding.NOT_AS_ASKED: 1, grounding.CUT: 1, grounding.NOT_IN_SOURCE: 1}}
    assert report.grounded["explanation"] == len(tasks) - 3
    assert run(tasks, server, tmp_path).asked == 0


def test_what_passes_is_waited_for_in_sight_and_what_does_not_is_counted(
    sections: list[Section], server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inhouse_training.synthesis.generator._FIRST_WAIT_S", 0.001)
    failures = [Failure(429, {"Retry-After": "1"}), Failure(500), Failure(200, body=b"<html>welcome</html>")]
    server.write = lambda number, prompt: (
        failures[number] if number < 3 else Failure(400) if "area1.py" in prompt.split("```")[0] else honest(prompt)
    )
    seen: list[str] = []
    tasks = tasks_of(sections, "explanation")[:5]
    report = run(tasks, server, tmp_path, concurrency=1, progress=lambda stage, done, total: seen.append(stage))
    assert [each.status for each in server.asked[:2]] == [429, 500]
    assert server.asked[1].at - server.asked[0].at >= 1.0
    assert "waiting for the model server (s)" in seen
    assert report.refused.total() == 1 and report.asked == len(tasks) - 1 and not report.failed


def test_a_server_that_is_lost_or_refuses_the_key_is_said_plainly(
    sections: list[Section], server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inhouse_training.synthesis.generator._FIRST_WAIT_S", 0.001)
    tasks = tasks_of(sections, "explanation")
    server.write = lambda number, prompt: honest(prompt) if number == 0 else Failure(503)
    with pytest.raises(InhouseError, match="no reply to 5 requests in a row"):
        run(tasks, server, tmp_path)
    assert len(server.answered()) == 1 and len(server.asked) >= 5 * ATTEMPTS
    assert len(stored_replies(tmp_path).by_key) == 1, "what was answered is kept"
    with ReplyCache(tmp_path) as cache, pytest.raises(InhouseError, match="refuses the API key") as refused:
        synthesize(tasks, EndpointGenerator(server.url, "writer", "wrong", "$WRITER_KEY", 1), cache, 10**6)
    assert refused.value.remedy == "Correct $WRITER_KEY."
    server.write = lambda number, prompt: Failure(400, body=b'{"error": {"message": "response_format: unknown"}}')
    with pytest.raises(InhouseError, match=r"none of the first 5 requests: .*response_format: unknown") as all_refused:
        run(tasks, server, tmp_path)
    assert "json_schema = false" in all_refused.value.remedy


def test_the_bound_holds_also_for_requests_under_way(
    sections: list[Section], server: ChatServer, tmp_path: Path
) -> None:
    tasks = tasks_of(sections, "explanation")
    one = max(task.prompt_tokens + task.reply_tokens for task in tasks)
    report = run(tasks, server, tmp_path, bound=3 * one)
    assert 0 < report.tokens <= 3 * one
    assert 2 <= report.asked < len(tasks) and report.beyond_bound == len(tasks) - report.asked
    assert run(tasks, server, tmp_path, bound=1).asked == 0
    rest = run(tasks, server, tmp_path)
    assert (rest.asked, rest.cached) == (len(tasks) - report.asked, report.asked)


KILLED = """
import sys
from pathlib import Path
from inhouse_retrieval import Repository
from inhouse_training import EndpointGenerator, ReplyCache, plan_tasks, read_sections, synthesize
from inhouse_training.cut import cut_repository
from inhouse_training.recipe import parse_recipe
root, url, key, state = sys.argv[1:]
recipe = parse_recipe('base_model = "x"\\n[optimizer]\\nlearning_rate = 1e-3\\n', "r", "r")
repository = Repository.open(Path(root)).with_wiki(["docs"])
sections = read_sections(repository, cut_repository(repository, recipe))
tasks = plan_tasks(sections, ("explanation", "raft"), "shop")
with ReplyCache(Path(state)) as cache:
    synthesize(tasks, EndpointGenerator(url, "writer", key, "$KEY", 2), cache, 10**6)
"""


def test_after_kill_9_nothing_that_was_answered_is_asked_again(
    shop: Repository, sections: list[Section], server: ChatServer, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(shop.root), server.url, KEY, str(tmp_path)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE)

    def write(number: int, prompt: str) -> str:
        if number == 6:
            child.kill()
            child.wait()
        return honest(prompt)

    server.write = write
    assert child.wait(timeout=60) == -signal.SIGKILL
    assert child.stderr is not None
    child.stderr.close()
    kept = set(stored_replies(tmp_path).by_key)
    assert 3 <= len(kept) <= 6
    first = len(server.asked)
    server.write = lambda number, prompt: honest(prompt)
    run(tasks_of(sections, "explanation", "raft"), server, tmp_path)
    stored = stored_replies(tmp_path)
    assert len(server.asked) - first == len(stored.by_key) - len(kept)
    times = Counter(each.prompt for each in server.asked)
    assert sum(times.values()) - len(times) <= 2 * 2, "at most what was under way is asked twice"


@pytest.mark.long
def test_a_model_in_this_process_writes_through_the_engine(
    sections: list[Section], base_model: BaseModel, tmp_path: Path
) -> None:
    from inhouse_training import TransformersEngine

    tasks = tasks_of(sections, "qa")
    loaded: list[str] = []

    def load() -> TransformersEngine:
        loaded.append("once")
        return TransformersEngine(base_model, lambda name: Path())

    with ReplyCache(tmp_path) as cache:
        report = synthesize(tasks, EngineGenerator("SmolLM2", load), cache, 10**6)
        assert report.asked == len(tasks) and 0 < report.tokens < 10_000 and loaded == ["once"]
        assert synthesize(tasks, EngineGenerator("SmolLM2", load), cache, 10**6).cached == len(tasks)
    assert loaded == ["once"], "what is answered needs no model"
    assert report.grounded.total() + sum(map(Counter.total, report.dropped.values())) >= len(tasks)


@pytest.mark.long
def test_llama_cpp_s_server_takes_the_requests(sections: list[Section], base_model: BaseModel, tmp_path: Path) -> None:
    from ...server.test_openai_engine import Server

    (gguf,) = base_model.path.glob("*.gguf")
    llama = Server(gguf)
    try:
        tasks = tasks_of(sections, "qa", "relation")[:3]
        generator = EndpointGenerator(f"{llama.address}/v1", "smollm2", "secret", "$KEY", 2)
        with ReplyCache(tmp_path) as cache:
            report = synthesize(tasks, generator, cache, 10**6)
        assert report.asked == len(tasks) and not report.refused and not report.failed
        for reply in stored_replies(tmp_path).by_key.values():
            assert reply.text.lstrip().startswith("{") and reply.prompt_tokens > 100
    finally:
        llama.kill()
