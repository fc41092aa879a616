"""Token ids in training are those of serving: ChatML with SmolLM2, and Mistral against Mistral's own tokenizers.

Qwen2.5 and Llama 3 are in ``tests/editors/test_chat_templates_npm.py``: npm carries their tokenizers.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from inhouse_training import Message
from inhouse_training.prompts import chat_ids

from .chat_templates import (
    ANSWER,
    ASKED,
    MISTRAL_V02,
    MISTRAL_V03,
    QUESTIONS,
    SYSTEM,
    TALK,
    check_hostile,
    check_row,
    check_talk,
    served,
)

MISTRALS = {
    "v0.2": ("tokenizer.model.v1", MISTRAL_V02, "v1"),
    "v0.3": ("mistral_instruct_tokenizer_240323.model.v3", MISTRAL_V03, "v3"),
}


@pytest.fixture(scope="module", params=sorted(MISTRALS))
def mistral(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """The tokenizer as the hub's ``tokenizer.json`` has it, and Mistral's own, which never renders text."""
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    name, template, version = MISTRALS[request.param]
    model = Path(str(resources.files("mistral_common"))) / "data" / name
    return converted(model, template, is_legacy=version == "v1"), getattr(MistralTokenizer, version)()


def converted(model: Path, template: str, is_legacy: bool) -> Any:
    """A sentencepiece model as a fast tokenizer, merges by score. (transformers 5.17 converts by id, and then two
    spaces before a word become other tokens.)

    Args:
        is_legacy: a blank goes before each part between control tokens, not before the first alone.
    """
    from sentencepiece import SentencePieceProcessor
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = SentencePieceProcessor(str(model))
    vocabulary = {pieces.id_to_piece(number): number for number in range(pieces.get_piece_size())}
    merges: list[tuple[float, int, int, tuple[str, str]]] = []
    for piece, number in vocabulary.items():
        for at in range(1, len(piece)):
            left, right = piece[:at], piece[at:]
            if left in vocabulary and right in vocabulary:
                merges.append((-pieces.get_score(number), vocabulary[left], vocabulary[right], (left, right)))
    backend = Tokenizer(
        models.BPE(
            vocabulary, [pair for *_, pair in sorted(merges)], unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    if is_legacy:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    control = [piece for piece, number in vocabulary.items() if pieces.is_control(number) or pieces.is_unknown(number)]
    backend.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in control])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer


def by_mistral(own: Any, messages: tuple[Message, ...]) -> list[int]:
    from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
    from mistral_common.protocol.instruct.request import ChatCompletionRequest

    kinds = {"system": SystemMessage, "user": UserMessage, "assistant": AssistantMessage}
    turns = [kinds[turn.role](content=turn.content) for turn in messages]
    return list(own.encode_chat_completion(ChatCompletionRequest(messages=turns)).tokens)


@pytest.mark.parametrize("question", QUESTIONS, ids=["user", "system"])
def test_smollm2(tokenizer: Any, question: tuple[Message, ...]) -> None:
    # Its template puts a system turn of its own where there is none.
    check_row(tokenizer, question, served(tokenizer, question), "<|im_end|>")


def test_smollm2_talks(tokenizer: Any) -> None:
    check_talk(tokenizer, "<|im_end|>")
    check_hostile(tokenizer, "<|im_end|>")


@pytest.mark.parametrize("question", QUESTIONS, ids=["user", "system"])
def test_mistral_reads_what_mistrals_own_tokenizer_writes(
    mistral: tuple[Any, Any], question: tuple[Message, ...]
) -> None:
    tokenizer, own = mistral
    check_row(tokenizer, question, by_mistral(own, question), "</s>")


def test_mistral_talks(mistral: tuple[Any, Any]) -> None:
    tokenizer, own = mistral
    check_talk(tokenizer, "</s>")
    check_hostile(tokenizer, "</s>")
    assert chat_ids(tokenizer, TALK, add_generation_prompt=True) == served(tokenizer, TALK)
    if "' ' + message" in tokenizer.chat_template:  # v0.2's has no blank before an answer, and its tokenizer has one
        assert served(tokenizer, TALK) == by_mistral(own, TALK)


def test_a_template_that_loses_the_system_turn_does_not_lose_it_here(mistral: tuple[Any, Any]) -> None:
    tokenizer, _ = mistral
    answered = (SYSTEM, ASKED, Message("assistant", ANSWER))
    assert SYSTEM.content in tokenizer.decode(chat_ids(tokenizer, answered, add_generation_prompt=False))
