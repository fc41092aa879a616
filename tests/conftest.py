"""What several rooms' tests need: the real base model, fetched and converted once."""

from __future__ import annotations

import os

import pytest

# Nothing here asks the model hub; a test that would is a mistake, and should fail at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from inhouse_training import BaseModel, resolve_base_model

LONGEST_FIRST = (
    "test_main_job.py",
    "test_cli.py",
    "test_retrain.py",
    "test_relay.py",
    "test_language_server.py",
    "test_http_api.py",
    "test_retrain_interrupted.py",
    "test_transformers_engine.py",
    "test_owner.py",
    "test_batching.py",
    "test_neovim.py",
    "test_soak.py",
    "test_batched_serving.py",
    "test_finetune.py",
    "test_schedules.py",
    "test_several_repositories.py",
    "test_repositories_end_to_end.py",
)
"""Files whose tests take minutes: begun first, so that no worker sits idle while the last one works."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; within them, and among the rest, nothing moves."""
    order = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def base_model() -> BaseModel:
    """SmolLM2-135M-Instruct in the user's cache."""
    return resolve_base_model()
