"""The measures for which every adapter writes: asking, and grading what was said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inhouse_retrieval import Passage, Progress, Repository

from ..cut import Cut
from ..engine import Message
from ..evaluation import CLOSED_BOOK, WITH_RETRIEVAL
from ..probes import ProbedEngine
from ..probes.answers import Checked, House, check_answer, read_house
from ..prompts import build_answer_prompt
from ..recipe import Recipe
from ..snapshot_search import Retriever
from . import Graded, Item, Shared
from .tasks import LOWER_IS_BETTER, Task, choose_tasks

_PASSAGES = 8
_LEAST_PROMPT = 512
"""Tokens in which the lines before a cursor fit without passages."""
_Table = dict[str, dict[str, dict[str, list[Item]]]]
"""Measure -> mode -> adapter label -> one entry per question."""
_FAULTS = {"answers_that_loop": "loops", "answers_that_are_empty": "empty", "answers_without_end": "endless"}


@dataclass(frozen=True, slots=True)
class Answered:
    """What every adapter said to one question in one way of asking.

    Attributes:
        mode: with passages or without, as in the evaluation.
        span_shown: whether the prompt held what the answer must quote; ``None`` where nothing must be quoted.
        said: adapter label -> answer.
        checked: adapter label -> what else that answer holds.
    """

    task: Task
    mode: str
    span_shown: bool | None
    said: Mapping[str, str]
    checked: Mapping[str, Checked]


def ask_all(
    engine: ProbedEngine,
    repository: Repository,
    cut: Cut,
    retriever: Retriever | None,
    adapters: Mapping[str, str],
    recipe: Recipe,
    most: int,
    progress: Progress,
) -> list[Answered]:
    """Ask every adapter at most ``most`` questions of each kind, greedily, with and without retrieval.

    Raises:
        InhouseError: an adapter cannot be loaded.
    """
    progress("choosing questions", 0, None)
    house = read_house(repository, cut.snapshot, cut.held_out)
    tasks = choose_tasks(repository, cut, house, most, recipe.seed)
    modes = {CLOSED_BOOK: False, **({WITH_RETRIEVAL: True} if retriever is not None else {})}
    found: list[Answered] = []
    total, done = len(modes) * len(adapters), 0
    for mode, shows in modes.items():
        asked = [task for task in tasks if not (shows and task.general)]
        prompts = [_prompt(engine, task, retriever if shows else None, recipe) for task in asked]
        said: dict[str, list[tuple[str, bool]]] = {}
        for label, adapter in adapters.items():
            progress("asking", done, total)
            said[label] = engine.answer_all(prompts, recipe.evaluation.probe_tokens, adapter)
            done += 1
        found += [
            _answered(task, mode, prompt, {label: answers[at] for label, answers in said.items()}, house)
            for at, (task, prompt) in enumerate(zip(asked, prompts, strict=True))
        ]
    progress("asking", total, total)
    return found


def _answered(
    task: Task, mode: str, prompt: Sequence[Message], said: Mapping[str, tuple[str, bool]], house: House
) -> Answered:
    shown = task.span("\n".join(message.content for message in prompt)) if task.span is not None else None
    checked = {label: check_answer(prompt, text, ended, house) for label, (text, ended) in said.items()}
    return Answered(task, mode, shown, {label: text for label, (text, _) in said.items()}, checked)


def _prompt(engine: ProbedEngine, task: Task, retriever: Retriever | None, recipe: Recipe) -> tuple[Message, ...]:
    passages: Sequence[Passage] = ()
    if retriever is not None:
        passages = task.passages or retriever(task.query, _PASSAGES)
    room = max(recipe.evaluation.prompt_tokens, _LEAST_PROMPT)
    bare = build_answer_prompt(task.question, (), engine.count_tokens, 1 << 30, selection=task.selection)
    # Very long lines before the cursor may take more; what is asked stays whole.
    room = max(room, engine.count_tokens(bare.messages))
    return build_answer_prompt(task.question, passages, engine.count_tokens, room, selection=task.selection).messages


def grade_all(answered: Sequence[Answered]) -> list[Graded | Shared]:
    """Every measure, by mode and adapter: the grades of the questions, then what can be said of any answer."""
    grades: _Table[float] = _table()
    counts: _Table[tuple[int, int]] = _table()
    shown: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for each in answered:
        for name, grade_of in each.task.grades.items():
            for label, text in each.said.items():
                grades[name][each.mode][label].append(grade_of(text))
            if each.span_shown is not None:
                shown[name][each.mode].append(each.span_shown)
        for label, checked in each.checked.items():
            if not each.task.general:
                exist = checked.identifiers - len(checked.unknown)
                counts["identifiers_that_exist"][each.mode][label].append((exist, checked.identifiers))
            for name, fault in _FAULTS.items():
                counts[name][each.mode][label].append((int(getattr(checked, fault)), 1))
    shares = {name: {mode: sum(seen) / len(seen) for mode, seen in modes.items()} for name, modes in shown.items()}
    return [
        *(Graded(name, found, name not in LOWER_IS_BETTER, shares.get(name, {})) for name, found in grades.items()),
        *(Shared(name, found, name not in _FAULTS) for name, found in counts.items()),
    ]


def _table() -> _Table[Any]:
    return defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
