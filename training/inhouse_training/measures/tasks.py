"""The questions that every adapter answers, and how an answer to each is graded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from inhouse_retrieval import Passage, Repository

from ..cut import Cut
from ..facts import holds_span
from ..probes.answers import House
from ..prompts import SelectedCode
from .abstention import abstains, names_to_ask, real_question
from .completion import Completion, completed, completions, edit_similarity, exact_match
from .conflicts import Conflict, answers_by_code, answers_by_page, find_conflicts
from .formats import FORMAT_CHECKS
from .spans import SpanQuestion, known_questions, later_questions

Grade = Callable[[str], float]

LOWER_IS_BETTER = frozenset({"abstention_on_real_names", "conflict_answered_by_old_page"})
"""Measures of which less is better; of all others more is."""


@dataclass(frozen=True, slots=True)
class Task:
    """One question with its grades.

    Attributes:
        subject: what kind of question it is.
        grades: name of a measure -> how the answer is graded, 0 to 1.
        wanted: what a right answer is, or holds, for people to compare with.
        query: what to search for with it; empty when ``passages`` are shown in place of found ones.
        span: whether a text holds what the answer must quote; ``None`` where nothing must be quoted.
        general: whether the question has nothing to do with the repository; it is then asked without passages only.
    """

    subject: str
    question: str
    grades: Mapping[str, Grade]
    wanted: str
    query: str = ""
    passages: tuple[Passage, ...] = ()
    selection: SelectedCode | None = None
    span: Callable[[str], bool] | None = None
    general: bool = False


def choose_tasks(repository: Repository, cut: Cut, house: House, most: int, seed: int) -> list[Task]:
    """At most ``most`` questions of each kind, the same for every adapter.

    Args:
        house: what the training snapshot defines.
    """
    absent = names_to_ask(repository, cut, most, seed)
    made_up, real = "abstention_on_made_up_names", "abstention_on_real_names"
    not_here, here = "that it is not in this repository", "anything but that it is not in this repository"
    return [
        *(_completion(each) for each in completions(repository, cut.held_out, most)),
        *(Task(made_up, each.question, {made_up: abstains}, not_here, each.question) for each in absent),
        *(Task(real, real_question(each), {real: abstains}, here, real_question(each)) for each in absent),
        *(_conflict(each) for each in find_conflicts(repository, cut.snapshot, cut.training, most)),
        *(_quoting("known", each) for each in known_questions(repository, cut.snapshot, house, most)),
        *(_quoting("later", each) for each in later_questions(repository, cut.snapshot, cut.held_out, house, most)),
        *(
            Task(
                "format", each.request, {"format_followed": _as_grade(each.follows)}, "the form asked for", general=True
            )
            for each in FORMAT_CHECKS[:most]
        ),
    ]


def _as_grade(holds: Callable[[str], bool]) -> Grade:
    return lambda answer: float(holds(answer))


def _completion(item: Completion) -> Task:
    def written(answer: str) -> str:
        return completed(item.kind, answer, item.before.text)

    return Task(
        item.kind,
        item.question,
        {
            f"{item.kind}_exact_match": lambda answer: exact_match(item.wanted, written(answer)),
            f"{item.kind}_edit_similarity": lambda answer: edit_similarity(item.wanted, written(answer)),
        },
        item.wanted,
        item.query,
        selection=item.before,
    )


def _conflict(item: Conflict) -> Task:
    return Task(
        "conflict",
        item.question,
        {
            "conflict_answered_by_code": lambda answer: answers_by_code(item, answer),
            "conflict_answered_by_old_page": lambda answer: answers_by_page(item, answer),
        },
        f"{item.new}, not {item.old}",
        passages=item.passages,
    )


def _quoting(which: str, item: SpanQuestion) -> Task:
    holds = partial(holds_span, item.kind, item.span)
    return Task(
        f"{which}_{item.kind}",
        item.question,
        {f"{which}_span_quoted": _as_grade(holds), f"{which}_{item.kind}_quoted": _as_grade(holds)},
        item.span,
        item.query,
        item.passages,
        span=holds,
    )
