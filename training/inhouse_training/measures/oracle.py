"""Later edits asked for with the file as it was before the edit: what a search that never misses would show.

Beside the same edits with retrieved passages this tells what the search costs. The gate does not read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inhouse_retrieval import Passage, Repository

from ..cut import Cut, HeldOutChange
from ..edits import Edit, read_edits
from ..engine import Engine, ScoredRow
from ..evaluation import bounded_question, change_row, score_rows
from ..prompts import build_answer_prompt
from ..recipe import EvaluationSettings
from . import ORACLE, SHOWN_EDITS, Likelihood
from .later_texts import scored_bytes


def measure_oracle(
    engine: Engine,
    tokenizer: Any,
    repository: Repository,
    cut: Cut,
    held_out: Sequence[HeldOutChange],
    adapters: Mapping[str, str],
    settings: EvaluationSettings,
    scored: Callable[[int], None] = lambda count: None,
) -> Likelihood:
    """Score every adapter on the lines that later changes added to files that were there before.

    The file is shown whole where ``settings.prompt_tokens`` hold it, else the places in it that changed, as many as
    fit. New files, and edits of which nothing fits, are left out.
    """
    edits = {(edit.commit, edit.path): edit for edit in read_edits(repository, cut.held_out)}
    rows: list[ScoredRow] = []
    for change in held_out:
        edit = edits.get((change.commit, change.path))
        if edit is not None and (shown := _shown(engine, change, edit, settings)):
            rows.append(change_row(engine, tokenizer, change, lambda query, limit, each=shown: each, settings))
    scores = {label: score_rows(engine, rows, adapter, scored) for label, adapter in adapters.items()}
    return Likelihood(SHOWN_EDITS, tuple(scored_bytes(tokenizer, row) for row in rows), {ORACLE: scores})


def _shown(engine: Engine, change: HeldOutChange, edit: Edit, settings: EvaluationSettings) -> Sequence[Passage]:
    """What of the file before the edit fits the prompt."""
    if edit.whole is None:
        return ()
    question = bounded_question(engine, change, settings)
    for passages in ([edit.whole], edit.windows):
        prompt = build_answer_prompt(question, passages, engine.count_tokens, settings.prompt_tokens)
        if prompt.included:
            return prompt.included
    return ()
