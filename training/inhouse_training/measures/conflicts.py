"""Conflict probes: an outdated wiki page beside the code. Is the answer the code's?

They are made of the repository's own history: a past change gave a name another value, and the snapshot still has the
new one. The page says the old value with the date of the commit before; the passage of code is the line as it stands.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inhouse_retrieval import Passage, PullRequest, Repository

from ..values import LEAST_VALUE, says, value_given


@dataclass(frozen=True, slots=True)
class Conflict:
    """A name whose value a past change altered.

    Attributes:
        old, new: the values without quotes.
        passages: the outdated page and the code; the page first in every second conflict.
    """

    name: str
    question: str
    old: str
    new: str
    passages: tuple[Passage, ...]


def altered_values(patch: str) -> Iterator[tuple[str, str, str]]:
    """``(name, old value, new value)`` of lines of a unified diff in which only the value of a name changed."""
    for hunk in patch.split("\n@@"):
        taken: dict[str, str] = {}
        given: dict[str, str] = {}
        for line in hunk.split("\n"):
            if line[:1] in ("-", "+") and (found := value_given(line[1:])):
                (taken if line[0] == "-" else given)[found[0]] = found[1]
        for name, old in taken.items():
            new = given.get(name, old)
            # One value inside the other could not be told apart in an answer.
            if min(len(old), len(new)) >= LEAST_VALUE and not (says(old, new) or says(new, old)):
                yield name, old, new


def find_conflicts(repository: Repository, snapshot: str, changes: Sequence[PullRequest], most: int) -> list[Conflict]:
    """At most ``most``, of the newest changes first; a name of a file is asked for once, by its latest value.

    Args:
        changes: up to the snapshot, newest first.
    """
    altered: dict[tuple[str, str], tuple[PullRequest, str, str]] = {}
    for change in changes:
        for file in change.files:
            for name, old, new in altered_values(file.patch):
                altered.setdefault((file.path, name), (change, old, new))
    texts = repository.iter_texts_at([(snapshot, path) for path, _ in altered])
    found: list[Conflict] = []
    for ((path, name), (change, old, new)), text in zip(altered.items(), texts, strict=True):
        place = _place_of(name, new, text or "")
        if place is None or change.merged_at is None or len(found) == most:
            continue
        number, line = place
        landed = f"{change.merged_at:%Y-%m-%d}"
        stamp = repository.git("show", "-s", "--format=%cs", change.parent).decode("ascii").strip()
        page = Passage(
            f"wiki/{_title(path)}.md", 1, 3, f"# {_title(path)}\n\nThe value of `{name}` in `{path}` is `{old}`.",
            "wiki", "", snapshot, 0.0, (), updated=stamp, newer_code=path, newer_code_updated=landed,
        )  # fmt: skip
        code = Passage(path, number, number, line, "code", "", snapshot, 0.0, ())
        page_first = hashlib.sha256(f"{path}\0{name}".encode("utf-8", "surrogateescape")).digest()[0] % 2
        passages = (page, code) if page_first else (code, page)
        found.append(Conflict(name, f"What is the value of `{name}` in {path}?", old, new, passages))
    return found


def _place_of(name: str, value: str, text: str) -> tuple[int, str] | None:
    for number, line in enumerate(text.split("\n"), 1):
        given = value_given(line)
        if given and given[0] == name:
            return (number, line) if given[1] == value else None
    return None


def _title(path: str) -> str:
    return re.sub(r"\W+", "-", path.rpartition("/")[2]).strip("-")


def answers_by_code(conflict: Conflict, answer: str) -> float:
    """1 when the answer says the code's value and not the page's."""
    return float(says(answer, conflict.new) and not says(answer, conflict.old))


def answers_by_page(conflict: Conflict, answer: str) -> float:
    """1 when the answer says the outdated value and not the code's."""
    return float(says(answer, conflict.old) and not says(answer, conflict.new))
