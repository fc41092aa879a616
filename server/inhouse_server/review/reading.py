"""The reading reviewer: a model reads each hunk with the code around it, with precedents and with what reviewers said
about similar code before, and says what is wrong.

It only quotes code; where that stands is found by us, and what it proposes is shown only when it is proven. Text of the
change is data: the model has no tools, and its answer is held to a JSON schema.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

from inhouse_retrieval import InhouseError, Passage, redact
from inhouse_server.review.change import Change, Hunk, ReviewedFile
from inhouse_server.review.finding import Finding, Precedent
from inhouse_server.review.past_remarks import PastRemarks
from inhouse_server.review.proof import find_quotation, prove
from inhouse_server.review.reading_prompt import fitting, notes_on, part_that_fits, query
from inhouse_server.review.second_look import TEMPERATURE, agreed, looked_at_again
from inhouse_training import Engine, GenerationRequest, TextDelta
from inhouse_training.plain_text import plain_text
from inhouse_training.review_prompt import SCHEMA

READING = "reading"
"""The rule of what the model remarks."""
_PRECEDENTS = 3
_REMARKS = 2
_LEAST_CONFIDENCE = 5

Search = Callable[[str, int], Sequence[Passage]]
"""``(query, limit)`` -> passages of the repository, best first."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of reading one hunk.

    Attributes:
        unseen: why the hunk was not read; ``""`` when it was.
        part: which lines of it were read when not all were; ``""`` when all were.
        dropped: reason -> remarks or replacements that could not be proven.
        notes: what was taken out of the texts that the model was shown beside the change.
    """

    findings: tuple[Finding, ...]
    unseen: str
    dropped: dict[str, int]
    notes: tuple[str, ...] = ()
    part: str = ""


def read_hunks(
    change: Change,
    engine: Engine,
    adapter: str,
    search: Search,
    remarks: PastRemarks,
    prompt_tokens: int,
    max_tokens: int,
    cancel: Event,
    samples: int = 1,
    second_look: bool = False,
    caller: str = "",
) -> Iterator[tuple[ReviewedFile, Hunk, Reading]]:
    """Read hunk after hunk.

    Args:
        prompt_tokens: longest prompt; precedents and remarks are left out first, then the code around the hunk. Of a
            hunk that does not fit alone the first lines are read, which is said.
        samples: how often each hunk is read; what more than half of them remark on counts.
        second_look: ask the model to score what was proven.
        caller: whose review it is; see :class:`~inhouse_training.GenerationRequest`.

    A failure of the engine ends the reading, not the review: the hunks from there on are not read, which is said.
    """
    failed = ""
    budget = min(prompt_tokens, engine.context_tokens - max_tokens)
    for file in change.files:
        for hunk in file.hunks:
            if cancel.is_set() or failed:
                yield file, hunk, Reading((), failed or "cancelled", {})
                continue
            if not hunk.added:
                yield file, hunk, Reading((), "it only removes lines", {})
                continue
            try:
                asked = query(file, hunk)
                passages = [p for p in search(asked, _PRECEDENTS + 1) if p.path != file.path][:_PRECEDENTS]
                said = remarks.about(file.path, asked, _REMARKS, plain_text(change.title))
                messages, whole = fitting(change, file, hunk, passages, said, engine, budget), hunk
                if messages is None and (shorter := part_that_fits(change, file, hunk, engine, budget)) is not None:
                    hunk, passages, said = shorter, [], []
                    messages = fitting(change, file, hunk, passages, said, engine, budget)
                if messages is None:
                    yield file, hunk, Reading((), f"it is longer than the prompt ({budget} tokens)", {})
                    continue
                request = GenerationRequest(messages, adapter, max_tokens, schema=SCHEMA, caller=caller)
                readings = [
                    _proven(file, hunk, _reply(engine, _sample(request, number), cancel), passages)
                    for number in range(samples)
                ]
                reading = _together(readings)
                if second_look and reading.findings:
                    kept, gone = looked_at_again(engine, adapter, messages, reading.findings, budget, cancel, caller)
                    reading = replace(reading, findings=tuple(kept), dropped=_sum(reading.dropped, gone))
            except InhouseError as error:
                failed = f"the model failed: {error.problem}"
                yield file, hunk, Reading((), failed, {})
                continue
            part = "" if hunk is whole else f"the first {len(hunk.lines)} of {len(whole.lines)} lines of the hunk"
            yield file, whole, replace(reading, notes=notes_on(passages, said), part=part)


def _sample(request: GenerationRequest, number: int) -> GenerationRequest:
    return replace(request, temperature=TEMPERATURE, seed=number) if number else request


def _reply(engine: Engine, request: GenerationRequest, cancel: Event) -> str:
    return "".join(event.text for event in engine.stream(request, cancel) if isinstance(event, TextDelta))


def _together(readings: Sequence[Reading]) -> Reading:
    kept, minority = agreed([reading.findings for reading in readings])
    return Reading(tuple(kept), "", _sum(*(reading.dropped for reading in readings), minority))


def _sum(*dropped: dict[str, int]) -> dict[str, int]:
    return dict(sum(map(Counter, dropped), Counter[str]()))


def parse_reply(reply: str) -> list[dict[str, Any]] | None:
    """The findings in a reply; of one that was cut off or wrapped in prose, those that are whole; ``None``: no JSON."""
    if "{" not in reply:
        return None
    whole, _ = _object_at(reply, reply.index("{"))
    listed = whole.get("findings") if whole is not None else None
    if isinstance(listed, list):
        return [row for row in listed if _is_finding(row)]
    rows, at = [], 0
    while (at := reply.find("{", at)) >= 0:
        row, at = _object_at(reply, at)
        if row is not None and _is_finding(row):
            rows.append(row)
    return rows if rows or '"findings"' in reply else None


def _object_at(reply: str, at: int) -> tuple[dict[str, Any] | None, int]:
    """The JSON object that begins at a brace, and where to look on; ``None`` when it is cut off, or none at all."""
    try:
        found, end = json.JSONDecoder().raw_decode(reply, at)
    except (ValueError, RecursionError):
        return None, at + 1
    return (found, end) if isinstance(found, dict) else (None, at + 1)


def _is_finding(row: object) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(key), str) for key in ("quote", "problem", "better"))


def _proven(file: ReviewedFile, hunk: Hunk, reply: str, passages: Sequence[Passage]) -> Reading:
    rows = parse_reply(reply)
    if rows is None:
        return Reading((), "", {"the reply was no JSON": 1})
    findings: list[Finding] = []
    is_cut = _object_at(reply, reply.index("{"))[0] is None
    dropped: Counter[str] = Counter({"the reply was cut off": 1} if is_cut else {})
    for row in rows:
        confidence = row.get("confidence")
        sure = confidence if isinstance(confidence, int) else _LEAST_CONFIDENCE
        problem = redact(plain_text(row["problem"]))[0]
        if not problem or sure < _LEAST_CONFIDENCE:
            dropped["the model itself was not sure"] += 1
            continue
        place = find_quotation(row["quote"], file, hunk)
        if isinstance(place, str):
            dropped[place] += 1
            continue
        first, last = place
        if not set(range(first, last + 1)) & set(hunk.added):
            dropped["it is about lines that did not change"] += 1
            continue
        replacement, refused = prove(file, first, last, row["better"]) if row["better"].strip() else (None, None)
        if refused is not None:
            dropped[refused] += 1
            replacement = None
        anchor = file.shown(first, last)
        precedents = tuple(Precedent(p.path, p.start_line, p.end_line, "similar code") for p in passages)
        findings.append(
            Finding(
                file.path,
                first,
                last,
                "warning",
                READING,
                problem,
                anchor,
                replacement,
                precedents,
                score=min(sure, 10) / 10,
                # Not what it says: a model words it otherwise when as little as the change's title is another.
                key=" ".join(anchor.split()),
            )
        )
    return Reading(tuple(findings), "", dict(dropped))
