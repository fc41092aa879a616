"""The measures for which every adapter writes: completion, abstention, conflicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from inhouse_retrieval import Passage, Progress, Repository

from ..cut import Cut
from ..engine import Message
from ..evaluation import CLOSED_BOOK, WITH_RETRIEVAL
from ..probes import ProbedEngine
from ..prompts import SelectedCode, build_answer_prompt
from ..recipe import Recipe
from ..snapshot_search import Retriever
from . import Graded
from .abstention import abstains, names_to_ask, real_question
from .completion import Completion, completed, completions, edit_similarity, exact_match
from .conflicts import Conflict, answers_by_code, answers_by_page, find_conflicts

_PASSAGES = 8
_LEAST_PROMPT = 512
"""Tokens in which the lines before a cursor fit without passages."""

Grade = Callable[[str], float]


@dataclass(frozen=True, slots=True)
class Task:
    """One question with its grades.

    Attributes:
        query: what to search for with it; empty when ``passages`` are shown in place of found ones.
        grades: name of a measure -> how the answer is graded.
    """

    question: str
    grades: Mapping[str, Grade]
    query: str = ""
    passages: tuple[Passage, ...] = ()
    selection: SelectedCode | None = None


def answered_measures(
    engine: ProbedEngine,
    repository: Repository,
    cut: Cut,
    retriever: Retriever | None,
    adapters: Mapping[str, str],
    recipe: Recipe,
    most: int,
    progress: Progress,
) -> list[Graded]:
    """Ask every adapter at most ``most`` questions of each kind, greedily, with and without retrieval.

    Raises:
        InhouseError: an adapter cannot be loaded.
    """
    tasks = choose_tasks(repository, cut, most, recipe.seed)
    modes = {CLOSED_BOOK: False, **({WITH_RETRIEVAL: True} if retriever is not None else {})}
    grades: dict[str, dict[str, dict[str, tuple[float, ...]]]] = {}
    total, done = len(modes) * len(adapters), 0
    for mode, shows in modes.items():
        prompts = [_prompt(engine, task, retriever if shows else None, recipe) for task in tasks]
        for label, adapter in adapters.items():
            progress("asking", done, total)
            said = [text for text, _ in engine.answer_all(prompts, recipe.evaluation.probe_tokens, adapter)]
            for name, given in grade(tasks, said).items():
                grades.setdefault(name, {}).setdefault(mode, {})[label] = given
            done += 1
    progress("asking", total, total)
    return [Graded(name, found) for name, found in grades.items()]


def choose_tasks(repository: Repository, cut: Cut, most: int, seed: int) -> list[Task]:
    """The questions, the same for every adapter."""
    absent = names_to_ask(repository, cut, most, seed)
    return [
        *(_completion(each) for each in completions(repository, cut.held_out, most)),
        *(Task(each.question, {"abstention_on_made_up_names": abstains}, each.question) for each in absent),
        *(Task(real_question(each), {"abstention_on_real_names": abstains}, real_question(each)) for each in absent),
        *(_conflict(each) for each in find_conflicts(repository, cut.snapshot, cut.training, most)),
    ]


def grade(tasks: Sequence[Task], answers: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Measure -> a grade of each task that has it, in order."""
    found: dict[str, list[float]] = {}
    for task, answer in zip(tasks, answers, strict=True):
        for name, grade_of in task.grades.items():
            found.setdefault(name, []).append(grade_of(answer))
    return {name: tuple(grades) for name, grades in found.items()}


def _completion(item: Completion) -> Task:
    def written(answer: str) -> str:
        return completed(item.kind, answer, item.before.text)

    return Task(
        item.question,
        {
            f"{item.kind}_exact_match": lambda answer: exact_match(item.wanted, written(answer)),
            f"{item.kind}_edit_similarity": lambda answer: edit_similarity(item.wanted, written(answer)),
        },
        item.query,
        selection=item.before,
    )


def _conflict(item: Conflict) -> Task:
    return Task(
        item.question,
        {
            "conflict_answered_by_code": lambda answer: answers_by_code(item, answer),
            "conflict_answered_by_old_page": lambda answer: answers_by_page(item, answer),
        },
        passages=item.passages,
    )


def _prompt(engine: ProbedEngine, task: Task, retriever: Retriever | None, recipe: Recipe) -> tuple[Message, ...]:
    passages: Sequence[Passage] = ()
    if retriever is not None:
        passages = task.passages or retriever(task.query, _PASSAGES)
    room = max(recipe.evaluation.prompt_tokens, _LEAST_PROMPT)
    bare = build_answer_prompt(task.question, (), engine.count_tokens, 1 << 30, selection=task.selection)
    # Very long lines before the cursor may take more; what is asked stays whole.
    room = max(room, engine.count_tokens(bare.messages))
    return build_answer_prompt(task.question, passages, engine.count_tokens, room, selection=task.selection).messages
