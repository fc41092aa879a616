"""What is read and written next: the answers of several requests in one loop.

Callers begin in turn, the requests of one of them in the order in which they came. Prompts are read in blocks, the
oldest first; no answer under way waits longer than a moment for its next token meanwhile. An answer that ends, or that
nobody waits for any more, makes room at once.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from threading import Event

import numpy as np
import torch

from inhouse_retrieval import InhouseError

from ..decoding import Drafts, FairLock, likeliest
from ..engine import GenerationRequest
from ..fair_queue import FairQueue
from .pool import Place, Places
from .steps import Chosen, Reading, Runs, Versions, Writing

log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 0.25
"""Reading prompts holds answers under way up no longer than this, and one block."""
SMALLER_BLOCK = 4
"""A model that does not go ahead reads blocks so many times smaller while answers are written."""
IDLE_S = 30.0
"""After so long without a request the thread ends; the next request starts another."""


@dataclass(eq=False, slots=True)
class Asked:
    """A request, from its arrival to its last token.

    Attributes:
        choose: picks tokens from logits [1, vocabulary]; ``None`` takes the likeliest.
        ends: tokens after which nothing is written.
        begun: called in the scheduler's thread when it waits no more.
        drafts: what it copies from itself, where the model reads drafts.
        cached: tokens of the conversation in the pool. ordered: tokens of the answer that were asked of the model.
    """

    prompt: list[int]
    adapter: str
    limit: int
    ends: frozenset[int]
    choose: Callable[[torch.Tensor], list[int]] | None
    cancel: Event
    caller: str
    begun: Callable[[], None]
    drafts: Drafts | None = None
    left: bool = False
    place: Place | None = None
    cached: int = 0
    ordered: int = 0
    made: list[int] = field(default_factory=list)
    over: bool = False
    _arrived: queue.SimpleQueue[int | BaseException | None] = field(default_factory=queue.SimpleQueue)

    @property
    def unwanted(self) -> bool:
        return self.left or self.cancel.is_set()

    def choose_from(self, logits: torch.Tensor, token: int) -> None:
        """Take the next token from ``logits``, [1, vocabulary], of which ``token`` is the likeliest.

        An error of the choice, of a schema that cannot be followed, say, ends this answer and no other.
        """
        try:
            chosen = self.choose(logits)[0] if self.choose else token
        except Exception as error:
            self.fail(error)
        else:
            self.give(chosen)

    def take(self, draft: Sequence[int], logits: torch.Tensor, tokens: Sequence[int]) -> None:
        """Take what a step made: after the token that it read, and after each of ``draft``, the likeliest one.

        Args:
            logits: [1 + draft, vocabulary].
        """
        if not draft or self.drafts is None:
            self.choose_from(logits, tokens[0])
            return
        agreed = self.drafts.checked(draft, tokens)
        self.cached += agreed
        self.ordered += agreed
        for token in (*draft[:agreed], tokens[agreed]):
            if not self.over:
                self.give(token)

    def give(self, token: int) -> None:
        self.made.append(token)
        self._arrived.put(token)
        self.over = token in self.ends or len(self.made) >= self.limit
        if self.over:
            self._arrived.put(None)

    def fail(self, error: BaseException | None) -> None:
        """End here; with ``None`` because nobody waits any more."""
        self.over = True
        self._arrived.put(error)

    def tokens(self) -> Generator[int, None, None]:
        """The answer's tokens as they come; in the thread that asked."""
        try:
            while not self.cancel.is_set():
                try:
                    arrived = self._arrived.get(timeout=0.05)  # an Event of the caller cannot wake this up
                except queue.Empty:
                    continue
                if arrived is None:
                    return
                if isinstance(arrived, BaseException):
                    raise arrived
                yield arrived
        finally:
            self.left = True


class Scheduler:
    """Answers requests together in a thread of its own while there are any.

    Args:
        turn: the engine's lock. It is held from the first request until there is none, or until somebody else waits.
        prepare: called with the turn held, before anything runs; gives what runs it.
        load: called with the turn held; puts an adapter into the stack, or raises.
        streams: answers under way at most. block: tokens of prompts in one forward pass at most.
        drafts: tokens that all answers under way may copy in one step; 0 where the model reads no drafts.

    Attributes:
        streams: as given.
        tokens_read, tokens_copied: of prompts so far, by the model and from another conversation's place.
    """

    def __init__(
        self,
        turn: FairLock,
        prepare: Callable[[], tuple[Runs, Versions]],
        load: Callable[[str, frozenset[str]], None],
        places: Places,
        streams: int,
        block: int,
        drafts: int = 0,
    ) -> None:
        self._turn = turn
        self._prepare = prepare
        self._load = load
        self._places = places
        self.streams = streams
        self._block = block
        self._drafts = drafts
        self._changed = threading.Condition()
        self._arriving: FairQueue[Asked] = FairQueue()
        self._threads: list[threading.Thread] = []  # one, or none
        self._reading: list[Asked] = []
        self._writing: list[Asked] = []
        self._ahead: tuple[list[Asked], list[Writing], Chosen] | None = (
            None  # a step whose tokens are not known here yet
        )
        self._wrote_at = 0.0
        self.tokens_read = 0
        self.tokens_copied = 0
        self._exiting = Event()
        # Python ends daemon threads in the middle of what they do, which aborts a process that is in torch's code.
        weakref.finalize(self, _leave, self._exiting, self._changed, self._threads)

    def ask(
        self,
        prompt: list[int],
        request: GenerationRequest,
        limit: int,
        ends: frozenset[int],
        choose: Callable[[torch.Tensor], list[int]] | None,
        cancel: Event,
    ) -> Asked:
        """Let a request be answered with at most ``limit`` tokens; they come to :meth:`Asked.tokens`.

        Args:
            ends, choose: as in :class:`Asked`.

        Raises:
            InhouseError: the pool is too small for the prompt.
        """
        room = self._places.tokens - len(prompt)
        if room < 1:
            raise InhouseError(
                f"The prompt takes {len(prompt)} tokens, and there is memory for {self._places.tokens}.",
                "Shorten the question or the conversation.",
            )
        asked = Asked(
            prompt, request.adapter, min(limit, room), ends, choose, cancel, request.caller, request.begun,
            Drafts(prompt) if self._drafts and choose is None else None,
        )  # fmt: skip
        with self._changed:
            self._arriving.push(asked.caller, asked)
            if not self._threads:
                self._threads.append(threading.Thread(target=self._run, name="inhouse-answers", daemon=True))
                self._threads[0].start()
            self._changed.notify()
        return asked

    def close(self) -> None:
        """End the thread, which keeps what runs the model. Nothing may be submitted afterwards."""
        _leave(self._exiting, self._changed, self._threads)

    @property
    def waiting(self) -> int:
        """Requests that have not begun."""
        with self._changed:
            return len(self._arriving)

    @property
    def under_way(self) -> int:
        """Answers that have begun and not ended."""
        return len(self._reading) + len(self._writing)

    @property
    def in_use(self) -> frozenset[str]:
        """Versions of the answers under way; with the turn held."""
        return frozenset(each.adapter for each in (*self._reading, *self._writing))

    def forget(self) -> None:
        """Keep nothing of what ended conversations have read; with the turn held."""
        self._places.forget()

    # ------------------------------------------------------------------------------------------------------
    # Everything below runs in the scheduler's thread.

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(self._wanted, IDLE_S) or self._exiting.is_set():
                    self._threads.clear()
                    return
            with self._turn.hold(Event()):
                self._work()

    def _wanted(self) -> bool:
        return bool(self.waiting or self.under_way or self._exiting.is_set())

    def _work(self) -> None:
        """Answer until nobody is left, or somebody else wants the model."""
        try:
            decoder, stack = self._prepare()
            with torch.inference_mode():
                while self._step(decoder, stack):
                    if self._turn.wanted or self._exiting.is_set():
                        self._settle()
                        break
        except BaseException as error:  # belongs to those who asked; the next request finds a clean state
            log.exception("answers under way have failed")
            self._fail_all(error)

    def _step(self, decoder: Runs, stack: Versions) -> bool:
        """Whether there is more to do."""
        self._drop_unwanted()
        self._admit(stack)
        paused = time.monotonic() - self._wrote_at > LONGEST_PAUSE_S
        if self._reading:
            self._read_block(decoder, stack)
        if (self._writing or self._ahead) and (not self._reading or paused or not decoder.ahead):
            self._write(decoder, stack)
            self._wrote_at = time.monotonic()
        return bool(self._reading or self._writing or self._ahead or self.waiting)

    def _drop_unwanted(self) -> None:
        for each in [each for each in (*self._reading, *self._writing) if each.unwanted and not each.over]:
            each.fail(None)
        with self._changed:
            gone = [each for each in self._arriving if each.unwanted]
            for each in gone:
                self._arriving.remove(each.caller, each)
        for each in gone:
            each.fail(None)
        self._release_ended()

    def _release_ended(self) -> None:
        for group in (self._reading, self._writing):
            for each in [each for each in group if each.over]:
                group.remove(each)
                assert each.place is not None
                self._places.give_back(each.place, [*each.prompt, *each.made][: each.cached])

    def _admit(self, stack: Versions) -> None:
        """Begin with those whose turn it is, as long as there is room for them."""
        while self.under_way < self.streams:
            with self._changed:
                first = self._arriving.first()
            if first is None:
                return
            in_use = self.in_use
            try:
                if not stack.has(first.adapter):
                    if not stack.can_add(in_use):
                        return
                    self._settle()
                    with torch.inference_mode(False), torch.no_grad():  # others use what is loaded too
                        self._load(first.adapter, in_use)
            except Exception as error:  # an adapter that is unknown or corrupt: its own request fails, no other
                with self._changed:
                    self._arriving.remove(first.caller, first)
                first.fail(error)
                continue
            first.place = self._places.take(len(first.prompt) + first.limit, first.adapter)
            if first.place is None:
                return
            with self._changed:
                self._arriving.take(first.caller, first)
            self._reading.append(first)
            first.begun()

    def _read_block(self, decoder: Runs, stack: Versions) -> None:
        size = self._block if decoder.ahead or not self._writing else self._block // SMALLER_BLOCK
        room, block, readings = size, [], []
        for each in self._reading:
            if room == 0:
                break
            assert each.place is not None
            if each.cached == 0:
                each.cached = self._copy_beginning(each, decoder)
            ids = each.prompt[each.cached : each.cached + room]
            last = each.cached + len(ids) == len(each.prompt)
            readings.append(Reading(ids, each.cached, each.place.start, stack.row(each.adapter), last))
            block.append(each)
            room -= len(ids)
        logits = decoder.read(readings)
        self.tokens_read += size - room
        ended = []
        for each, reading in zip(block, readings, strict=True):
            each.cached += len(reading.ids)
            each.place.ids = np.asarray(each.prompt[: each.cached])  # type: ignore[union-attr]
            if reading.last:
                ended.append(each)
        if ended:
            for each, token, row in zip(ended, likeliest(logits), logits.split(1), strict=True):
                each.ordered = 1
                each.choose_from(row, token)
                self._reading.remove(each)
                self._writing.append(each)
            self._release_ended()

    def _copy_beginning(self, asked: Asked, decoder: Runs) -> int:
        assert asked.place is not None
        start, count = self._places.same_beginning(asked.prompt, asked.place)
        if count:
            self.tokens_copied += count
            decoder.copy(start, asked.place.start, count)
        return count

    def _write(self, decoder: Runs, stack: Versions) -> None:
        """One more token of each answer, and what it copies. Where the GPU goes ahead, those of the step before are
        handed out while it works."""
        if any(each.choose for each in self._writing):
            self._settle()
        known = self._ahead[0] if self._ahead else []
        rows = [each for each in self._writing if not each.over and each.ordered < each.limit]
        rows.sort(key=lambda each: each.place.start)  # type: ignore[union-attr]
        before, self._ahead = self._ahead, None
        if rows:
            share = self._drafts // len(rows)
            writings = [_writing(each, known, stack, share) for each in rows]
            chosen = decoder.write(writings)
            for each in rows:
                each.ordered += 1
                each.cached += 1
            self._ahead = (rows, writings, chosen)
        if before:
            _hand_out(*before)
        if self._ahead and (not decoder.ahead or any(each.choose for each in rows)):
            self._settle()
        self._release_ended()

    def _settle(self) -> None:
        """Hand out what was computed ahead."""
        if self._ahead:
            ahead, self._ahead = self._ahead, None
            _hand_out(*ahead)
            self._release_ended()

    def _fail_all(self, error: BaseException) -> None:
        with self._changed:
            everybody = [*self._reading, *self._writing, *self._arriving]
            self._arriving = FairQueue()
        self._reading, self._writing, self._ahead = [], [], None
        self._places.clear()
        for each in everybody:
            each.fail(error)


def _leave(exiting: Event, changed: threading.Condition, threads: list[threading.Thread]) -> None:
    """Let the scheduler's thread end, and wait a moment for it."""
    exiting.set()
    with changed:
        changed.notify_all()
    for thread in tuple(threads):
        if thread is not threading.current_thread():
            thread.join(5.0)


def _writing(asked: Asked, known: list[Asked], stack: Versions, share: int) -> Writing:
    assert asked.place is not None
    ahead = asked.ordered > len(asked.made)
    draft: list[int] = []
    if asked.drafts is not None:
        # What is copied must not run over the limit.
        draft = asked.drafts.propose(asked.made[-1], min(share, asked.limit - len(asked.made) - 1))
    return Writing(
        None if ahead else asked.made[-1],
        known.index(asked) if ahead else -1,
        asked.cached,
        asked.place.start,
        stack.row(asked.adapter),
        draft,
    )


def _hand_out(rows: list[Asked], writings: list[Writing], chosen: Chosen) -> None:
    tokens, at = chosen.tokens(), 0
    for each, writing in zip(rows, writings, strict=True):
        end = at + 1 + len(writing.draft)
        if not each.over and not each.unwanted:
            each.take(writing.draft, chosen.logits[at:end], tokens[at:end])
        at = end
