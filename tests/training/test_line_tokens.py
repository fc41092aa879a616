"""Tokens by lines are those of the whole text, for each family of tokenizers that is taken apart."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from inhouse_training import line_tokens
from inhouse_training.line_tokens import LineTokens, parts_of

QWEN, LLAMA = (line_tokens._GPT_4 % digits for digits in ("", "{1,3}"))

CORPUS = [
    "def retry(payment):\n    if payment.done:\n        return None\n\n\n    return pay(payment, twice=True);\r\n}\n",
    "export const a = { b: 'x' };\n\n\t\tfoo();\n  // ä 支付 🙂 don't\n   \n\n- File: a.ts\nContent:\n" * 3,
]
PIECES = [
    *("\n", "\n", " ", "    ", "\t", "\r\n", "\r", "\x0b", "\x1c", "\x85", "\u2028", "\u3000", "\u00a0"),
    *("a", "foo", "don't", "'s", "1", "12345", ";", "{", "==", "!", "~", "é", "e\u0301", "\u0301", "支", "🙂"),
    *("<|im_end|>", "<|im_start|>", "<tool>", "_", "-", "return x;\n    y", "}\n\n\n  b", ")\n]\n"),
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=2), max_size=25).map("".join)


def _encodable(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def trained(words: Any, normalizer: Any = None, added: tuple[AddedToken, ...] = ()) -> Tokenizer:
    """A small real vocabulary of bytes, with such merges over line ends as the way to find words allows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = words
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet))
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True, normalized=False)])
    tokenizer.add_tokens(list(added))
    tokenizer.encode_special_tokens = True
    return tokenizer


def by_gpt_4(expression: str) -> Any:
    split = pre_tokenizers.Split(Regex(expression), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt_2(**options: Any) -> Any:
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **options})


BACKENDS: dict[str, Any] = {
    "gpt-2": lambda: trained(gpt_2()),
    "gpt-2, digits": lambda: trained(pre_tokenizers.Sequence([pre_tokenizers.Digits(True), gpt_2()])),
    "qwen": lambda: trained(by_gpt_4(QWEN), normalizers.NFC(), (AddedToken("<tool>", normalized=False),)),
    "llama": lambda: trained(by_gpt_4(LLAMA)),
}


@pytest.fixture(scope="module", params=[*BACKENDS, "smollm2"])
def backend(request: pytest.FixtureRequest, tokenizer: Any) -> Tokenizer:
    if request.param != "smollm2":
        made: Tokenizer = BACKENDS[request.param]()
        return made
    twin = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    twin.encode_special_tokens = True
    return twin


@pytest.fixture(scope="module")
def lines(backend: Tokenizer) -> LineTokens:
    """Made once: that reads all of the tokenizer, which takes half a second for a real one."""
    return LineTokens(backend)


@settings(max_examples=200, deadline=None)
@given(text=texts.filter(_encodable))
def test_the_tokens_of_the_parts_are_those_of_the_whole(backend: Tokenizer, lines: LineTokens, text: str) -> None:
    whole = backend.encode(text, add_special_tokens=False)
    assert lines.by_lines
    for _ in range(2):  # once tokenised, once remembered
        assert lines.ids(text) == whole.ids
        assert lines.starts(text) == [begin for begin, _ in whole.offsets]


def test_code_is_taken_apart_at_its_lines_and_each_is_tokenised_once(backend: Tokenizer) -> None:
    parts = parts_of(json.loads(backend.to_str()))
    assert parts is not None
    text = "".join(f"    total += price({number});\n" for number in range(50))
    assert "".join(parts(text)) == text and len(parts(text)) >= 50

    asked: list[str] = []

    class Watched:
        def encode_batch_fast(self, given: list[str], add_special_tokens: bool) -> Any:
            asked.extend(given)
            return backend.encode_batch_fast(given, add_special_tokens=add_special_tokens)

    lines = LineTokens(backend)
    lines._backend = Watched()
    first = lines.ids(text * 3)
    assert lines.ids(text * 3) == first and len(asked) == len(set(asked)) <= 52


def test_what_was_not_met_lately_is_forgotten(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_tokens, "_KEPT_CHARACTERS", 1000)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    lines = LineTokens(backend)
    draw = random.Random(1)
    for _ in range(200):
        text = "".join(f"name_{draw.randrange(10**9)} = {draw.random()};\n" for _ in range(10))
        assert lines.ids(text) == backend.encode(text, add_special_tokens=False).ids
    kept = [*lines._kept.young, *lines._kept.old]
    assert sum(map(len, kept)) < 3000


@pytest.mark.parametrize(
    "words",
    [
        gpt_2(add_prefix_space=True),
        gpt_2(use_regex=False),
        by_gpt_4(QWEN.replace(r"\p{N}|", r"\p{N}{1,2}|")),
        pre_tokenizers.Metaspace(),
    ],
    ids=["blank before a text", "no words", "unknown words", "metaspace"],
)
def test_a_tokenizer_that_is_not_known_tokenises_whole_texts(words: Any) -> None:
    lines, backend = LineTokens(trained(words)), trained(words)
    assert not lines.by_lines
    for text in CORPUS:
        assert lines.ids(text) == backend.encode(text, add_special_tokens=False).ids
        assert lines.starts(text) == [begin for begin, _ in backend.encode(text, add_special_tokens=False).offsets]


def test_added_tokens_and_processors_that_reach_beyond_a_word_are_left_alone() -> None:
    assert not LineTokens(trained(gpt_2(), added=(AddedToken("<tool>", rstrip=True, normalized=False),))).by_lines
    assert not LineTokens(trained(gpt_2(), normalizers.Prepend("x"))).by_lines
    trimming = trained(gpt_2())
    trimming.post_processor = processors.ByteLevel(trim_offsets=True)
    assert not LineTokens(trimming).by_lines
