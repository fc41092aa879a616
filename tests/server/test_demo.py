"""What the demo says of a retraining."""

from __future__ import annotations

from typing import Any

import pytest

from inhouse_server.demo import show_retraining, size_of_small_model

GATE = ("Not surely better than the base model on later changes with retrieval: +0.010 nats per token.",)
SKIPPED = "Nothing to learn from changed since 2026-01-02 03:04 UTC: the same changes gave 0002, which was rejected."


def retrained(decision: str, reasons: tuple[str, ...], **losses: float) -> dict[str, Any]:
    held_out = {"changes": 30, "closed_book": {"base": 4.308, **losses, "candidate": 4.0144, "tokens": 1839}}
    metrics = {"held_out": held_out, "gate": list(GATE)}
    return {"decision": decision, "candidate": "0002", "reasons": list(reasons), "metrics": metrics}


def test_the_loss_is_told_in_the_words_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    show_retraining(retrained("rejected", GATE))
    assert capsys.readouterr().out.splitlines() == [
        "  rejected: 0002",
        f"    {GATE[0]}",
        "    question alone: 4.31 -> 4.01 nats per token (1,839 tokens of 30 changes)",
    ]
    show_retraining(retrained("rejected", GATE, current=4.1))
    assert "4.31 -> 4.01 nats per token (current adapter 4.10; 1,839 tokens" in capsys.readouterr().out


def test_a_repeated_demo_says_again_why_its_candidate_was_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    show_retraining(retrained("skipped", (SKIPPED,)))
    assert capsys.readouterr().out.splitlines()[:3] == ["  skipped: 0002", f"    {SKIPPED}", f"    {GATE[0]}"]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("SmolLM2-135M-Instruct", "135M"),
        ("HuggingFaceTB/SmolLM2-360M", "360M"),
        ("Qwen/Qwen2.5-7B-Instruct", ""),
        ("org/v1M2", ""),
    ],
)
def test_a_small_model_is_known_by_its_name(name: str, size: str) -> None:
    assert size_of_small_model(name) == size
