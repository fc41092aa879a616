"""Completing code of later changes: the next line, and the rest of a new definition.

Asked is as a developer would who is at work on the change: its title, the path, and the lines before the cursor as
selected code. The file is that of the later change up to the cursor; passages come from the past.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from inhouse_retrieval import PullRequest, Repository, redact
from inhouse_retrieval.syntax import parse

from ..documents import shorten
from ..prompts import completion_question
from ..scopes import CodeBefore, code_before, rest_of

NEXT_LINE = "next_line"
SCOPE = "scope"

_LEAST_LINE = 8
"""Shorter lines, such as a bracket, are right by chance."""
_LONGEST_PATH = 80
_HUNK = re.compile(r"^@@ -\d+(?:,\d+)? \+(\d+)(?:,\d+)? @@")
_FENCED = re.compile(r"^`{3,}[^\n]*\n(.*?)(?:^`{3,}\s*$|\Z)", re.S | re.M)


@dataclass(frozen=True, slots=True)
class Completion:
    """What is to be completed.

    Attributes:
        kind: :data:`NEXT_LINE` or :data:`SCOPE`.
        wanted: what the developer wrote there.
    """

    kind: str
    question: str
    query: str
    before: CodeBefore
    wanted: str


def added_line_numbers(patch: str) -> list[int]:
    """1-based numbers, in the file after the change, of the lines that a unified diff adds."""
    numbers: list[int] = []
    at = 0
    for line in patch.split("\n"):
        if match := _HUNK.match(line):
            at = int(match[1])
        elif at and line.startswith("+"):
            numbers.append(at)
            at += 1
        elif at and line.startswith(" "):
            at += 1
    return numbers


def completions(repository: Repository, changes: Sequence[PullRequest], most: int) -> list[Completion]:
    """At most ``most`` of each kind, one of a kind from a file of a change, in the order of the changes."""
    places = [
        (change, file)
        for change in changes
        for file in change.files
        if file.patch and file.omitted_lines == 0 and len(file.path) <= _LONGEST_PATH
    ]
    texts = repository.iter_texts_at([(change.commit, file.path) for change, file in places])
    found: dict[str, list[Completion]] = {NEXT_LINE: [], SCOPE: []}
    for (change, file), text in zip(places, texts, strict=True):
        if text is None:
            continue
        title = redact(shorten(change.title))[0]
        for each in file_completions(title, file.path, text, added_line_numbers(file.patch)):
            if len(found[each.kind]) < most:
                found[each.kind].append(each)
    return [*found[NEXT_LINE], *found[SCOPE]]


def file_completions(title: str, path: str, text: str, added: Sequence[int]) -> list[Completion]:
    """The middle one of the added lines that say something, and the first definition that is new as a whole."""
    lines = text.split("\n")
    found = []
    telling = [at for at in added if 1 < at <= len(lines) and len(lines[at - 1].strip()) >= _LEAST_LINE]
    if telling:
        at = telling[len(telling) // 2]
        question = f"{title}\n\nWrite the line that comes next in {path}, and nothing else."
        found.append(Completion(NEXT_LINE, question, f"{title} {path}", code_before(path, lines, at), lines[at - 1]))
    new = set(added)
    syntax = parse(path, text)
    for each in syntax.definitions if syntax is not None else ():
        rest = rest_of(each)
        if rest is not None and new.issuperset([rest.start - 1, *rest]):
            question = completion_question(each.name, path, title)
            wanted = "\n".join(lines[rest.start - 1 : rest.stop - 1])
            before = code_before(path, lines, rest.start)
            found.append(Completion(SCOPE, question, f"{each.name} {path}", before, wanted))
            break
    return found


def completed(kind: str, answer: str, before: str) -> str:
    """The code of an answer: what its first fence holds, or all of it, without the lines that it was given again."""
    fence = _FENCED.search(answer)
    lines = [line for line in (fence[1] if fence else answer).split("\n") if line.strip()]
    given = {line.strip() for line in before.split("\n") if len(line.strip()) >= _LEAST_LINE}
    while len(lines) > 1 and lines[0].strip() in given:
        lines = lines[1:]
    return "\n".join(lines[:1] if kind == NEXT_LINE else lines)


def exact_match(wanted: str, written: str) -> float:
    """1 when both are the same lines, however they are indented; blank ones do not count."""
    return float(_plain(wanted) == _plain(written))


def edit_similarity(wanted: str, written: str) -> float:
    """1 less the Levenshtein distance over the longer length, as in CodeXGLUE (Lu et al., 2021)."""
    old, new = _plain(wanted), _plain(written)[:2000]
    if not old and not new:
        return 1.0
    row = list(range(len(new) + 1))
    for at, letter in enumerate(old, 1):
        diagonal, row[0] = row[0], at
        for place, other in enumerate(new, 1):
            diagonal, row[place] = (
                row[place],
                min(row[place] + 1, row[place - 1] + 1, diagonal + (letter != other)),
            )
    return 1 - row[-1] / max(len(old), len(new))


def _plain(text: str) -> str:
    return "\n".join(line.strip() for line in text.split("\n") if line.strip())
