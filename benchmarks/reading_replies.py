"""What a real model answers the reading reviewer: how many replies parse, and what of them may be shown.

    python benchmarks/reading_replies.py prompts CLONE… --out prompts.json [--hunks 60]      # git; no model
    python benchmarks/reading_replies.py replies prompts.json --out replies.json [--base NAME] [--adapter FOLDER]
    python benchmarks/reading_replies.py count CLONE… --prompts prompts.json --replies replies.json

``prompts`` writes what the reviewer asks about the first hunks of the newest merged changes of each clone, in the
product's words and with its limits, without retrieved passages. ``replies`` answers them greedily and held to the
schema, with the engine that makes answers together; nothing of the clones is needed there, so that it can run on a
machine with a GPU. ``count`` hands the replies to the reviewer in place of a model and counts: replies that are JSON,
whole or cut off at their longest length; remarks, and why they were dropped; suggestions that the model made, and those
that are shown. Each of the latter is then put into a copy of its file, by other means than the reviewer's: it must
change the text and add no syntax error.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from inhouse_retrieval import Repository, read_changes
from inhouse_retrieval.syntax import syntax_errors
from inhouse_server.review.change import Change
from inhouse_server.review.diff import read_change
from inhouse_server.review.finding import Finding
from inhouse_server.review.past_remarks import PastRemarks
from inhouse_server.review.reading import parse_reply, read_hunks
from inhouse_server.settings import AnswerSettings, ReviewSettings
from inhouse_training import (
    BASE,
    Finished,
    GenerationEvent,
    GenerationRequest,
    Message,
    RowScore,
    ScoredRow,
    TextDelta,
    load_tokenizer,
    resolve_base_model,
)

MOST_FILES = 30
PROMPT_TOKENS, REPLY_TOKENS = AnswerSettings().prompt_tokens, ReviewSettings().tokens


class Recorded:
    """Stands for the engine: keeps what it is asked, and answers with the reply that is known for it."""

    base_model = "recorded"
    context_tokens = 8192
    loaded_adapters = ()

    def __init__(self, replies: dict[str, str]) -> None:
        self._tokenizer = load_tokenizer(resolve_base_model())
        self._replies = replies
        self.asked: list[Sequence[Message]] = []

    def count_tokens(self, messages: Sequence[Message]) -> int:
        plain = [{"role": message.role, "content": message.content} for message in messages]
        return len(
            self._tokenizer.apply_chat_template(plain, add_generation_prompt=True, return_dict=True)["input_ids"]
        )

    def score(self, rows: Sequence[ScoredRow], adapter: str = BASE) -> list[RowScore]:
        raise NotImplementedError

    def stream(self, request: GenerationRequest, cancel: Event) -> Iterator[GenerationEvent]:
        self.asked.append(request.messages)
        yield TextDelta(self._replies.get(name_of(request.messages), '{"findings": []}'))
        yield Finished("stop", 0, 0)


def name_of(messages: Sequence[Message]) -> str:
    """Stands for a prompt in the files."""
    return hashlib.sha256(json.dumps([(each.role, each.content) for each in messages]).encode()).hexdigest()[:16]


def changes_of(root: Path) -> Iterator[Change]:
    """The newest merged changes that are no larger than people review."""
    repository = Repository.open(root)
    for each in itertools.islice(read_changes(repository), 2000):
        if each.parents and 0 < len(each.files) <= MOST_FILES:
            yield read_change(repository, each.commit)


def read(root: Path, engine: Recorded, hunks: int) -> Iterator[tuple[Change, list[Finding], Counter[str]]]:
    """The findings about each change, until ``hunks`` prompts were asked."""
    for change in changes_of(root):
        if len(engine.asked) >= hunks:
            return
        findings: list[Finding] = []
        dropped: Counter[str] = Counter()
        nothing = PastRemarks(())
        readings = read_hunks(change, engine, BASE, lambda *_: [], nothing, PROMPT_TOKENS, REPLY_TOKENS, Event())
        for _, _, reading in readings:
            findings += reading.findings
            dropped.update(reading.dropped)
            if len(engine.asked) >= hunks:
                break
        yield change, findings, dropped


def write_prompts(clones: Sequence[Path], hunks: int, out: Path) -> None:
    prompts: dict[str, list[tuple[str, str]]] = {}
    for root in clones:
        engine = Recorded({})
        for _ in read(root, engine, hunks):
            pass
        prompts |= {name_of(asked): [(each.role, each.content) for each in asked] for asked in engine.asked}
        print(f"{root.name}: {len(engine.asked)} hunks", flush=True)
    out.write_text(json.dumps(prompts), encoding="utf-8")


def write_replies(prompts: Path, base_name: str | None, adapter: Path | None, streams: int, out: Path) -> None:
    from inhouse_training.batching.engine import BatchedEngine
    from inhouse_training.review_prompt import SCHEMA

    base = resolve_base_model(base_name) if base_name else resolve_base_model()
    engine = BatchedEngine(base, lambda version: adapter or Path(version), streams=streams)
    asked: dict[str, list[tuple[str, str]]] = json.loads(prompts.read_text(encoding="utf-8"))

    def answer(name: str) -> tuple[str, dict[str, str]]:
        messages = tuple(Message(role, content) for role, content in asked[name])  # type: ignore[arg-type]
        request = GenerationRequest(messages, "tuned" if adapter else BASE, REPLY_TOKENS, schema=SCHEMA)
        text, reason = "", ""
        for event in engine.stream(request, Event()):
            if isinstance(event, TextDelta):
                text += event.text
            elif isinstance(event, Finished):
                reason = event.reason
        return name, {"text": text, "reason": reason}

    with ThreadPoolExecutor(streams) as threads:
        replies = dict(threads.map(answer, asked))
    out.write_text(json.dumps(replies), encoding="utf-8")
    print(f"{len(replies)} replies: {dict(Counter(each['reason'] for each in replies.values()))}")


@dataclass
class Tally:
    """Counts over all clones."""

    replies: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    remarks: int = 0
    suggested: int = 0
    findings: int = 0
    shown: int = 0
    wrong: list[str] = field(default_factory=list)


def why_wrong(change: Change, finding: Finding) -> str:
    """Why a suggestion that is shown should not have been; ``""`` when it may."""
    file = next(file for file in change.files if file.path == finding.path)
    assert file.new_text is not None and finding.replacement is not None
    lines = file.new_text.split("\n")
    changed = [*lines[: finding.start_line - 1], *finding.replacement.split("\n"), *lines[finding.end_line :]]
    if changed == lines:
        return "it changes nothing"
    before, after = (syntax_errors(finding.path, text) for text in (file.new_text, "\n".join(changed)))
    return "it adds a syntax error" if (after or 0) > (before or 0) else ""


def count(clones: Sequence[Path], hunks: int, prompts: Path, replies: Path) -> Tally:
    tally = Tally()
    told = json.loads(replies.read_text(encoding="utf-8"))
    texts = {name: reply["text"] for name, reply in told.items()}
    known = set(json.loads(prompts.read_text(encoding="utf-8")))
    for name in known:
        try:
            json.loads(texts[name])
            tally.replies["JSON, whole"] += 1
        except ValueError:
            kind = "no JSON" if parse_reply(texts[name]) is None else f"JSON, {told[name]['reason']}"
            tally.replies[kind] += 1
        rows = parse_reply(texts[name]) or []
        tally.remarks += len(rows)
        tally.suggested += sum(bool(row["better"].strip()) for row in rows)
    for root in clones:
        engine = Recorded(texts)
        for change, findings, dropped in read(root, engine, hunks):
            tally.dropped.update(dropped)
            tally.findings += len(findings)
            for finding in findings:
                if finding.replacement is not None:
                    tally.shown += 1
                    if why := why_wrong(change, finding):
                        tally.wrong.append(f"{root.name} {change.head_commit[:12]} {finding.path}: {why}")
        unknown = sum(name_of(asked) not in known for asked in engine.asked)
        assert not unknown, f"{root.name}: {unknown} hunks were not among the prompts"
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("prompts", "count"):
        command = commands.add_parser(name)
        command.add_argument("clones", nargs="+", type=Path)
        command.add_argument("--hunks", type=int, default=60, help="of each clone")
    commands.choices["prompts"].add_argument("--out", type=Path, required=True)
    for name in ("prompts", "replies"):
        commands.choices["count"].add_argument(f"--{name}", type=Path, required=True)
    command = commands.add_parser("replies")
    command.add_argument("prompts", type=Path)
    command.add_argument("--base")
    command.add_argument("--adapter", type=Path)
    command.add_argument("--streams", type=int, default=32)
    command.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "prompts":
        write_prompts(arguments.clones, arguments.hunks, arguments.out)
    elif arguments.command == "replies":
        write_replies(arguments.prompts, arguments.base, arguments.adapter, arguments.streams, arguments.out)
    else:
        tally = count(arguments.clones, arguments.hunks, arguments.prompts, arguments.replies)
        print(f"replies: {dict(tally.replies)}")
        print(f"{tally.remarks} remarks, {tally.findings} of them findings; dropped: {dict(tally.dropped)}")
        print(f"{tally.suggested} suggestions, {tally.shown} shown, {len(tally.wrong)} of those wrong")
        for line in tally.wrong[:20]:
            print(f"  {line}")


if __name__ == "__main__":
    main()
