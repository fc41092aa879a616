"""The part of an engine whose answers a scheduler makes together.

What is no conversation (scores, fixed questions answered in batches, filling in) goes as before, between two steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

from ..engine import Finished, GenerationEvent, GenerationRequest
from ..in_process_engine import InProcessEngine
from .scheduler import Scheduler


class NotTogether(Exception):
    """An adapter that cannot stand in a batch beside others."""


class TogetherEngine(InProcessEngine):
    """What cannot be made together is left to the class after this one, which decodes answers one at a time.

    Whoever inherits sets ``_scheduler``, whose ``load`` may raise :class:`NotTogether`.
    """

    _scheduler: Scheduler

    @property
    def streams(self) -> int:
        return self._scheduler.streams

    def forget(self) -> None:
        with self._turn.hold(Event()):
            self._scheduler.forget()
        super().forget()

    # Both are asked in the thread that asks for an answer, which holds nothing then.

    def _is_made_alone(self, adapter: str) -> bool:
        """Whether answers with this adapter are known not to be made together."""
        return False

    def _get_ready(self, adapter: str) -> None:
        """What can be done for an adapter without holding up the answers under way."""

    def _generate(
        self,
        prompt: list[int],
        request: GenerationRequest,
        limit: int,
        cancel: Event,
        ends: frozenset[int],
        patient: bool = False,
    ) -> Iterator[GenerationEvent]:
        if patient or limit < 1 or self._is_made_alone(request.adapter):
            yield from super()._generate(prompt, request, limit, cancel, ends, patient)
            return
        if cancel.is_set():
            yield Finished("cancelled", len(prompt), 0)
            return
        self._get_ready(request.adapter)
        asked = self._scheduler.ask(prompt, request, limit, ends, self._chooser(request), cancel)
        try:
            yield from self._events(asked.tokens(), prompt, request, cancel, ends)
        except NotTogether:
            yield from super()._generate(prompt, request, limit, cancel, ends)
