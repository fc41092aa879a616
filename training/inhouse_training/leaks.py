"""Whether text to train on tells what a held-out change adds.

The split by time keeps the later history out of training, but not what people copied: a page exported last week that
quotes yesterday's change, a conversation written by hand, a change that was landed twice. So each training text from
beside the snapshot (pages elsewhere, changes with what was said about them, hand-made conversations) is compared with
all that evaluation scores of the held-out changes: the lines that they add to each of their files, and their
descriptions.

**What counts.** Only what is new: shingles and lines that also stand in a file of the snapshot, or in a commit message
of the history that leads to it, are the past's own. House conventions, imports, licence headers, boilerplate, trailers,
code that a later change moves or copies: whoever stood at the snapshot knew them, and so may the adapter. That is why
files of the snapshot themselves leak nothing. Lines of the history before the snapshot that were gone by then do count:
a change that is landed, reverted and landed again is judged by the last.

**Near-copies.** The measure is Broder's containment ("On the resemblance and containment of documents", 1997): the
share of a held-out text's shingles that a training text holds. It is taken twice: over 5 words, so that layout and
punctuation do not matter; and over 12 tokens of code with every name and literal replaced by its kind, so that renaming
does not help. MinHash would sketch both sets by their smallest hashes; one side is small here and fits into memory, so
all of its hashes are kept, and the share is exact instead of estimated. Half of a short text is soon met by chance, so
a short file or description is looked for as a whole.

**Listings.** Copied from a terminal, a diff or a review, code has line numbers in front of its lines, which break every
shingle that spans two lines. Each text is therefore read as it stands and without them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from inhouse_retrieval import PullRequest, Repository, redact

from .cut import held_out_change
from .documents import added_lines

if TYPE_CHECKING:
    from .cut import Cut

NEAR_COPY = 0.5
"""Containment from which a text is a near-copy: of 5 words in a row, half survive when every eighth word is another."""

LEAST_WORDS = 30
"""A shorter held-out text is found only where all that is new of it is."""

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
_LEAST_NEW_WHOLE = 4
"""Those that a text needs which is found as a whole: 8 words in a row, more than an import or a setting has."""

_MESSAGES = 10_000
"""Newest commit messages that are read: years of most repositories."""
_MESSAGES_AT_ONCE = 500

_WORD = re.compile(r"\w+")
_TOKEN = re.compile(r"\"(?:\\.|[^\"\\\n]){0,400}+\"|'(?:\\.|[^'\\\n]){0,400}+'|`[^`\n]{0,400}+`|\w+|\\.|[^\w\s]")
"""Strings are bounded: where quotation marks do not pair up, each would be looked for to the end of the line."""
_LINE_NUMBER = re.compile(
    r"""
    ^[ \t]*
    (?:[\w./-]{1,200}[:-](?=\d))?                # file.py:3:code, as grep prints it
    (?:[+>|-][ \t]*)*                            # +3 code
    (?:
        \d{1,6}[ \t]+\d{1,6}[ \t]*[:|│┃→+-]      # 3  4 | code: the numbers before and after a change
        | [\[(#L]?\d{1,6}[\])]?(?:[ \t]*[:|.)│┃→>+-]+|(?=[ \t]))
    )
    (?:[ \t]*[+-](?=[ \t]))?
    """,
    re.M | re.X,
)
_DIFF_MARK = re.compile(r"[ \t]*[+>|-][ \t]*")
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
    """What evaluation scores of the held-out changes, and how much of it the past already held.

    First every text of the past is shown with :meth:`saw_past`, then the others are asked about.

    Attributes:
        lines: what is looked for line by line: each line of :data:`LINE_CHARACTERS` that a held-out change adds, to
            whichever file, or has in its description.
        past_lines: those of them that the past held.
        leaked_lines: those of them that are learned all the same.
    """

    def __init__(self, changes: Sequence[PullRequest]) -> None:
        blocks: list[str] = []
        short: list[str] = []
        lines: set[str] = set()
        gate: set[str] = set()
        for change in changes:
            description = redact(change.description)[0]
            added = [(file.status == "added", redact(added_lines(file.patch))[0]) for file in change.files]
            for is_whole, text in ((True, description), *added):
                lines |= _long_lines(text)
                blocks += (found := list(_blocks(text)))
                if is_whole and not found:
                    short.append(text)
            scored = held_out_change(change)
            gate |= _long_lines(scored.added) if scored is not None else frozenset()
        self._blocks = (_Shingled(blocks, _word_shingles), _Shingled(blocks, _code_shingles))
        self._short = _Shingled(short, _word_shingles)
        self._gate_lines = frozenset(gate)
        self.lines = frozenset(lines)
        self.past_lines: set[str] = set()
        self.leaked_lines: set[str] = set()

    def saw_past(self, text: str) -> None:
        """Note a text of the past: what it holds is no secret."""
        for view in (*self._blocks, self._short):
            view.forget(text)
        self.past_lines |= self._lines_in(text)

    def is_near_copy(self, text: str) -> bool:
        """Whether ``text`` holds :data:`NEAR_COPY` of what is new in some block of the held-out text, or all that is
        new in a short one."""
        return (
            any(view.containment(text, _LEAST_NEW) >= NEAR_COPY for view in self._blocks)
            or self._short.containment(text, _LEAST_NEW_WHOLE) == 1
        )

    def note_learned(self, text: str) -> int:
        """Note a text that is trained on; how many new held-out lines stand in it word for word."""
        found = self._lines_in(text) - self.past_lines
        self.leaked_lines |= found
        return len(found)

    @property
    def overlap(self) -> float:
        """Share of the held-out lines that are new, and stand in the training text all the same: of all, or of those
        that the gate scores, whichever is more. So the many files of a large change hide nothing."""
        shares = (
            len(self.leaked_lines & lines) / len(lines) if lines else 0.0 for lines in (self.lines, self._gate_lines)
        )
        return max(shares)

    def _lines_in(self, text: str) -> frozenset[str]:
        """The held-out lines that stand in ``text``, as they are or behind a line number or the mark of a diff."""
        found = self.lines & _long_lines(text)
        if plain := _without_line_numbers(text):
            found |= self.lines & _long_lines(plain)
        return found | (self.lines & _long_lines(text, _DIFF_MARK))


def held_out_text(repository: Repository, cut: Cut) -> HeldOutText:
    """The held-out text of a cut. What the commit messages up to its snapshot say is known to be of the past; the files
    of the snapshot are still to be shown."""
    held_out = HeldOutText(cut.held_out)
    if cut.held_out:
        told = repository.git(
            "log", "-z", "--no-show-signature", "--encoding=UTF-8", f"--max-count={_MESSAGES}", "--format=%B",
            cut.snapshot, "--",
        )  # fmt: skip
        messages = told.decode("utf-8", "replace").split("\0")
        for begin in range(0, len(messages), _MESSAGES_AT_ONCE):
            held_out.saw_past("\n".join(messages[begin : begin + _MESSAGES_AT_ONCE]))
    return held_out


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

    def containment(self, text: str, least_new: int) -> float:
        """The largest share of a block's new shingles that stand in ``text``; blocks with fewer than ``least_new`` are
        passed over."""
        found = self._found(text) & self._new
        if not found.any():
            return 0.0
        sizes = np.bincount(self._owners[self._new[self._index]], minlength=self._blocks)
        shared = np.bincount(self._owners[found[self._index]], minlength=self._blocks)
        enough = sizes >= least_new
        return float((shared[enough] / sizes[enough]).max(initial=0.0))

    def _found(self, text: str) -> Flags:
        found = np.zeros(len(self._hashes), bool)
        if not len(self._hashes):
            return found
        plain = _without_line_numbers(text)
        for reading in (text, plain) if plain else (text,):
            asked = self._shingles(reading)
            places = np.searchsorted(self._hashes, asked)
            places[places == len(self._hashes)] = 0
            found[places[self._hashes[places] == asked]] = True
        return found


def patch_text(patch: str) -> str:
    """Every line of a unified diff, added, removed or context, without its first column."""
    return "\n".join(line[1:] for line in patch.split("\n") if not line.startswith("@@"))


def _blocks(text: str) -> Iterator[str]:
    """Redacted text in blocks of about :data:`_BLOCK_WORDS` words at line ends; none of fewer than
    :data:`LEAST_WORDS`."""
    block: list[str] = []
    words = 0
    rest = len(_WORD.findall(text))
    for line in text.split("\n"):
        block.append(line)
        words += len(_WORD.findall(line))
        if words >= _BLOCK_WORDS and rest - words >= LEAST_WORDS:
            yield "\n".join(block)
            rest -= words
            block, words = [], 0
    if words >= LEAST_WORDS:
        yield "\n".join(block)


def _long_lines(text: str, without: re.Pattern[str] | None = None) -> frozenset[str]:
    lines = text.split("\n")
    if without is not None:
        lines = [line[mark.end() :] for line in lines if (mark := without.match(line))]
    return frozenset(line for each in lines if len(line := each.strip()) >= LINE_CHARACTERS)


@lru_cache(maxsize=1)
def _without_line_numbers(text: str) -> str:
    """The text without the numbers in front of its lines; empty where there are none."""
    plain, numbers = _LINE_NUMBER.subn("", text)
    return plain if numbers else ""


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
