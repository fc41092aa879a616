"""Whether text to train on tells what a held-out change adds.

The split by time keeps the later history out of training, but not what people copied: a page exported last week that
quotes yesterday's change, a conversation written by hand, a change that was landed twice. So each training text from
beside the snapshot (pages elsewhere, changes with what was said about them, hand-made conversations) is compared with
the lines that the held-out changes add.

**What counts.** Only what is new: shingles and lines that also stand in a file of the snapshot are the past's own.
House conventions, imports, boilerplate, code that a later change moves or copies: whoever stood at the snapshot knew
them, and so may the adapter. That is why files of the snapshot themselves leak nothing. Lines of the history before the
snapshot that were gone by then do count: a change that is landed, reverted and landed again is judged by the last.

**Near-copies.** The measure is Broder's containment ("On the resemblance and containment of documents", 1997): the
share of a held-out text's shingles that a training text holds. It is taken twice: over 5 words, so that layout and
punctuation do not matter; and over 12 tokens of code with every name and literal replaced by its kind, so that renaming
does not help. MinHash would sketch both sets by their smallest hashes; one side is small here and fits into memory, so
all of its hashes are kept, and the share is exact instead of estimated.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from inhouse_retrieval import PullRequest, redact

from .documents import added_lines

NEAR_COPY = 0.5
"""Containment from which a text is a near-copy: of 5 words in a row, half survive when every eighth word is another."""

LEAST_WORDS = 30
"""A shorter held-out text is compared line by line only."""

LINE_CHARACTERS = 20
"""A shorter line says too little to be recognised by."""

_BLOCK_WORDS = 80
"""Held-out text is compared in blocks of about so many words, so that quoting a part of a long file is seen."""
_WORDS = 5
_TOKENS = 12
_LEAST_KEPT = 4
"""Tokens of a code shingle that are no names: prose has few, and with its words masked all prose is alike."""
_LEAST_NEW = 16
"""New shingles that a block needs: of fewer, half is soon met by chance."""

_WORD = re.compile(r"\w+")
_TOKEN = re.compile(r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`[^`\n]*`|\w+|[^\w\s]")
_NAME = "name"
_KEYWORDS = frozenset(
    _WORD.findall(
        "abstract and as assert async await break case catch class const continue def default defer del do elif else "
        "enum except export extends extern false finally fn for foreach from func function global go goto if impl "
        "implements import in instanceof interface is lambda let loop match mod module mut namespace new nil none "
        "nonlocal not null object or override package pass private protected pub public raise range return select self "
        "static struct super switch then this throw throws trait true try type typeof union unless until use using val "
        "var void when where while with yield"
    )
)

Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


class HeldOutText:
    """What the held-out changes add, and how much of it the past already held.

    First every text of the snapshot is shown with :meth:`saw_past`, then the others are asked about.
    """

    def __init__(self, changes: Sequence[PullRequest], scored: Sequence[str]) -> None:
        """
        Args:
            changes: the held-out changes; each file of theirs that adds :data:`LEAST_WORDS` is looked for.
            scored: the texts that evaluation scores; their lines of :data:`LINE_CHARACTERS` are looked for.
        """
        blocks = [block for change in changes for file in change.files for block in _blocks(added_lines(file.patch))]
        self._views = (_Shingled(blocks, _word_shingles), _Shingled(blocks, _code_shingles))
        self.lines = frozenset().union(*map(_long_lines, scored))
        self.past_lines: set[str] = set()
        self.leaked_lines: set[str] = set()

    def saw_past(self, text: str) -> None:
        """Note a text of the snapshot: what it holds is no secret."""
        for view in self._views:
            view.forget(text)
        self.past_lines |= self.lines & _long_lines(text)

    def is_near_copy(self, text: str) -> bool:
        """Whether ``text`` holds :data:`NEAR_COPY` of what is new in some block of the held-out text."""
        return any(view.containment(text) >= NEAR_COPY for view in self._views)

    def note_learned(self, text: str) -> int:
        """Note a text that is trained on; how many new held-out lines stand in it word for word."""
        found = (self.lines & _long_lines(text)) - self.past_lines
        self.leaked_lines |= found
        return len(found)

    @property
    def overlap(self) -> float:
        """Share of the held-out lines that are new, and stand in the training text all the same."""
        return len(self.leaked_lines) / len(self.lines) if self.lines else 0.0


class _Shingled:
    """Blocks of text as one sorted array of hashes, each with the blocks that hold it."""

    def __init__(self, blocks: Sequence[str], shingles: Callable[[str], Hashes]) -> None:
        self._shingles = shingles
        held = [np.unique(shingles(block)) for block in blocks]
        owners = np.repeat(np.arange(len(held)), [len(each) for each in held])
        self._hashes, self._index = np.unique(np.concatenate([np.empty(0, np.uint64), *held]), return_inverse=True)
        self._owners = owners
        self._blocks = len(held)
        self._new: Flags = np.ones(len(self._hashes), bool)

    def forget(self, text: str) -> None:
        self._new &= ~self._found(text)

    def containment(self, text: str) -> float:
        """The largest share of a block's new shingles that stand in ``text``."""
        found = self._found(text) & self._new
        if not found.any():
            return 0.0
        sizes = np.bincount(self._owners[self._new[self._index]], minlength=self._blocks)
        shared = np.bincount(self._owners[found[self._index]], minlength=self._blocks)
        enough = sizes >= _LEAST_NEW
        return float((shared[enough] / sizes[enough]).max(initial=0.0))

    def _found(self, text: str) -> Flags:
        found = np.zeros(len(self._hashes), bool)
        if len(self._hashes):
            asked = self._shingles(text)
            places = np.searchsorted(self._hashes, asked)
            places[places == len(self._hashes)] = 0
            found[places[self._hashes[places] == asked]] = True
        return found


def patch_text(patch: str) -> str:
    """Every line of a unified diff, added, removed or context, without its first column."""
    return "\n".join(line[1:] for line in patch.split("\n") if not line.startswith("@@"))


def _blocks(text: str) -> Iterator[str]:
    """Text in blocks of about :data:`_BLOCK_WORDS` words at line ends; none of fewer than :data:`LEAST_WORDS`."""
    block: list[str] = []
    words = 0
    rest = len(_WORD.findall(text))
    for line in redact(text)[0].split("\n"):
        block.append(line)
        words += len(_WORD.findall(line))
        if words >= _BLOCK_WORDS and rest - words >= LEAST_WORDS:
            yield "\n".join(block)
            rest -= words
            block, words = [], 0
    if words >= LEAST_WORDS:
        yield "\n".join(block)


def _long_lines(text: str) -> frozenset[str]:
    return frozenset(line for each in text.split("\n") if len(line := each.strip()) >= LINE_CHARACTERS)


def _word_shingles(text: str) -> Hashes:
    words = [_hash(word) for word in _WORD.findall(text.lower())]
    return _windows(np.array(words, np.uint64), _WORDS)


def _code_shingles(text: str) -> Hashes:
    kinds = [_kind(token) for token in _TOKEN.findall(text)]
    hashes = np.array(kinds, np.uint64)
    shingles = _windows(hashes, _TOKENS)
    named = np.concatenate([[0], np.cumsum(hashes == _hash(_NAME))])
    names = named[_TOKENS:] - named[: len(shingles)] if len(shingles) else named[:0]
    return shingles[_TOKENS - names >= _LEAST_KEPT]


def _windows(hashes: Hashes, size: int) -> Hashes:
    """One hash for each run of ``size`` hashes: a polynomial modulo 2^64."""
    count = len(hashes) - size + 1
    if count <= 0:
        return hashes[:0]
    rolled = np.zeros(count, np.uint64)
    for offset in range(size):
        rolled *= np.uint64(0x9E3779B97F4A7C15)
        rolled += hashes[offset : offset + count]
    return rolled


@lru_cache(maxsize=1 << 17)
def _hash(word: str) -> int:
    # Python's own hash of a text is another in each process.
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


@lru_cache(maxsize=1 << 17)
def _kind(token: str) -> int:
    """A token without what renaming changes: keywords and punctuation stay, names and literals become their kind."""
    first = token[0]
    if first in "\"'`" and len(token) > 1:
        return _hash("a text")
    if first.isdigit():
        return _hash("a number")
    if first == "_" or first.isalpha():
        return _hash(token.lower() if token.lower() in _KEYWORDS else _NAME)
    return _hash(token)
