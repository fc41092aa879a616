"""Answers beside weights in 4 bit. Needs bitsandbytes, which also computes on a processor, slowly; the environment of
the tests does without, since PEFT would import it in every process: ``make test-4bit-and-unsloth``."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch

from inhouse_training import (
    BASE,
    BaseModel,
    BatchedEngine,
    GenerationRequest,
    Message,
    ScoredRow,
    TextDelta,
    TransformersEngine,
    transformers_engine,
)

from .adapters import random_adapter
from .conftest import make_tiny

bitsandbytes = pytest.importorskip("bitsandbytes")

QUESTIONS = ("What does this do?", "def total(self): return sum(x) # explain", "Write a test for parse().")


def said(engine: TransformersEngine, question: str, adapter: str) -> str:
    events = engine.stream(GenerationRequest((Message("user", question),), adapter, 16), Event())
    return "".join(each.text for each in events if isinstance(each, TextDelta))


def test_answers_made_together_are_those_made_alone(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers_engine, "check_weights", lambda *given: None)  # for a processor nobody asks for it
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64, "intermediate_size": 256}
    base = BaseModel("tiny", make_tiny(tmp_path / "base", tokenizer, **sizes, initializer_range=0.2), "0" * 64, "")
    folder = random_adapter(base, tmp_path / "one")
    alone = TransformersEngine(base, lambda version: folder, device="cpu", dtype=torch.float32, weights="4bit")
    assert any(isinstance(each, bitsandbytes.nn.Linear4bit) for each in alone._causal.modules())
    row = [ScoredRow(tuple(range(5, 45)), tuple(range(5, 45)))]
    first, tuned, again = (alone.score(row, adapter)[0].nats for adapter in (BASE, "one", BASE))
    assert first == again and abs(tuned - first) > 0.05
    asked = [(question, adapter) for question in QUESTIONS for adapter in (BASE, "one")]
    wanted = {each: said(alone, *each) for each in asked}
    assert len({*wanted.values()}) > 3
    alone.close()
    together = BatchedEngine(base, lambda version: folder, device="cpu", dtype=torch.float32, weights="4bit", streams=4)
    made: dict[tuple[str, str], str] = {}

    def ask(question: str, adapter: str) -> None:
        made[question, adapter] = said(together, question, adapter)

    threads = [Thread(target=ask, args=each) for each in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == wanted and not together._alone
    together.close()
