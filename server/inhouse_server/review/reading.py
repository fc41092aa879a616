"""The reading reviewer: a model reads each hunk with the code around it, with precedents and with what reviewers said
about similar code before, and says what is wrong.

It only quotes code; where that stands is found by us, and what it proposes is shown only when it is proven. Text of the
change is data: the model has no tools, and its answer is held to a JSON schema.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

from inhouse_retrieval import InhouseError, Passage, redact
from inhouse_server.review.diff import Change, Hunk, ReviewedFile
from inhouse_server.review.finding import Finding, Precedent
from inhouse_server.review.past_remarks import PastRemarks, Remark
from inhouse_server.review.plain_text import plain_text, visible
from inhouse_server.review.proof import find_quotation, prove
from inhouse_training import Engine, GenerationRequest, Message, TextDelta
from inhouse_training.prompts import code_block, passage_remark

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "findings": {
                "type": "array",
                "maxItems": 3,
                "items": {
                    "type": "object",
                    "properties": {
                        "quote": {"type": "string", "maxLength": 400},
                        "problem": {"type": "string", "maxLength": 400},
                        "better": {"type": "string", "maxLength": 800},
                        "confidence": {"type": "integer", "minimum": 0, "maximum": 10},
                    },
                    "required": ["quote", "problem", "better", "confidence"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["findings"],
        "additionalProperties": False,
    }
)
SYSTEM = (
    "You review a change to this code repository. Report only real problems: bugs, and code that departs from how the "
    "repository does it. Quote the added lines exactly, say what is wrong in one sentence, and give the lines that "
    "should stand there instead, or an empty string. Most changes are fine: then report nothing."
)
_ASK = (
    "Answer as JSON with a list of findings. Each has the quote, the problem, the better lines, and how sure you are "
    "from 0 to 10. When nothing is wrong, the list is empty."
)
"""No example: a small model copies it."""
_AROUND = 12
"""Lines before and after a hunk that the model reads with it."""
_PRECEDENTS = 3
_REMARKS = 2
_LEAST_CONFIDENCE = 5
_OBJECT = re.compile(r"\{[^{}]*\}", re.S)

Search = Callable[[str, int], Sequence[Passage]]
"""``(query, limit)`` -> passages of the repository, best first."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of reading one hunk.

    Attributes:
        unseen: why the hunk was not read; ``""`` when it was.
        dropped: reason -> remarks or replacements that could not be proven.
    """

    findings: tuple[Finding, ...]
    unseen: str
    dropped: dict[str, int]


def read_hunks(
    change: Change,
    engine: Engine,
    adapter: str,
    search: Search,
    remarks: PastRemarks,
    prompt_tokens: int,
    max_tokens: int,
    cancel: Event,
) -> Iterator[tuple[ReviewedFile, Hunk, Reading]]:
    """Read hunk after hunk.

    Args:
        prompt_tokens: longest prompt; precedents and remarks are left out first, then the code around the hunk, and a
            hunk that does not fit alone is not read, which is said.

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
                passages = [p for p in search(_query(file, hunk), _PRECEDENTS + 1) if p.path != file.path][:_PRECEDENTS]
                said = remarks.about(file.path, _query(file, hunk), _REMARKS, plain_text(change.title))
                messages = _fitting(change, file, hunk, passages, said, engine, budget)
                if messages is None:
                    yield file, hunk, Reading((), f"it is longer than the prompt ({budget} tokens)", {})
                    continue
                request = GenerationRequest(messages, adapter, max_tokens, schema=SCHEMA)
                reply = "".join(event.text for event in engine.stream(request, cancel) if isinstance(event, TextDelta))
            except InhouseError as error:
                failed = f"the model failed: {error.problem}"
                yield file, hunk, Reading((), failed, {})
                continue
            yield file, hunk, _proven(file, hunk, reply, passages)


def parse_reply(reply: str) -> list[dict[str, Any]] | None:
    """The findings in a reply; of one that was cut off or wrapped in prose, those that are whole; ``None``: no JSON."""
    start = reply.find("{")
    if start < 0:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(reply[start:])
        rows = found.get("findings") if isinstance(found, dict) else None
        if isinstance(rows, list):
            return [row for row in rows if _is_finding(row)]
    except ValueError:
        pass
    rows = []
    for match in _OBJECT.finditer(reply):
        try:
            row = json.loads(match[0])
        except ValueError:
            continue
        if _is_finding(row):
            rows.append(row)
    return rows if rows or '"findings"' in reply else None


def _is_finding(row: object) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(key), str) for key in ("quote", "problem", "better"))


def _proven(file: ReviewedFile, hunk: Hunk, reply: str, passages: Sequence[Passage]) -> Reading:
    rows = parse_reply(reply)
    if rows is None:
        return Reading((), "", {"the reply was no JSON": 1})
    findings: list[Finding] = []
    dropped: Counter[str] = Counter()
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
                "reading",
                problem,
                anchor,
                replacement,
                precedents,
                score=min(sure, 10) / 10,
            )
        )
    return Reading(tuple(findings), "", dict(dropped))


def _query(file: ReviewedFile, hunk: Hunk) -> str:
    return visible("\n".join([file.path, *(file.shown(number, number) for number in hunk.added)]))[:2_000]


def _fitting(
    change: Change,
    file: ReviewedFile,
    hunk: Hunk,
    passages: Sequence[Passage],
    remarks: Sequence[Remark],
    engine: Engine,
    budget: int,
) -> tuple[Message, ...] | None:
    """The prompt with as much around the hunk as fits; ``None`` when not even the hunk does."""
    for around, shown, told in (
        (_AROUND, len(passages), remarks), (_AROUND, 1, remarks), (_AROUND, 0, remarks), (_AROUND, 0, ()), (0, 0, ())
    ):  # fmt: skip
        messages = _messages(change, file, hunk, passages[:shown], told, around)
        if engine.count_tokens(messages) <= budget:
            return messages
    return None


def _messages(
    change: Change,
    file: ReviewedFile,
    hunk: Hunk,
    passages: Sequence[Passage],
    remarks: Sequence[Remark],
    around: int,
) -> tuple[Message, ...]:
    first, last = max(1, hunk.start - around), min(len(file.lines), hunk.start + hunk.length - 1 + around)
    path = plain_text(file.path)
    parts = []
    if passages:
        parts.append("How the repository does similar things:\n")
        parts += [code_block(p.path, p.start_line, p.end_line, visible(p.text), passage_remark(p)) for p in passages]
    if remarks:
        parts.append("What reviewers said about similar code before:\n")
        parts += [f"- {visible(remark.line)}\n  {remark.text}\n" for remark in remarks]
    if change.title:
        parts.append(f"The change is called: {plain_text(change.title)}\n")
    if around:
        parts.append("The code as it is after the change:\n")
        parts.append(code_block(path, first, last, visible(file.shown(first, last))))
    parts.append("The hunk to review; lines with + were added:\n")
    parts.append(code_block(path, hunk.start, hunk.start + hunk.length - 1, visible(hunk.patch)))
    return Message("system", SYSTEM), Message("user", "\n".join([*parts, _ASK]))
