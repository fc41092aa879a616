"""What a process takes along that loads a model."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = """
import sys
from transformers.models.llama import modeling_llama
from transformers.generation import candidate_generator
print(*sys.modules)
"""
TOKENIZER = """
from inhouse_training import load_tokenizer
try:
    load_tokenizer(None)
except AttributeError:
    pass
"""


@pytest.mark.parametrize("start", [TOKENIZER, "from inhouse_training import load_engine"])
def test_a_model_is_loaded_without_scikit_learn(start: str) -> None:
    ran = subprocess.run([sys.executable, "-c", start + LOADED], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "torch" in loaded and not {"sklearn", "scipy"} & loaded
