"""Token ids of text, each different line tokenised once.

The text of a repository repeats itself: a file is a row and the answer to a question, a change shows lines of a file,
an edit is asked for with places that other edits show, too. Most of the time that a dataset takes would go into
tokenising the same lines again.

Tokenizers of one family cut text into words before they look into their vocabulary, and always cut at certain line
ends, whatever stands around them. There the tokens of a text are those of its parts, in order, and those of a part can
be kept. Where exactly depends on the expression by which words are found; the two that are known here are those of
GPT-2 (SmolLM2) and of GPT-4 (Qwen2.5, Llama 3). A tokenizer of which this is not known tokenises every text whole.
"""

from __future__ import annotations

import json
import re
import unicodedata
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

_GPT_4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT_4_WORDS = frozenset({_GPT_4 % "", _GPT_4 % "{1,3}"})
"""Qwen2.5 takes digits one by one, Llama 3 up to three at once."""

_LONGEST_KEPT = 1000
"""Characters of a part; longer ones are rarely met again."""
_KEPT_CHARACTERS = 4_000_000
"""Of the parts in one generation. """

Parts = Callable[[str], list[str]]


@dataclass(slots=True)
class _Kept:
    """What is known of parts, for those that were met lately: the older of two generations is forgotten."""

    young: dict[str, Any] = field(default_factory=dict)
    old: dict[str, Any] = field(default_factory=dict)
    characters: int = 0

    def get(self, part: str) -> Any:
        found = self.young.get(part)
        if found is None and (found := self.old.get(part)) is not None:
            self.put(part, found)
        return found

    def put(self, part: str, value: Any) -> None:
        if len(part) > _LONGEST_KEPT:
            return
        if self.characters > _KEPT_CHARACTERS:
            self.old, self.young, self.characters = self.young, {}, 0
        self.young[part] = value
        self.characters += len(part)


class LineTokens:
    """The tokens of texts as data: nothing is added, and control tokens in them are plain characters."""

    def __init__(self, backend: Any) -> None:
        """
        Args:
            backend: a ``tokenizers.Tokenizer`` that neither cuts nor pads, and takes control tokens for text.
        """
        self._backend = backend
        self._parts = parts_of(json.loads(backend.to_str()))
        self._kept = _Kept()
        self._bytes = _bytes_of_tokens(backend) if self._parts is not None else np.zeros(0, np.int32)

    @property
    def by_lines(self) -> bool:
        """Whether texts are taken apart; otherwise each is tokenised whole, every time."""
        return self._parts is not None

    def ids(self, text: str) -> list[int]:
        """The token ids."""
        if self._parts is None:
            whole: list[int] = self._backend.encode(text, add_special_tokens=False).ids
            return whole
        return self._joined(self._parts(text)).tolist()

    def starts(self, text: str) -> list[int]:
        """The character at which each token begins; where a token begins within a character, that one."""
        # Not where a normalizer composes characters.
        if self._parts is not None and unicodedata.is_normalized("NFC", text):
            lengths = self._bytes[np.frombuffer(self._joined(self._parts(text)), np.int32)]
            raw = np.frombuffer(text.encode("utf-8"), np.uint8)
            if int(lengths.sum()) == len(raw):
                begins = np.cumsum(lengths) - lengths
                if len(raw) > len(text):
                    begins = (np.cumsum((raw & 0xC0) != 0x80) - 1)[begins]
                starts: list[int] = begins.tolist()
                return starts
        return [begin for begin, _ in self._backend.encode(text, add_special_tokens=False).offsets]

    def _joined(self, parts: Sequence[str]) -> array[int]:
        found = [self._kept.get(part) for part in parts]
        missing = list(dict.fromkeys(part for part, ids in zip(parts, found, strict=True) if ids is None))
        learned = {}
        if missing:
            encoded = self._backend.encode_batch_fast(missing, add_special_tokens=False)
            learned = {part: array("i", each.ids) for part, each in zip(missing, encoded, strict=True)}
            for part, ids in learned.items():
                self._kept.put(part, ids)
        joined = array("i")
        for part, ids in zip(parts, found, strict=True):
            joined.extend(learned[part] if ids is None else ids)
        return joined


def _bytes_of_tokens(backend: Any) -> npt.NDArray[np.int32]:
    """How many bytes of text each token stands for: one for each letter of a vocabulary of bytes."""
    lengths = np.zeros(max(backend.get_vocab().values(), default=-1) + 1, np.int32)
    for token, number in backend.get_vocab().items():
        lengths[number] = len(token)
    for number, added in backend.get_added_tokens_decoder().items():
        lengths[number] = len(added.content.encode("utf-8"))
    return lengths


def parts_of(tokenizer: dict[str, Any]) -> Parts | None:
    """How to take a text apart for this tokenizer, so that its tokens are those of the parts; ``None``: not at all.

    Args:
        tokenizer: the content of a ``tokenizer.json``.
    """
    if tokenizer["model"]["type"] != "BPE" or not _acts_within_lines(tokenizer):
        return None
    words = _flat(tokenizer["pre_tokenizer"], "pretokenizers")
    kinds = [each["type"] for each in words]
    split = [each for each in words if each["type"] == "Split"]
    if kinds.count("ByteLevel") != 1 or set(kinds) - {"ByteLevel", "Digits", "Split"}:
        return None
    by_bytes = next(each for each in words if each["type"] == "ByteLevel")
    if by_bytes["add_prefix_space"]:
        return None
    if by_bytes["use_regex"] and not split:
        return _before_line_ends
    known = len(split) == 1 and split[0]["pattern"].get("Regex") in _GPT_4_WORDS
    isolated = known and split[0]["behavior"] == "Isolated" and not split[0]["invert"]
    return _after_line_ends if isolated and not by_bytes["use_regex"] else None


def _acts_within_lines(tokenizer: dict[str, Any]) -> bool:
    """Whether nothing but the words of a text decides its tokens and where they begin."""
    normalizers = _flat(tokenizer["normalizer"], "normalizers")
    processors = _flat(tokenizer["post_processor"], "processors")
    trims = any(each["type"] == "ByteLevel" and each["trim_offsets"] for each in processors)
    added = tokenizer["added_tokens"]
    reaches_out = any(
        each["lstrip"] or each["rstrip"] or each["single_word"] or each["normalized"] or "\n" in each["content"]
        for each in added
    )
    return {each["type"] for each in normalizers} <= {"NFC"} and not trims and not reaches_out


def _flat(step: dict[str, Any] | None, several: str) -> list[dict[str, Any]]:
    """A step of a tokenizer as the list of steps that it consists of."""
    if step is None:
        return []
    return [inner for each in step[several] for inner in _flat(each, several)] if step["type"] == "Sequence" else [step]


_ENDS_PRINTED = re.compile("\n(?<=[!-~]\n)")
_BEGINS_PRINTED = re.compile("\n(?=[ \t]*[!-~])")


def _before_line_ends(text: str) -> list[str]:
    """GPT-2's words: blanks before a word, so that a line end and the next line's indentation are one. No word goes on
    over a line end that follows a printed character of ASCII."""
    first, *rest = _ENDS_PRINTED.split(text)
    return [first, *["\n" + part for part in rest]] if first else ["\n" + part for part in rest]


def _after_line_ends(text: str) -> list[str]:
    """GPT-4's words: line ends belong to what is before them. No word goes on over the last one of several."""
    *rest, last = _BEGINS_PRINTED.split(text)
    return [*[part + "\n" for part in rest], last] if last else [part + "\n" for part in rest]
