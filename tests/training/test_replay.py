"""Replay: what the base model says about general things, drawn once, learned beside the repository."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import Cancelled, Repository
from inhouse_training import BaseModel, build_dataset, replay, replay_texts
from inhouse_training.cut import cut_repository
from inhouse_training.forgetting_texts import FORGETTING_TEXTS
from inhouse_training.prompts import IGNORED
from inhouse_training.recipe import Recipe
from inhouse_training.replay import ReplayText, replay_row
from inhouse_training.replay_prompts import CHAT, OPENINGS


def test_texts_are_drawn_once_and_kept(tiny_base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INHOUSE_CACHE", str(tmp_path))
    monkeypatch.setattr(replay, "NEW_TOKENS", 4)

    def stop(stage: str, done: int, total: int | None) -> None:
        if done:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        replay_texts(tiny_base, 1, stop)
    assert not list(tmp_path.rglob("*.jsonl")), "half a round is none"
    texts = replay_texts(tiny_base, 1)
    assert len(texts) > 100 and {text.chat for text in texts} == {True, False}
    assert {text.prompt for text in texts} <= {*CHAT, *OPENINGS}
    gone = BaseModel(tiny_base.name, tmp_path / "no model", tiny_base.sha256, "")
    assert replay_texts(gone, 1) == texts, "from the cache, without the model"
    (kept,) = tmp_path.rglob("*.jsonl")
    kept.write_text(kept.read_text()[:-40])
    assert len(replay_texts(tiny_base, 1)) == len(texts), "a damaged cache is drawn again"


def test_an_answer_that_was_cut_teaches_no_end(tokenizer: Any) -> None:
    def learned(text: ReplayText) -> str:
        return str(tokenizer.decode([label for label in replay_row(tokenizer, text)[1] if label != IGNORED]))

    assert learned(ReplayText("Why?", "Because.", chat=True, ended=True)) == "Because.<|im_end|>"
    assert learned(ReplayText("Why?", "Because it", chat=True, ended=False)) == "Because it"
    assert learned(ReplayText("import ", "os\n", chat=False, ended=False)) == "import os\n"


def test_they_are_rows_of_the_dataset_when_the_recipe_wants_them(
    history: Repository, tokenizer: Any, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    texts = (
        ReplayText("Why?", "Because.", chat=True, ended=True),
        ReplayText("Tell me.", FORGETTING_TEXTS["English"][0], chat=True, ended=True),
    )
    data = tiny_recipe.data.model_copy(update={"max_tokens": 512, "file_share": 0.3, "replay_share": 0.1})
    recipe = tiny_recipe.model_copy(update={"data": data})
    build = partial(build_dataset, history, tokenizer, cut=cut_repository(history, recipe), replay=lambda: texts)
    dataset = build(recipe, directory=tmp_path / "with")
    [row] = [row for row in dataset.rows if row["kind"] == "replay"]
    assert row["source_tokens"] == 3 and json.loads(row["origin"])["generator"] == recipe.base_model
    assert dataset.manifest["tokens"]["replay"]["dropped"].keys() == {"holds the text that measures forgetting"}
    without = build(tiny_recipe, directory=tmp_path / "without")
    assert "replay" not in set(without.rows["kind"])
