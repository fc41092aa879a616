"""Later edits with the file as it was before them in the prompt: whole where it fits, else the places that changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inhouse_retrieval import Repository
from inhouse_training import BASE, BaseModel, RowScore, ScoredRow, TransformersEngine
from inhouse_training.cut import Cut, cut_repository, held_out_change
from inhouse_training.measures import ORACLE, SHOWN_EDITS
from inhouse_training.measures.oracle import measure_oracle
from inhouse_training.recipe import EvaluationSettings, Recipe

from .history import commit, git, make_history

ADAPTERS = {"base": BASE, "candidate": BASE}


class Noting(TransformersEngine):
    """Notes the rows that it scores."""

    rows: Sequence[ScoredRow] = ()

    def score(self, rows: Sequence[ScoredRow], adapter: str = BASE) -> list[RowScore]:
        self.rows = [*self.rows, *rows]
        return super().score(rows, adapter)


def prompts(
    base: BaseModel, tokenizer: Any, repository: Repository, cut: Cut, settings: EvaluationSettings
) -> tuple[int, list[str]]:
    """How many edits were measured, and what was read for them, once for each."""
    engine = Noting(base, lambda version: Path(), device="cpu")
    held_out = [change for change in map(held_out_change, cut.held_out) if change is not None]
    found = measure_oracle(engine, tokenizer, repository, cut, held_out, ADAPTERS, settings)
    assert found.kind == SHOWN_EDITS and list(found.scores) == [ORACLE]
    scores = found.scores[ORACLE]
    assert scores["base"] == scores["candidate"] and all(0 < score.tokens <= 16 for score in scores["base"])
    return len(found.sizes), sorted({tokenizer.decode(row.input_ids) for row in engine.rows})


def test_the_file_as_it_was_is_in_the_prompt(
    tiny_base: BaseModel, tokenizer: Any, history: Repository, tiny_recipe: Recipe
) -> None:
    cut = cut_repository(history, tiny_recipe)
    count, read = prompts(tiny_base, tokenizer, history, cut, EvaluationSettings(prompt_tokens=4096, scored_tokens=16))
    assert count == len(cut.held_out) == len(read)
    change = next(each for each in cut.held_out if each.files[0].path == "handlers/area0.py")
    before = git(history.root, "show", f"{change.parent}:handlers/area0.py").splitlines()
    assert any(all(line in text for line in before) and change.title in text for text in read)


def test_of_a_file_that_does_not_fit_the_places_that_changed_are_shown(
    tiny_base: BaseModel, tokenizer: Any, history: Repository, tiny_recipe: Recipe
) -> None:
    cut = cut_repository(history, tiny_recipe)
    count, read = prompts(tiny_base, tokenizer, history, cut, EvaluationSettings(prompt_tokens=700, scored_tokens=16))
    change = cut.held_out[0]
    before = git(history.root, "show", f"{change.parent}:{change.files[0].path}").splitlines()
    shown = next(text for text in read if change.title in text)
    assert count and before[0] not in shown.splitlines() and any(line and line in shown for line in before[-12:])


def test_new_files_have_nothing_to_show(
    tiny_base: BaseModel, tokenizer: Any, tmp_path: Path, tiny_recipe: Recipe
) -> None:
    repository = make_history(tmp_path / "shop", commits=12)
    for number in range(6):
        commit(repository.root, f"Add page {number}", **{f"page{number}_py": f"def page_{number}():\n    return 1\n"})
    cut = cut_repository(repository, tiny_recipe)
    settings = EvaluationSettings(prompt_tokens=4096, scored_tokens=16)
    assert prompts(tiny_base, tokenizer, repository, cut, settings)[0] == len(cut.held_out) - 6
