"""Which base models can fill in, and the prompt that they are asked with."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from inhouse_retrieval import InhouseError
from inhouse_training import BaseModel
from inhouse_training.decoding import FairLock
from inhouse_training.fill_in import FAMILIES, FillIn, fill_in_ids, fill_in_tokens, why_not


def tokenizer_with(folder: Path, *tokens: str) -> Any:
    """A byte-level tokenizer whose control tokens are ``tokens``, saved as base models keep it."""
    from transformers import PreTrainedTokenizerFast

    letters = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=letters, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    made.add_special_tokens({"additional_special_tokens": list(tokens)})
    made.save_pretrained(folder)
    return made


@pytest.mark.parametrize(("family", "tokens"), FAMILIES, ids=[name for name, _ in FAMILIES])
def test_each_family_is_known_by_its_tokenizer_files(tmp_path: Path, family: str, tokens: Any) -> None:
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"added_tokens": [{"content": tokens.prefix}], "model": {"vocab": {tokens.suffix: 1}}})
    )
    assert fill_in_tokens(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"added_tokens_decoder": {"7": {"content": tokens.middle}, "8": {"content": tokens.ends[0]}}})
    )
    found = fill_in_tokens(tmp_path)
    assert found is not None and (found.middle, found.ends) == (tokens.middle, tokens.ends[:1])
    assert why_not(str(tmp_path)) == ""


def test_a_model_without_the_tokens_or_that_is_not_here_says_so(base_model: BaseModel, tmp_path: Path) -> None:
    assert "no tokens for filling in" in why_not(base_model.name)
    assert "not on this machine" in why_not("nobody/no-such-model")
    (tmp_path / "tokenizer.json").write_text("[1]")
    assert "no tokens" in why_not(str(tmp_path))


def test_the_prompt_holds_what_stands_near_the_gap_and_reads_control_tokens_in_it_as_text(tmp_path: Path) -> None:
    from inhouse_training.prompts import literal_ids

    tokenizer = tokenizer_with(tmp_path, "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<fim_pad>")
    tokens = fill_in_tokens(tmp_path)
    assert tokens is not None and tokens.ends == ("<fim_pad>", "<|endoftext|>")
    asked = FillIn("- File: a.py\n", "x" * 500 + "abc", "de" + "y" * 500, prompt_tokens=8)
    prompt, ends = fill_in_ids(tokens, [], tokenizer, asked, lambda text: literal_ids(tokenizer, text))
    shown = tokenizer.decode(prompt, clean_up_tokenization_spaces=False)
    assert shown == "<fim_prefix>- File: a.py\nxxxabc<fim_suffix>de<fim_middle>"
    assert set(tokenizer.convert_ids_to_tokens(list(ends))) == {
        "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<fim_pad>", "<|endoftext|>",
    }  # fmt: skip
    written, _ = fill_in_ids(
        tokens, [], tokenizer, FillIn("", "<fim_middle>", ""), lambda text: literal_ids(tokenizer, text)
    )
    middle = tokenizer.convert_tokens_to_ids("<fim_middle>")
    assert written.count(middle) == 1 and len(written) == 3 + len("<fim_middle>")
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"added_tokens_decoder": {"1": {"content": "<file_sep>"}}})
    )
    lying = fill_in_tokens(tmp_path)
    assert lying is not None
    with pytest.raises(InhouseError, match="does not know its own token"):
        fill_in_ids(lying, [], tokenizer, asked, lambda text: literal_ids(tokenizer, text))


def test_the_patient_wait_for_all_others_and_see_that_one_came() -> None:
    turn, order = FairLock(), []
    release = Event()

    def take(name: str, patient: bool) -> None:
        with turn.hold(Event(), patient) as held:
            assert held
            order.append(name)
            release.wait(10)

    threads = []
    for name, patient in (("first", False), ("patient", True), ("second", False)):
        threads.append(threading.Thread(target=take, args=(name, patient)))
        threads[-1].start()
        while not order:
            time.sleep(0.001)
        time.sleep(0.02)
    release.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first", "second", "patient"]
    with turn.hold(Event(), patient=True) as held:
        assert held and not turn.wanted
        asking = threading.Thread(target=take, args=("question", False))
        asking.start()
        while not turn.wanted:
            time.sleep(0.001)
    asking.join(10)
    assert order[-1] == "question"
