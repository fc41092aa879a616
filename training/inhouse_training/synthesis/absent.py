"""Names that there are not: a real name with one part exchanged, looked for in every file of the snapshot.

Who is only ever asked about what exists learns to answer always. No model is needed for these.

Some of the names that could be made are never trained on, in no repository and with no seed: whether an adapter admits
that it does not know is asked about those. Which they are follows from the name alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inhouse_retrieval import InhouseError, Repository

from ..facts import is_kept_for_asking
from .sources import Section, name_words

MOST = 300
_TRIES = 8
_QUESTIONS = ("Where is `{name}` defined?", "What does `{name}` do?", "How is `{name}` used in this repository?")


@dataclass(frozen=True, slots=True)
class AbsentName:
    """A name that stands nowhere, and the real one that it was made of.

    Attributes:
        section: where ``real`` is defined.
    """

    name: str
    real: str
    question: str
    section: Section


def absent_names(
    repository: Repository, commit: str, sections: Sequence[Section], seed: int, for_asking: bool = False
) -> list[AbsentName]:
    """At most :data:`MOST` names, the same for the same snapshot and seed.

    Args:
        for_asking: those that are never trained on, in place of those that are.

    None of them stands in any file of ``commit``, in whatever case, also not as a part of a longer word and not in
    files that are never read; nor in a wiki page.
    """
    homes: dict[str, Section] = {}
    for section in sections:
        for name in section.names:
            if len(name_words(name)) >= 2:
                homes.setdefault(name, section)
    made = {each.name: each for each in _made(homes, seed, for_asking)}
    if not made:
        return []
    pages = [section.text for section in sections if section.is_page]
    there = "\n".join([_lines_with(repository, commit, [*made, next(iter(made.values())).real]), *pages]).lower()
    return [each for name, each in made.items() if name.lower() not in there]


def _made(homes: dict[str, Section], seed: int, for_asking: bool) -> Iterator[AbsentName]:
    def drawn(name: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{name}".encode()).digest()

    pool = sorted({word[0].lower() for name in homes for word in name_words(name) if len(word[0]) > 2})
    known = {name.lower() for name in homes}
    count = 0
    for name in sorted(homes, key=drawn):
        draw = drawn(name)
        for attempt in range(_TRIES):
            other = pool[int.from_bytes(draw[attempt : attempt + 4], "big") % len(pool)] if pool else ""
            wrong = _exchanged(name, draw[attempt + 8], other)
            if wrong.lower() not in known and is_kept_for_asking(wrong.lower()) is for_asking:
                yield AbsentName(wrong, name, _QUESTIONS[draw[0] % len(_QUESTIONS)].format(name=wrong), homes[name])
                count += 1
                break
        if count == MOST:
            return


def _exchanged(name: str, draw: int, other: str) -> str:
    """``name`` with one of its words exchanged, written in the same case."""
    places = name_words(name)
    place = places[draw % len(places)]
    as_written = other.upper() if place[0].isupper() else other.capitalize() if place[0][0].isupper() else other
    return name[: place.start()] + as_written + name[place.end() :]


def _lines_with(repository: Repository, commit: str, names: Sequence[str]) -> str:
    """The lines of all files of the commit that hold one of the names; the last of them stands in one for certain."""
    given = "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
    asked = ("grep", "--no-color", "-h", "-a", "-i", "-F", "-f", "-", commit)
    found = repository.git(*asked, given=given).decode("utf-8", "replace")
    if names[-1].lower() not in found.lower():
        raise InhouseError(f"`git grep` does not find {names[-1]} at {commit[:12]}.", "Check the repository.")
    return found
