"""Whether an adapter says that it does not know: questions about names that there are not, and about real ones.

An adapter that always says so would be right about every made-up name, so the same questions are asked about the real
names that those were made of.
"""

from __future__ import annotations

from inhouse_retrieval import Repository

from ..cut import Cut
from ..synthesis.absent import AbsentName, absent_names
from ..synthesis.sources import read_sections

_SAYS_SO = "not in this repository"
"""The core of :data:`~inhouse_training.prompts.NOT_HERE`, which is how the product says that it does not know."""


def names_to_ask(repository: Repository, cut: Cut, most: int, seed: int) -> list[AbsentName]:
    """At most ``most`` names that stand nowhere in the snapshot, nor in what later changes add, and that no version is
    trained on."""
    later = "\n".join(file.patch for change in cut.held_out for file in change.files).lower()
    absent = absent_names(repository, cut.snapshot, read_sections(repository, cut), seed, for_asking=True)
    return [each for each in absent if each.name.lower() not in later][:most]


def real_question(absent: AbsentName) -> str:
    """The same question about the real name."""
    return absent.question.replace(f"`{absent.name}`", f"`{absent.real}`")


def abstains(answer: str) -> float:
    """1 when the answer says in the product's words that it is not here."""
    return float(_SAYS_SO in " ".join(answer.lower().split()))
