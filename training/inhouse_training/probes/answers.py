"""Short answers to fixed questions, and what is wrong with them.

Half of the questions ask for the lines of held-out changes, in the product's own words; half ask what a definition of
the snapshot is for. All are asked as the product asks, with passages where it has them, and answered greedily: the same
questions and weights give the same answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inhouse_retrieval import PullRequest, Repository, SkippedFile
from inhouse_retrieval.syntax import parse

from ..cut import HeldOutChange
from ..documents import added_lines
from ..engine import Message
from ..evaluation import bounded_question
from ..prompts import build_answer_prompt
from ..recipe import EvaluationSettings
from ..repetition import Repetition
from ..snapshot_search import Retriever
from .identifiers import claimed_identifiers, names_in

_PASSAGES = 8
_PIECE = 8
"""Characters that are handed to the loop watcher at once."""
_LONGEST_PATH = 80
_LEAST_PROMPT = 256
"""Tokens in which every question fits without passages."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question of the probe, and what to search for with it."""

    text: str
    query: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What one answer holds.

    Attributes:
        identifiers: names that it speaks of as if they existed.
        unknown: those of them that stand nowhere in the repository and not in the prompt.
        loops: it ends in the same text over and over.
        empty: it says nothing.
        endless: it did not end within the probe's tokens.
    """

    identifiers: int
    unknown: tuple[str, ...]
    loops: bool
    empty: bool
    endless: bool


@dataclass(frozen=True, slots=True)
class House:
    """What exists: definitions to ask for, as ``(path, name)``, and every name."""

    definitions: tuple[tuple[str, str], ...]
    names: frozenset[str]


def read_house(repository: Repository, snapshot: str, later: Sequence[PullRequest]) -> House:
    """Read a snapshot. Names that ``later`` changes add exist as well: a change is judged by its own."""
    definitions: set[tuple[str, str]] = set()
    names: set[str] = set()
    for item in repository.iter_texts(repository.snapshot(snapshot)):
        if isinstance(item, SkippedFile):
            continue
        file, text = item
        names |= names_in((file.path, text))
        syntax = parse(file.path, text) if len(file.path) <= _LONGEST_PATH else None
        for definition in syntax.definitions if syntax is not None else ():
            # A name of one plain word says too little about which one is meant.
            if claimed_identifiers(definition.name) == {definition.name}:
                definitions.add((file.path, definition.name))
    for change in later:
        names |= names_in((change.title, *(file.path for file in change.files)))
        names |= names_in(added_lines(file.patch) for file in change.files)
    return House(tuple(sorted(definitions, key=_draw)), frozenset(names))


def _draw(definition: tuple[str, str]) -> bytes:
    return hashlib.sha256("\0".join(definition).encode("utf-8", "surrogateescape")).digest()


def choose_questions(
    engine: Any, held_out: Sequence[HeldOutChange], house: House, settings: EvaluationSettings
) -> tuple[Question, ...]:
    """At most ``settings.probe_questions``: the same for every adapter."""
    half = settings.probe_questions // 2
    step = max(1, len(held_out) // max(half, 1))
    edits = [
        Question(bounded_question(engine, change, settings), f"{change.title} {change.path}")
        for change in held_out[::step][:half]
    ]
    asked = [
        Question(f"In one or two sentences: what is `{name}` in {path} for, and what does it call?", f"{name} {path}")
        for path, name in house.definitions[: settings.probe_questions - len(edits)]
    ]
    return (*edits, *asked)


def prompts_of(
    engine: Any, questions: Sequence[Question], retriever: Retriever | None, settings: EvaluationSettings
) -> list[tuple[Message, ...]]:
    """Each question as the product asks it."""
    prompts = []
    for question in questions:
        passages = retriever(question.query, _PASSAGES) if retriever is not None else ()
        prompt = build_answer_prompt(
            question.text, passages, engine.count_tokens, max(settings.prompt_tokens, _LEAST_PROMPT)
        )
        prompts.append(prompt.messages)
    return prompts


def check_answer(prompt: Sequence[Message], answer: str, ended: bool, house: House) -> Checked:
    """Look at one answer to ``prompt``."""
    claimed = claimed_identifiers(answer)
    known = house.names | names_in(message.content for message in prompt)
    watch = Repetition()
    # Every piece is shown to the watcher: a loop that a few last words follow is one all the same.
    loops = [watch.push(answer[at : at + _PIECE]) for at in range(0, len(answer), _PIECE)]
    unknown = tuple(sorted(claimed - known))
    return Checked(len(claimed), unknown, any(loops), not answer.strip(), not ended)
