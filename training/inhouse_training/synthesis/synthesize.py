"""One run of the generator: an estimate, then as many requests as the bound allows, each reply kept as it arrives."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from inhouse_retrieval import InhouseError, Progress, no_progress, redact

from .cache import Replies, Reply, ReplyCache
from .generator import Generator, TaskFailed, TaskRefused
from .grounding import DroppedItem, ground
from .tasks import Task

_GIVE_UP = 5
"""Failures in a row, or refusals before any reply, after which there is no use in asking on."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What asking ``tasks`` would take. Tokens are estimates on the high side, replies counted at their longest.

    Attributes:
        cached: replies that are there already.
        open: requests that are not answered yet; the tokens are theirs.
    """

    generator: str
    cached: int
    open: int
    prompt_tokens: int
    reply_tokens: int

    @property
    def tokens(self) -> int:
        """Prompts and replies."""
        return self.prompt_tokens + self.reply_tokens


@dataclass(slots=True)
class SynthesisReport:
    """What a run came to.

    Attributes:
        asked: requests that were answered in this run.
        cached: that had been answered before.
        beyond_bound: that were left, since they might have taken more than the bound.
        refused, failed: that the generator does not take, or gave no reply to; the reasons with their counts.
        tokens: of this run, prompts and replies; as the generator counts them, where it does.
        grounded: items of all replies that can be rows, by topic.
        dropped: items that cannot, by topic and reason.
    """

    generator: str
    asked: int = 0
    cached: int = 0
    beyond_bound: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    seconds: float = 0.0
    grounded: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The stable JSON contract of ``inhouse dataset synthesize --json``."""
        return {
            "generator": self.generator,
            "asked": self.asked,
            "cached": self.cached,
            "beyond_bound": self.beyond_bound,
            "refused": dict(self.refused),
            "failed": dict(self.failed),
            "tokens": self.tokens,
            "seconds": round(self.seconds, 1),
            "grounded": dict(self.grounded),
            "dropped": {topic: dict(reasons.most_common()) for topic, reasons in self.dropped.items()},
        }


def estimate(tasks: Sequence[Task], replies: Replies) -> Estimate:
    """What asking the rest of ``tasks`` would take.

    Args:
        replies: of the generator that would be asked.
    """
    unanswered = [task for task in tasks if task.key(replies.generator) not in replies.by_key]
    return Estimate(
        replies.generator,
        len(tasks) - len(unanswered),
        len(unanswered),
        sum(task.prompt_tokens for task in unanswered),
        sum(task.reply_tokens for task in unanswered),
    )


def synthesize(
    tasks: Sequence[Task],
    generator: Generator,
    cache: ReplyCache,
    max_tokens: int,
    progress: Progress = no_progress,
) -> SynthesisReport:
    """Ask what is not answered yet, within ``max_tokens``, and hold all replies against their sources.

    Raises:
        InhouseError: the generator cannot be used; what it had answered is kept.
        Cancelled: ``progress`` raised it; likewise.
    """
    cache.choose(generator.name)
    had = cache.replies(generator.name).by_key
    unanswered = [task for task in tasks if task.key(generator.name) not in had]
    report = SynthesisReport(generator.name, cached=len(tasks) - len(unanswered))
    started = time.monotonic()
    asyncio.run(_Run(unanswered, generator, cache, max_tokens, report, progress).ask())
    report.seconds = time.monotonic() - started
    _judge(tasks, cache.replies(generator.name), report)
    return report


class _Run:
    """The requests of one run. All of it happens in one thread, so nothing is locked."""

    def __init__(
        self,
        tasks: Sequence[Task],
        generator: Generator,
        cache: ReplyCache,
        max_tokens: int,
        report: SynthesisReport,
        progress: Progress,
    ) -> None:
        self._left = iter(tasks)
        self._total = len(tasks)
        self._generator = generator
        self._cache = cache
        self._bound = max_tokens
        self._reserved = 0
        self._report = report
        self._progress = progress
        self._failures = 0

    async def ask(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._generator.concurrency, self._total)):
                    group.create_task(self._work())
        except BaseExceptionGroup as errors:
            first = errors.exceptions[0]
            # The group's other half was cancelled because of it.
            raise first from first.__cause__
        finally:
            await self._generator.close()
        self._report.beyond_bound += sum(1 for _ in self._left)

    async def _work(self) -> None:
        for task in self._left:
            # Reserved at its longest, so that tasks under way together cannot pass the bound either.
            reserved = task.prompt_tokens + task.reply_tokens
            if self._report.tokens + self._reserved + reserved > self._bound:
                self._report.beyond_bound += 1
                continue
            self._reserved += reserved
            try:
                await self._ask(task, reserved)
            finally:
                self._reserved -= reserved
            report = self._report
            done = report.asked + report.refused.total() + report.failed.total() + report.beyond_bound
            self._progress("asking the model", done, self._total)

    async def _ask(self, task: Task, reserved: int) -> None:
        try:
            reply = await self._generator.reply(task)
        except TaskRefused as error:
            self._report.refused[str(error)] += 1
            if not self._report.asked and self._report.refused.total() >= _GIVE_UP:
                raise InhouseError(
                    f"The model takes none of the first {_GIVE_UP} requests: {error}.",
                    "If its server knows no JSON schemas, set json_schema = false under [synthesis] in inhouse.toml.",
                ) from error
            return
        except TaskFailed as error:
            self._report.failed[str(error)] += 1
            self._report.tokens += task.prompt_tokens  # it may have been read, and paid for
            self._failures += 1
            if self._failures >= _GIVE_UP:
                raise InhouseError(
                    f"The model gave no reply to {_GIVE_UP} requests in a row: {error}.",
                    "Look at its server; run the command again to go on.",
                ) from error
            return
        self._failures = 0
        self._report.asked += 1
        self._report.tokens += (reply.prompt_tokens + reply.completion_tokens) or reserved
        places = ", ".join(section.place for section in task.sections)
        clean = Reply(redact(reply.text)[0], reply.whole, reply.prompt_tokens, reply.completion_tokens)
        self._cache.keep(task.key(self._generator.name), self._generator.name, task.topic, places, clean)


def _judge(tasks: Sequence[Task], replies: Replies, report: SynthesisReport) -> None:
    for task in tasks:
        reply = replies.by_key.get(task.key(replies.generator))
        for item in ground(task, reply) if reply is not None else ():
            if isinstance(item, DroppedItem):
                report.dropped.setdefault(task.topic, Counter())[item.reason] += 1
            else:
                report.grounded[task.topic] += 1
