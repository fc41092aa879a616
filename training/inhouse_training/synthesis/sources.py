"""What may be written about: the texts of the training snapshot, in sections.

The split comes first. Sections are cut from the snapshot and from wiki pages of its time, never from anything later, so
whatever is asked, quoted or shown as a passage has the split of training. A page elsewhere that copies a held-out
change is no source either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from inhouse_retrieval import Repository, SkippedFile, Wiki, chunk_text

from ..leaks import held_out_text

if TYPE_CHECKING:
    from ..cut import Cut

SECTION_CHARACTERS = 4_000
"""About a thousand tokens: a question then has one subject, and a small model still sees all of it."""
_LEAST_CHARACTERS = 200
"""A shorter text has nothing to ask about."""
_PART = re.compile(r"[^\w$]+")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_LONGEST_NAME = 40
"""The outline cuts very long names, and those are mostly of tests."""
NO_CODE = frozenset(
    {".adoc", ".htm", ".html", ".json", ".jsonc", ".lock", ".markdown", ".md", ".mdx", ".org", ".rst", ".toml", ".txt",
     ".yaml", ".yml"}
)  # fmt: skip
"""Prose and data: what their outline has are headings and keys, no names that code could use."""


@dataclass(frozen=True, slots=True)
class Section:
    """Lines ``first_line`` to ``last_line`` (1-based, inclusive) of a file or page of the training snapshot, redacted.

    Attributes:
        symbols: names that are defined in them; for a page, its headings.
    """

    path: str
    blob_id: str
    first_line: int
    last_line: int
    text: str
    is_page: bool
    symbols: tuple[str, ...]

    @property
    def place(self) -> str:
        """``path:first-last``."""
        return f"{self.path}:{self.first_line}-{self.last_line}"

    @property
    def names(self) -> tuple[str, ...]:
        """The defined names without what they are qualified with; pages, prose and data have none."""
        if self.is_page or PurePosixPath(self.path).suffix.lower() in NO_CODE:
            return ()
        names = (_PART.split(symbol)[-1] for symbol in self.symbols)
        return tuple(dict.fromkeys(name for name in names if 0 < len(name) <= _LONGEST_NAME))


def name_words(name: str) -> list[re.Match[str]]:
    """The words of ``update_invoice`` or ``updateInvoice``, without digits; several are seldom met by chance."""
    return [match for match in _WORD.finditer(name) if match[0][0].isalpha()]


def read_sections(repository: Repository, cut: Cut) -> list[Section]:
    """All sections of the training snapshot, by path, redacted by their readers; equal content counts once.

    They hold each text once in memory.
    """
    wiki = Wiki(repository)
    held_out = held_out_text(repository, cut)
    seen: set[str] = set()
    sections: list[Section] = []
    texts = chain(repository.iter_texts(repository.snapshot(cut.snapshot)), wiki.pages_until(cut.as_of))
    for item in texts:
        if isinstance(item, SkippedFile) or item[0].blob_id in seen:
            continue
        file, text = item
        seen.add(file.blob_id)
        path = file.path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if not wiki.holds(path):
            held_out.saw_past(text)
        elif held_out.is_near_copy(text):
            continue
        sections += _cut(path, file.blob_id, text, wiki.is_page(path))
    return sections


def _cut(path: str, blob_id: str, text: str, is_page: bool) -> Iterator[Section]:
    for chunk in chunk_text(path, text, _count_characters, SECTION_CHARACTERS):
        if len(chunk.text.strip()) >= _LEAST_CHARACTERS:
            yield Section(path, blob_id, chunk.start_line, chunk.end_line, chunk.text, is_page, chunk.symbols)


def _count_characters(texts: Sequence[str]) -> list[int]:
    return [len(text) + 1 for text in texts]
