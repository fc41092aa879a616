"""Ask: retrieve, fit the prompt, stream the answer, cite.

Citations are the passages that were in the prompt and nothing else, so each of them opens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import PurePosixPath
from threading import Event, Thread
from typing import TypeVar

from inhouse_retrieval import EVERYWHERE, Index, Passage, SearchResult, Within, numbers_named, redact
from inhouse_retrieval.errors import Cancelled, InhouseError
from inhouse_retrieval.passage import on_day
from inhouse_server.admission import Place
from inhouse_server.answers import (
    CURRENT,
    AnswerEvent,
    AnswerFinished,
    Provenance,
    Question,
    Timings,
)
from inhouse_server.settings import AnswerSettings
from inhouse_training import (
    BASE,
    AnswerPrompt,
    Engine,
    Finished,
    GenerationRequest,
    Registry,
    Repetition,
    TextDelta,
    build_answer_prompt,
)

_Made = TypeVar("_Made")
_LOOK_AGAIN_S = 0.05


class Assistant:
    """Answers questions about one repository. Safe to call from several threads at once.

    Args:
        engine: returns the loaded engine; the first call may take seconds.
        answered: told of each answer when it has ended.
        within: the part of the repository that it searches. For less than all, the base model answers: adapters have
            learned from the whole, and nobody can say what they tell of it.
        serving: the version that answers now, when the registry's current one may not be ready yet.
        admission: entered around each answer; it refuses when too many wait, and gives the answer's place.
    """

    def __init__(
        self,
        engine: Callable[[], Engine],
        index: Index,
        registry: Registry,
        settings: AnswerSettings,
        answered: Callable[[AnswerFinished], None] = lambda finished: None,
        within: Within = EVERYWHERE,
        serving: Callable[[], str | None] | None = None,
        admission: Callable[[], AbstractContextManager[Place]] = lambda: nullcontext(Place()),
    ) -> None:
        self._engine = engine
        self._index = index
        self._registry = registry
        self._settings = settings
        self._answered = answered
        self._within = within
        self._serving = serving or registry.current
        self._admission = admission

    def ask(self, question: Question, cancel: Event) -> Iterator[AnswerEvent]:
        """Stream the answer: text deltas, then one :class:`AnswerFinished`.

        Setting ``cancel`` stops before the next token; what was said so far stays. An answer that goes round in
        circles is stopped as well.

        Raises:
            Cancelled: ``cancel`` was set before there was an answer, while searching or while a model loaded.
            Overloaded: too many answers wait already, or others' questions have come before this one began.
            InhouseError: the question is empty or too long, the adapter is unknown, or the engine failed.
        """
        with self._admission() as place:
            yield from self._answer(question, _AlsoSet(cancel, place.lost), place)

    def _answer(self, question: Question, cancel: Event, place: Place) -> Iterator[AnswerEvent]:
        started = time.perf_counter()
        question = _readable(question)
        if not question.text.strip():
            raise InhouseError("The question is empty.", "Ask something about the repository.")
        self._check(question.adapter)
        found = _unless_cancelled(lambda: self._retrieve(question), cancel)
        retrieved = time.perf_counter()

        engine = _unless_cancelled(self._engine, cancel)
        adapter = self._adapter(question.adapter)
        max_tokens = question.max_tokens or self._settings.max_tokens
        prompt = build_answer_prompt(
            question.text,
            found.passages if found else (),
            engine.count_tokens,
            min(self._settings.prompt_tokens, engine.context_tokens - max_tokens),
            question.history,
            _selection_passage(question),
        )
        sampling = question.sampling
        request = GenerationRequest(
            prompt.messages,
            adapter,
            max_tokens,
            sampling.temperature,
            sampling.top_p,
            sampling.stop,
            sampling.seed,
            sampling.schema,
            place.caller,
            place.begin,
        )
        first_token: float | None = None
        finished = Finished("cancelled", 0, 0)
        repetition, stop = Repetition(), _AlsoSet(cancel)
        for event in engine.stream(request, stop):
            if isinstance(event, TextDelta):
                first_token = first_token or time.perf_counter()
                yield event
                if repetition.push(event.text):
                    stop.set()
            else:
                finished = event
        if place.lost.is_set():
            raise _cancelled()
        reason = "repetition" if stop.by_itself else finished.reason
        could_be_found = question.pull_requests and self._within.everywhere and self._index.reads_pull_requests()
        named = numbers_named(question.text) if could_be_found else []
        ended = time.perf_counter()
        answer = AnswerFinished(
            citations=prompt.included,
            omitted=prompt.omitted,
            notes=_notes(prompt, found, reason, named),
            reason=reason,
            provenance=Provenance(
                base_model=engine.base_model,
                adapter=None if adapter == BASE else adapter,
                index_commit=found.index_commit if found else None,
                pending=found.pending if found else 0,
            ),
            timings=Timings(
                retrieve_ms=_milliseconds(started, retrieved),
                first_token_ms=_milliseconds(started, first_token or ended),
                total_ms=_milliseconds(started, ended),
                prompt_tokens=finished.prompt_tokens,
                completion_tokens=finished.completion_tokens,
            ),
        )
        self._answered(answer)
        yield answer

    def _check(self, adapter: str) -> None:
        """Raise InhouseError, before anything is searched, when this version cannot be asked."""
        if adapter in (CURRENT, BASE):
            return
        if not self._within.everywhere:
            raise InhouseError(
                "This token sees a part of the repository, and adapters have learned from all of it.",
                "Ask the base model.",
            )
        self._registry.get(adapter)

    def _adapter(self, name: str) -> str:
        """The version (or the base) that this answer is pinned to from its first token to its last."""
        if not self._within.everywhere:
            return BASE
        if name != CURRENT:
            return name
        current = self._serving()
        if current is not None and not self._registry.has(current):
            raise InhouseError(
                f"The current adapter {current} is missing.",
                "`inhouse adapters rollback` goes back to the one before; adapter 'base' answers meanwhile.",
            )
        return current or BASE

    def _retrieve(self, question: Question) -> SearchResult | None:
        if not question.retrieve or self._settings.passages == 0:
            return None
        query = question.text
        if question.selection is not None:
            query = f"{query}\n{question.selection.path}\n{question.selection.text}"
        limit, beside = self._settings.passages, question.pull_requests
        return self._index.search(query, limit, question.open_documents, pull_requests=beside, within=self._within)


def _unless_cancelled(work: Callable[[], _Made], cancel: Event) -> _Made:
    """What ``work`` makes. It cannot be stopped: once cancelled nobody waits, and a model goes on loading for the next.

    Raises:
        Cancelled: ``cancel`` was set before it was made.
    """
    made: list[_Made] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            made.append(work())
        except BaseException as error:
            failed.append(error)

    thread = Thread(target=run, name="answer-preparing", daemon=True)
    thread.start()
    while thread.is_alive():
        if cancel.is_set():
            raise _cancelled()
        thread.join(_LOOK_AGAIN_S)
    if failed:
        raise failed[0]
    return made[0]


def _cancelled() -> Cancelled:
    return Cancelled("The question was cancelled.", "Ask it again.")


def _readable(question: Question) -> Question:
    """Without secrets, and without halves of surrogate pairs, which JSON may spell and no tokenizer reads."""

    def mended(text: str) -> str:
        return redact(text.encode("utf-8", "replace").decode())[0]

    selection = question.selection
    return replace(
        question,
        text=mended(question.text),
        history=tuple(replace(turn, content=mended(turn.content)) for turn in question.history),
        selection=replace(selection, text=mended(selection.text)) if selection is not None else None,
    )


class _AlsoSet(Event):
    """Set by itself or since one of other events is; engines only ask :meth:`is_set`."""

    def __init__(self, *others: Event) -> None:
        super().__init__()
        self._others = others

    @property
    def by_itself(self) -> bool:
        return super().is_set() and not self._otherwise()

    def is_set(self) -> bool:
        return super().is_set() or self._otherwise()

    def _otherwise(self) -> bool:
        return any(other.is_set() for other in self._others)


def _selection_passage(question: Question) -> Passage | None:
    selection = question.selection
    if selection is None:
        return None
    return Passage(
        path=selection.path,
        start_line=selection.start_line,
        end_line=selection.end_line,
        text=selection.text,
        source="code",
        blob_id="",
        commit="",
        score=1.0,
        legs=("selection",),
    )


def _notes(prompt: AnswerPrompt, found: SearchResult | None, reason: str, named: Sequence[int]) -> tuple[str, ...]:
    """What the user should know. ``named``: pull requests that the question names and that could be found."""
    notes: list[str] = []
    if found is not None:
        pages = {PurePosixPath(passage.path).stem for passage in found.passages if passage.source == "pull_request"}
        if unknown := [f"#{number}" for number in named if str(number) not in pages]:
            notes.append(f"No pull request {' or '.join(unknown)} is in the history that was read.")
    if prompt.dropped_turns:
        notes.append(f"The prompt was full, so {prompt.dropped_turns} earlier message(s) were left out.")
    if prompt.omitted:
        places = ", ".join(f"{p.path}:{p.start_line}" for p in prompt.omitted)
        notes.append(f"The prompt was full, so {len(prompt.omitted)} passage(s) were left out: {places}.")
    for page in prompt.included:
        if page.newer_code:
            notes.append(
                f"{page.path} was last changed {on_day(page.updated)}, and {page.newer_code}, which it describes, "
                f"on {page.newer_code_updated}."
            )
    if found and found.pending:
        notes.append(f"{found.pending} changed file(s) are not in the index yet.")
    if found is not None and not found.passages:
        notes.append("The search found nothing; the answer comes from the model alone.")
    if reason == "length":
        notes.append("The answer was cut at its longest allowed length.")
    if reason == "repetition":
        notes.append("The answer had begun to repeat itself and was stopped.")
    return tuple(notes)


def _milliseconds(start: float, end: float) -> float:
    return round((end - start) * 1000, 1)
