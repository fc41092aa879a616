"""Fill-in-the-middle: which base models were trained to write what stands between two pieces of a file, and how to ask.

Bavarian et al., "Efficient Training of Language Models to Fill in the Middle", 2022 (arXiv 2207.14255): the text before
and after a gap is given in an order that three control tokens mark, and the model continues with the gap. The tokens
differ by family; a model without them would continue the file as if nothing followed. Reading them takes no torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inhouse_retrieval import InhouseError

from .engine import BASE


@dataclass(frozen=True, slots=True)
class FillInTokens:
    """The control tokens of one family, in the order prefix, suffix, middle.

    Attributes:
        ends: further tokens that end the middle, where the vocabulary has them.
    """

    prefix: str
    suffix: str
    middle: str
    ends: tuple[str, ...] = ()


FAMILIES: tuple[tuple[str, FillInTokens], ...] = (
    (
        "Qwen2.5-Coder",
        FillInTokens(
            "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>",
            ("<|fim_pad|>", "<|file_sep|>", "<|repo_name|>", "<|endoftext|>"),
        ),
    ),
    (
        "StarCoder",
        FillInTokens(
            "<fim_prefix>", "<fim_suffix>", "<fim_middle>", ("<fim_pad>", "<file_sep>", "<filename>", "<|endoftext|>")
        ),
    ),
    ("SantaCoder", FillInTokens("<fim-prefix>", "<fim-suffix>", "<fim-middle>", ("<fim-pad>", "<|endoftext|>"))),
    ("CodeLlama", FillInTokens("▁<PRE>", "▁<SUF>", "▁<MID>", ("▁<EOT>",))),
    (
        "DeepSeek-Coder",
        FillInTokens("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", ("<｜end▁of▁sentence｜>", "<|EOT|>")),
    ),
)  # fmt: skip
"""By the family that brought them in; others took them over (SmolLM and Granite have StarCoder's). Each is taken from
the model card or paper: Hui et al. 2024 (arXiv 2409.12186), Lozhkov et al. 2024 (2402.19173), Ben Allal et al. 2023
(2301.03988), Rozière et al. 2023 (2308.12950), Guo et al. 2024 (2401.14196)."""


@dataclass(frozen=True, slots=True)
class FillIn:
    """What to fill in.

    Attributes:
        header: text before the prefix, such as that with which files are learned.
        prefix, suffix: what stands before and after the gap; whole, the engine takes what fits.
        adapter: a version, or ``BASE``.
        prompt_tokens: of prefix and suffix together, at most; a quarter of it is the suffix's.
        max_tokens: of the middle.
        stop: texts that end the middle and are no part of it.
    """

    header: str
    prefix: str
    suffix: str
    adapter: str = BASE
    prompt_tokens: int = 512
    max_tokens: int = 48
    stop: tuple[str, ...] = ()


def fill_in_tokens(folder: Path) -> FillInTokens | None:
    """The tokens of the base model in ``folder``; ``None`` when its vocabulary has those of no family."""
    known = _vocabulary(folder)
    for _, tokens in FAMILIES:
        if {tokens.prefix, tokens.suffix, tokens.middle} <= known:
            return FillInTokens(
                tokens.prefix, tokens.suffix, tokens.middle, tuple(end for end in tokens.ends if end in known)
            )
    return None


def why_not(name: str) -> str:
    """Why the base model ``name`` cannot fill in, as a sentence; empty when it can. Nothing is fetched.

    Args:
        name: as in ``base_model`` of the settings.
    """
    folder = _folder_of(name)
    if folder is None:
        return f"{name} is not on this machine yet."
    if fill_in_tokens(folder) is None:
        return f"The vocabulary of {name} has no tokens for filling in."
    return ""


def fill_in_ids(
    tokens: FillInTokens, opening: Sequence[int], tokenizer: Any, asked: FillIn, literal: Any
) -> tuple[list[int], frozenset[int]]:
    """``(prompt, ids that end the middle)``.

    Args:
        opening: what the tokenizer puts before every text.
        literal: ``literal(text)`` gives the ids of text as data: control tokens that stand in a file stay characters.

    Raises:
        InhouseError: the tokenizer does not know a token that its files name.
    """
    marks = [_id_of(tokenizer, each) for each in (tokens.prefix, tokens.suffix, tokens.middle)]
    of_suffix = asked.prompt_tokens // 4
    after = literal(asked.suffix[: of_suffix * _CHARACTERS])[:of_suffix]
    room = asked.prompt_tokens - len(after)
    before = literal(asked.prefix[-room * _CHARACTERS :])[-room:]
    prompt = [*opening, marks[0], *literal(asked.header), *before, marks[1], *after, marks[2]]
    return prompt, frozenset([*marks, *(_id_of(tokenizer, each) for each in tokens.ends)])


_CHARACTERS = 32
"""No token of interest is longer; what is farther away is not even tokenized."""


def _id_of(tokenizer: Any, token: str) -> int:
    found = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(found, int) or tokenizer.convert_ids_to_tokens(found) != token:
        raise InhouseError(f"The tokenizer does not know its own token {token}.", "Fetch the base model again.")
    return found


def _vocabulary(folder: Path) -> frozenset[str]:
    """Every token that ``tokenizer.json`` and ``tokenizer_config.json`` name; empty when neither can be read."""
    known: set[str] = set()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        try:
            read = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(read, dict):
            continue
        added = [*(read.get("added_tokens") or ()), *(read.get("added_tokens_decoder") or {}).values()]
        known.update(str(each["content"]) for each in added if isinstance(each, dict) and "content" in each)
        model = read.get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
        # Unigram models list pairs of a token and its score.
        known.update(str(each[0] if isinstance(each, list) else each) for each in vocabulary or ())
    return frozenset(known)


def _folder_of(name: str) -> Path | None:
    """Where the tokenizer of a base model lies, without the hash over its weights that resolving takes."""
    from .base_model import DEFAULT_BASE, find_base_model

    if name == DEFAULT_BASE:
        base = find_base_model(name)
        return base.path if base is not None else None
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "tokenizer.json")
    return Path(found).parent if isinstance(found, str) else None
