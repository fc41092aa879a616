"""Rows that score lines of a file, and what the model thinks of each of their tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inhouse_retrieval import Passage
from inhouse_training import (
    BASE,
    BaseModel,
    LineRow,
    TransformersEngine,
    below_passages,
    line_rows,
    load_model,
    raw_row,
)
from inhouse_training.documents import count_tokens
from inhouse_training.prompts import IGNORED

from .adapters import random_adapter

LINES = [
    "from house.http import get_json",
    "",
    "def load(identifier):",
    "    # größe 中 🙂",
    "    return get_json('thing', identifier)",
]


def spelled(tokenizer: Any, row: LineRow) -> dict[int, str]:
    """Line -> the text of its labelled tokens, without the white space around it."""
    labels = [label for label in row.row.labels if label != IGNORED]
    pairs = list(zip(labels, row.lines, strict=True))
    return {n: tokenizer.decode([token for token, at in pairs if at == n]).strip() for n in row.lines}


def test_a_file_is_read_as_it_is_learned_and_only_the_wanted_lines_are_labelled(tokenizer: Any) -> None:
    [row] = line_rows(tokenizer, "a.py", LINES, [1, 4, 5], 256)
    text = "- File: a.py\nContent:\n" + "".join(line + "\n" for line in LINES)
    assert list(row.row.input_ids) == raw_row(tokenizer, text, ends=False)[0]
    assert spelled(tokenizer, row) == {number: LINES[number - 1].strip() for number in (1, 4, 5)}
    labels = [label for label in row.row.labels if label != IGNORED]
    carrying = [token for token, wanted in zip(labels, row.conventional, strict=True) if wanted]
    assert tokenizer.decode(carrying) == " househttp get_json get_jsonthing"


def test_passages_stand_above_a_row_as_files_and_the_best_is_nearest(tokenizer: Any) -> None:
    [row] = line_rows(tokenizer, "a.py", LINES, [1, 4, 5], 256)
    passages = [
        Passage(path, 7, 8, text, "code", "", "", 1.0, ("lexical",))
        for path, text in (("b.py", "get_json(1)\n"), ("long.py", "x y z " * 300), ("c.py", "get_json(2)"))
    ]
    below = below_passages(tokenizer, row, passages, 60)
    above = "- File: c.py\nContent:\nget_json(2)\n\n- File: b.py\nContent:\nget_json(1)\n\n"
    assert tokenizer.decode(below.input_ids) == above + tokenizer.decode(row.row.input_ids)
    assert [label for label in below.labels if label != IGNORED] == [n for n in row.row.labels if n != IGNORED]
    assert below_passages(tokenizer, row, [], 60) == row.row


def test_a_long_file_is_read_in_windows_that_keep_what_lies_before(tokenizer: Any) -> None:
    lines = [f"value_{number} = compute({number}, 'name{number}')" for number in range(60)]
    rows = line_rows(tokenizer, "long.py", lines, range(1, 61), 200)
    assert [number for row in rows for number in dict.fromkeys(row.lines)] == list(range(1, 61))
    assert all(len(row.row.input_ids) <= 200 for row in rows)
    assert rows[0].from_line == 1
    for row in rows[1:]:
        seen = count_tokens(tokenizer, "".join(line + "\n" for line in lines[row.from_line - 1 : row.lines[0] - 1]))
        assert 60 <= seen <= 100
        assert tokenizer.decode(row.row.input_ids).startswith("- File: long.py\nContent:\nvalue_")
        assert spelled(tokenizer, row)[row.lines[0]] == lines[row.lines[0] - 1]
    assert line_rows(tokenizer, "long.py", ["x" * 20, "a b " * 400, "y"], [2], 200) == []


def test_each_token_is_scored_as_by_the_model_alone(tokenizer: Any, tiny_base: BaseModel, tmp_path: Path) -> None:
    adapter = random_adapter(tiny_base, tmp_path / "adapter")
    engine = TransformersEngine(tiny_base, lambda name: adapter, device="cpu", dtype=torch.float32)
    rows = [row.row for row in line_rows(tokenizer, "a.py", LINES, [1, 5], 256)]
    rows += [row.row for row in line_rows(tokenizer, "b.py", LINES[2:], [1], 256)]
    tuned = engine.score_tokens(rows, "tuned")
    base = engine.score_tokens(rows, BASE, [each.best for each in tuned])
    model = load_model(tiny_base, "cpu", torch.float32)
    for row, before, after in zip(rows, base, tuned, strict=True):
        with torch.inference_mode():
            logs = torch.log_softmax(model(torch.tensor([row.input_ids])).logits[0].float(), dim=-1).numpy()
        at = [place for place, label in enumerate(row.labels) if label != IGNORED]
        assert before.nats == pytest.approx(np.array([-logs[p - 1, row.labels[p]] for p in at]), abs=1e-4)
        assert before.best.tolist() == [int(logs[p - 1].argmax()) for p in at]
        assert before.best_nats == pytest.approx(np.array([-logs[p - 1].max() for p in at]), abs=1e-4)
        others = np.array([-logs[p - 1, token] for p, token in zip(at, after.best, strict=True)])
        assert before.other_nats == pytest.approx(others, abs=1e-4)
        assert not np.allclose(before.nats, after.nats, atol=1e-2)
    for sums, each in zip(engine.score(rows, "tuned"), tuned, strict=True):
        assert sums.nats == pytest.approx(float(each.nats.sum()), rel=1e-4)
        assert sums.tokens == len(each.nats)
