"""An answer that goes round in circles is stopped; code that merely looks alike is not."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

import pytest

from inhouse_retrieval import Index, Repository
from inhouse_server.answers import AnswerFinished, Question
from inhouse_server.assistant import Assistant
from inhouse_server.settings import AnswerSettings
from inhouse_training import (
    BASE,
    Finished,
    GenerationEvent,
    GenerationRequest,
    Message,
    Registry,
    Repetition,
    RowScore,
    ScoredRow,
    TextDelta,
)

SENTENCE = "The function returns the adapter that was promoted last. "
LONGER = "It reads the manifest, checks every hash that it names, and only then renames the folder into its place. "


def stopped_at(text: str, step: int = 4) -> int | None:
    """Characters that had been said when the loop was noticed."""
    watch = Repetition()
    for at in range(0, len(text), step):
        if watch.push(text[at : at + step]):
            return at + step
    return None


@pytest.mark.parametrize("step", [1, 3, 7])
@pytest.mark.parametrize("piece", [SENTENCE, "ha ", "\n", "- `a.py`\n- `b.py`\n", SENTENCE + LONGER])
def test_a_loop_is_noticed_after_four_rounds(piece: str, step: int) -> None:
    opening = "It is done in `registry.py`, by renaming one file over another.\n"
    at = stopped_at(opening + piece * 400, step)
    assert at is not None
    expected = len(opening) + max(160, 4 * len(piece))
    assert expected - len(piece) <= at <= expected + step + len(piece)


def test_a_list_that_only_counts_is_a_loop() -> None:
    assert stopped_at("".join(f"{n}. {SENTENCE}\n" for n in range(1, 40))) is not None
    assert stopped_at("".join(f"{n}. {SENTENCE}\n" for n in range(1, 6))) is None


def test_code_is_not_a_loop() -> None:
    for file in Path(__file__).parents[2].rglob("*inhouse_*/**/*.py"):
        assert stopped_at(file.read_text(), 50) is None, file


def test_a_sentence_that_comes_back_now_and_then_is_not_a_loop() -> None:
    words = random.Random(3)
    text = "".join(SENTENCE + "".join(words.choices("abcdefgh ", k=30)) for _ in range(60))
    assert stopped_at(text) is None


class Parrot:
    """An engine that says one sentence until it is told to stop."""

    base_model = "parrot"
    context_tokens = 8192

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content) for message in messages)

    def stream(self, request: GenerationRequest, cancel: Event) -> Iterator[GenerationEvent]:
        said = 0
        while said < request.max_tokens and not cancel.is_set():
            said += 1
            yield TextDelta(SENTENCE)
        yield Finished("cancelled" if cancel.is_set() else "length", 1, said)

    def score(self, rows: Sequence[ScoredRow], adapter: str = BASE) -> list[RowScore]:
        raise AssertionError


def ask(index: Index, tmp_path: Path, cancel: Event, leave_after: int = 1000) -> tuple[int, AnswerFinished]:
    assistant = Assistant(Parrot, index, Registry(tmp_path / "adapters"), AnswerSettings())
    events = assistant.ask(Question("What?", retrieve=False, max_tokens=300), cancel)
    for pieces, event in enumerate(events):
        if isinstance(event, AnswerFinished):
            return pieces, event
        if pieces + 1 == leave_after:
            cancel.set()
    raise AssertionError("the answer has no end")


def test_an_answer_that_loops_is_stopped_and_says_so(shop: Path, tmp_path: Path) -> None:
    with Index.open(Repository.open(shop), tmp_path / "state") as index:
        pieces, finished = ask(index, tmp_path, cancel := Event())
        assert pieces == 4 and finished.timings.completion_tokens == 4
        assert finished.reason == "repetition"
        assert finished.notes == ("The answer had begun to repeat itself and was stopped.",)
        assert not cancel.is_set(), "that event is the caller's"

        pieces, finished = ask(index, tmp_path, Event(), leave_after=2)
        assert (pieces, finished.reason) == (2, "cancelled")
