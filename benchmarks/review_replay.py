"""Merged pull requests, reviewed again: does every remark stand at the lines that it quotes, and is none said twice?

    python benchmarks/review_replay.py CLONE… [--changes 60]

There is no model. What stands for it quotes the hunk that it is shown, in the ways that models do: exactly, without
indentation, with other spaces, with a slip, with the signs of the diff, cut off, from removed lines, from another
hunk, and made up; and it words each remark otherwise when anything in the prompt is another. So what is measured is the
proof, not a model's judgement. Each quotation that became a finding is looked up by another method in the text that git
has. Each change is reviewed three times: anew, again, and as an amended commit with the same tree.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from inhouse_retrieval import Repository, read_changes
from inhouse_server.review.change import Change
from inhouse_server.review.diff import read_change
from inhouse_server.review.finding import Finding
from inhouse_server.review.past_remarks import PastRemarks
from inhouse_server.review.reading import read_hunks
from inhouse_server.review.reviewer import Reader, know_house, review
from inhouse_training import (
    BASE,
    Finished,
    GenerationEvent,
    GenerationRequest,
    Message,
    RowScore,
    ScoredRow,
    TextDelta,
)

MOST_FILES = 30
ALIKE = 0.85
"""Similarity of whole texts, white space aside. The proof asks for 0.9 of each line's share."""


@dataclass
class Quoting:
    """Stands for a model: quotes what it is shown, in every way."""

    base_model = "none"
    context_tokens = 10**9
    said: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Problem -> way of quoting, quotation."""
    other: str = "return not_there(1, 2, 3)"
    """A line of an earlier hunk."""

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content) // 3 for message in messages)

    def score(self, rows: Sequence[ScoredRow], adapter: str = BASE) -> list[RowScore]:
        raise NotImplementedError

    def stream(self, request: GenerationRequest, cancel: Event) -> Iterator[GenerationEvent]:
        asked = request.messages[1].content
        hunk = re.findall(r"^(`{3,})\n(.*?)\n\1$", asked, flags=re.M | re.S)[-1][1].split("\n")
        chance, wording = random.Random("\n".join(hunk)), random.Random(asked).random()
        rows = []
        for way, quotation in self._quotations(hunk, chance):
            problem = f"Remark {len(self.said)} ({wording})"
            self.said[problem] = way, quotation
            rows.append({"quote": quotation, "problem": problem, "better": "", "confidence": 9})
        yield TextDelta(json.dumps({"findings": rows}))
        yield Finished("stop", 0, 0)

    def _quotations(self, hunk: list[str], chance: random.Random) -> Iterator[tuple[str, str]]:
        new = [(sign, text) for sign, text in ((line[:1], line[1:]) for line in hunk) if sign in "+ "]
        added = [at for at, (sign, text) in enumerate(new) if sign == "+" and text.strip()]
        if not added:
            return
        first = chance.choice(added)
        lines = [text for _, text in new[first : first + chance.randint(1, 5)]]
        block = "\n".join(lines)
        yield "as it stands", block
        yield "one line", lines[0]
        yield "without indentation", "\n".join(line.strip() for line in lines)
        yield "other spaces", re.sub(r"(?<=\S) (?=\S)", "  ", block).replace("\t", "    ")
        at = chance.randrange(len(block))
        yield "one character else", f"{block[:at]}~{block[at + 1 :]}"
        yield "one character missing", f"{block[:at]}{block[at + 1 :]}"
        yield "with signs", "\n".join(f"+{line}" for line in lines)
        yield "cut off", block[: max(1, len(block) * 2 // 3)]
        yield "lines left out", "\n".join([lines[0], "...", lines[-1]])
        yield "with Windows line ends", block.replace("\n", "\r\n")
        if removed := [line[1:] for line in hunk if line[:1] == "-" and line[1:].strip()]:
            yield "a removed line", chance.choice(removed)
        yield "another hunk", self.other
        yield "made up", f"raise NotThere({chance.random()})"
        self.other = block


@dataclass
class Tally:
    """Counts over all changes."""

    asked: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    house: int = 0
    changes: int = 0
    hunks: int = 0
    lines: int = 0
    shown: int = 0
    repeated: Counter[str] = field(default_factory=Counter)


def why_wrong(repository: Repository, change: Change, finding: Finding, quotation: str | None) -> str:
    """Why the finding does not stand where it should; ``""`` when it does. From git's own text, not the reviewer's."""
    text = repository.git("show", f"{change.head_commit}:{finding.path}").decode("utf-8")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if not 1 <= finding.start_line <= finding.end_line <= len(lines):
        return "outside the file"
    file = next((file for file in change.files if file.path == finding.path), None)
    if file is None:  # what a removed file leaves behind
        return "" if finding.rule == "companion" and not finding.anchor else "in a file that the change does not hold"
    covered = range(finding.start_line, finding.end_line + 1)
    hunk = [each for each in file.hunks if each.start <= covered[0] and covered[-1] < each.start + each.length]
    if quotation is None:
        return "" if finding.anchor == file.shown(covered[0], covered[-1]) else "another text than its lines"
    if not hunk:
        return "outside every hunk"
    if not set(covered) & set(hunk[0].added):
        return "no line that was added"
    there, quoted = (" ".join(each.split()) for each in ("\n".join(lines[line - 1] for line in covered), quotation))
    ratio = difflib.SequenceMatcher(None, there, quoted, autojunk=False).ratio() if there != quoted else 1.0
    return "" if ratio >= ALIKE else f"another text: {ratio:.2f}"


def replay(root: Path, count: int, tally: Tally) -> None:
    """Review the newest ``count`` changes of the clone at ``root``."""
    repository = Repository.open(root)
    past = [
        change
        for change in itertools.islice(read_changes(repository), 4 * count)
        if 0 < len(change.files) <= MOST_FILES
    ]
    house = know_house(repository, past[min(count, len(past) - 1)].commit)
    done = 0
    for each in past:
        if done == count:
            return
        if each.parents < 1:
            continue
        change = read_change(repository, each.commit)
        engine, nothing = Quoting(), PastRemarks(())
        reader = Reader(engine, BASE, lambda query, limit: [], nothing, 10**6, 100)
        readings = [
            reading
            for _, _, reading in read_hunks(change, engine, BASE, reader.search, nothing, 10**6, 100, Event())
            if not reading.unseen
        ]
        if not readings:
            continue
        first = review(change, house, 100_000, Reader(Quoting(), BASE, reader.search, nothing, 10**6, 100))
        done += 1
        tally.changes += 1
        tally.hunks += len(readings)
        tally.lines += first.coverage.lines
        tally.asked.update(way for way, _ in engine.said.values())
        of_house = [finding for finding in first.findings if finding.rule != "reading"]
        tally.house += len(of_house)
        for finding in (*of_house, *(finding for reading in readings for finding in reading.findings)):
            way, quotation = engine.said[finding.message] if finding.rule == "reading" else ("", None)
            if way:
                tally.found[way] += 1
            if why := why_wrong(repository, change, finding, quotation):
                tally.wrong.append(f"{root.name} {each.commit[:12]} {finding.path}:{finding.start_line} {way}: {why}")
        shown = {finding.fingerprint for finding in first.findings}
        tree = f"{each.commit}^{{tree}}"
        made = ("-c", "user.name=x", "-c", "user.email=x@example.com", "commit-tree", tree, "-p", f"{each.commit}^1")
        amended = repository.git(*made, "-m", "Said otherwise").decode().strip()
        for name, head in (("the same head", each.commit), ("an amended commit", amended)):
            again = Reader(Quoting(), BASE, reader.search, nothing, 10**6, 100)
            told = review(read_change(repository, f"{each.commit}^1..{head}"), house, 100_000, again, shown)
            tally.repeated[name] += len(told.findings)
            tally.shown += len(told.findings) + told.repeated


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clones", nargs="+", type=Path)
    parser.add_argument("--changes", type=int, default=60, help="of each clone, the newest")
    arguments = parser.parse_args()
    tally = Tally()
    for root in arguments.clones:
        before = tally.changes
        replay(root, arguments.changes, tally)
        print(f"{root.name}: {tally.changes - before} changes")
    found = sum(tally.found.values())
    print(f"{tally.changes} changes, {tally.hunks} hunks with {tally.lines} added lines")
    for way, asked in tally.asked.items():
        print(f"  {way}: {tally.found[way]} of {asked} became findings")
    print(
        f"anchors: {found + tally.house - len(tally.wrong)} of {found + tally.house} valid, {tally.house} of the house"
    )
    for line in tally.wrong[:20]:
        print(f"  {line}")
    print(f"{tally.shown} findings made again, of which shown again:")
    for name, repeats in tally.repeated.items():
        print(f"  {name}: {repeats}")


if __name__ == "__main__":
    main()
