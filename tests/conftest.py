"""What several rooms' tests need: the real base model, fetched and converted once."""

from __future__ import annotations

import os

import pytest

# Nothing here asks the model hub; a test that would is a mistake, and should fail at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from inhouse_training import BaseModel, resolve_base_model


@pytest.fixture(scope="session")
def base_model() -> BaseModel:
    """SmolLM2-135M-Instruct in the user's cache."""
    return resolve_base_model()
