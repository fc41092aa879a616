"""GitHub's own examples of webhook payloads, each of them. Needs npm; run by `make test-editors`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from inhouse_server.webhook.events import Wanted
from inhouse_server.webhook.queue import Queue
from inhouse_server.webhook.receiver import make_receiver
from inhouse_server.webhook.signature import Signature
from tests.server.hook_payloads import SECRET, github_delivery

pytestmark = pytest.mark.editors
HERE = Path(__file__).parent / "webhook_examples"
PROJECT = "Codertocat/Hello-World"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, dict[str, Any]]]:
    """``(event, payload)`` of every example."""
    assert shutil.which("npm"), "npm is needed for this test: install it, or run `make test` alone"
    folder = Path(shutil.copytree(HERE, tmp_path_factory.mktemp("npm") / "examples"))
    command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    index = folder / "node_modules/@octokit/webhooks-examples/api.github.com/index.json"
    return [(group["name"], payload) for group in json.loads(index.read_text()) for payload in group["examples"]]


def test_every_example_is_answered_and_those_of_open_pull_requests_are_queued(
    examples: list[tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    assert len(examples) > 250
    queued: list[tuple[str, str]] = []
    for number, (event, payload) in enumerate(examples):
        state = tmp_path / str(number)
        state.mkdir()
        queue = Queue(state, 10)
        client = TestClient(make_receiver("github", PROJECT, Signature("github", SECRET, "$SECRET"), queue))
        body, headers = github_delivery(payload, event)
        answer = client.post("/webhook", content=body, headers=headers)
        assert answer.status_code in (200, 202), (event, payload.get("action"), answer.text)
        if queue.waiting():
            queued.append((event, payload["action"]))
            pull = payload["pull_request"]
            assert queue.waiting() == [Wanted(pull["number"], pull["head"]["sha"], "review")]
        queue.close()
    assert {action for _, action in queued} == {"opened", "synchronize", "reopened", "ready_for_review"}, queued
    assert {event for event, _ in queued} == {"pull_request"}
