"""Encoders by configuration: small models of every kind, made on the spot, and what a user reads when one is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from inhouse_retrieval import Encoder, EncoderChoice, Index, InhouseError, Repository, load_encoder
from inhouse_retrieval.encoders.model_folder import find_model

TEXTS = ["def add(a, b):\n    return a + b", "Refunds are paid within thirty days.", "x"]


@pytest.fixture(scope="session")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights and prompts, read at its first token; sentence-transformers saved it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, set_seed

    plain = tmp_path_factory.mktemp("bert")
    tokenizer = find_model("all-MiniLM-L6-v2", None).path / "tokenizer.json"
    PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), pad_token="[PAD]").save_pretrained(plain)
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    set_seed(3407)
    BertModel(config, add_pooling_layer=False).save_pretrained(plain)
    folder = tmp_path_factory.mktemp("sentence-bert")
    read = Transformer(str(plain), max_seq_length=64)
    prompts = {"query": "search for: ", "document": "code: "}
    SentenceTransformer(modules=[read, Pooling(32, "cls"), Normalize()], prompts=prompts, device="cpu").save(
        str(folder)
    )
    return folder


@pytest.fixture(scope="session")
def static_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of random word vectors, as model2vec saves it."""
    from model2vec import StaticModel

    vectors = np.random.default_rng(3407).standard_normal((30522, 16)).astype(np.float32)
    folder = tmp_path_factory.mktemp("static")
    tokenizer = find_model("all-MiniLM-L6-v2", None).tokenizer()
    StaticModel(vectors, tokenizer, config={"model_type": "model2vec", "hidden_dim": 16}).save_pretrained(folder)
    return folder


def test_a_sentence_model_runs_in_8_bits_and_in_floats_with_its_prompts(sentence_model: Path) -> None:
    small = load_encoder(EncoderChoice(str(sentence_model)))
    exact = load_encoder(EncoderChoice(str(sentence_model), precision="float32"))
    assert small.max_tokens == exact.max_tokens == 64 - 2 - exact.count_tokens(["code: "])[0]
    assert small.name != exact.name
    assert (small.encode_documents(TEXTS) * exact.encode_documents(TEXTS)).sum(1).min() > 0.99
    bare = load_encoder(EncoderChoice(str(sentence_model), query_prompt="", document_prompt=""))
    assert np.array_equal(bare.encode_query("search for: refunds"), small.encode_query("refunds"))
    assert np.array_equal(bare.encode_query("code: x"), small.encode_documents(["x"])[0])
    assert bare.name not in (small.name, exact.name)


def test_a_static_model_gives_the_mean_of_its_word_vectors(static_model: Path) -> None:
    from model2vec import StaticModel

    encoder = load_encoder(EncoderChoice(str(static_model)))
    assert (encoder.dimension, encoder.encode_documents([]).shape) == (16, (0, 16))
    theirs = StaticModel.from_pretrained(static_model).encode(TEXTS)
    assert (encoder.encode_documents(TEXTS) * theirs / np.linalg.norm(theirs, axis=1, keepdims=True)).sum(
        1
    ).min() > 0.999
    assert not encoder.encode_query("").any()


def test_a_model_of_the_hub_s_cache_is_found_with_its_revision(
    sentence_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--shop--encoder"
    shutil.copytree(sentence_model, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    named = load_encoder(EncoderChoice("shop/encoder"))
    assert commit in named.name
    assert named.name == load_encoder(EncoderChoice("shop/encoder", revision=commit)).name
    with pytest.raises(InhouseError, match="no encoder 'shop/encoder' at v2 on this machine"):
        load_encoder(EncoderChoice("shop/encoder", revision="v2"))


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (EncoderChoice("nothing"), "no encoder 'nothing' on this machine"),
        (EncoderChoice("no such/folder at all"), "on this machine"),
        (
            EncoderChoice("all-MiniLM"),
            r"Did you mean all-MiniLM-L6-v2, which .* Otherwise give .* `hf download",
        ),
        (EncoderChoice("sentence-transformers/all-MiniLM-L6-v2"), "Did you mean all-MiniLM-L6-v2,"),
        (EncoderChoice(revision="v1"), "has no revisions"),
        (EncoderChoice(precision="float16"), "for a GPU"),
        (EncoderChoice(precision="int8", device="cuda"), "on the CPU"),
        (EncoderChoice(document_prompt="word " * 300), "room for 0 tokens"),
        (EncoderChoice(max_tokens=300), "room for 254 tokens"),
        (EncoderChoice(trust_remote_code="another"), "trust_remote_code names 'another'"),
    ],
)
def test_what_cannot_be_had_is_said(choice: EncoderChoice, said: str) -> None:
    with pytest.raises(InhouseError, match=said):
        load_encoder(choice)


def test_a_folder_that_is_no_encoder_or_a_damaged_one(sentence_model: Path, static_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InhouseError, match="no encoder in"):
        load_encoder(EncoderChoice(str(tmp_path)))
    with pytest.raises(InhouseError, match="static model, which runs on the CPU"):
        load_encoder(EncoderChoice(str(static_model), precision="int8"))
    wrong = shutil.copytree(static_model, tmp_path / "wrong")
    config = json.loads((wrong / "config.json").read_text())
    (wrong / "config.json").write_text(json.dumps({**config, "hidden_dim": 8}))
    with pytest.raises(InhouseError, match="vectors of 16 numbers, its configuration says 8"):
        load_encoder(EncoderChoice(str(wrong))).encode_query("x")
    other = shutil.copytree(sentence_model, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    with pytest.raises(InhouseError, match="its activation is relu"):
        load_encoder(EncoderChoice(str(other), precision="int8"))
    broken = shutil.copytree(sentence_model, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not weights")
    for precision in ("int8", "float32"):
        with pytest.raises(InhouseError, match="cannot be loaded"):
            load_encoder(EncoderChoice(str(broken), precision=precision)).encode_query("x")
    assert load_encoder(EncoderChoice(str(broken))).name != load_encoder(
        EncoderChoice(str(sentence_model))
    ).name.replace(str(sentence_model), str(broken))


def test_a_change_of_encoder_embeds_again_and_says_so_and_going_back_costs_nothing(
    repository: Repository, state: Path, encoder: Encoder, static_model: Path
) -> None:
    with Index.open(repository, state, encoder) as index:
        first = index.refresh()
        assert (first.encoder, first.former_encoder) == (encoder.name, "")
    static = load_encoder(EncoderChoice(str(static_model)))
    with Index.open(repository, state, static) as index:
        before = index.search("book_courier")
        assert before.passages[0].path == "shop/courier.py"
        assert all("dense" not in passage.legs for passage in before.passages)
        again = index.refresh()
        assert (again.embedded, again.former_encoder) == (first.chunks, encoder.name)
        assert index.refresh().former_encoder == ""
        assert any("dense" in passage.legs for passage in index.search("ask a courier to collect a parcel").passages)
    with Index.open(repository, state, encoder) as index:
        back = index.refresh()
        assert (back.embedded, back.former_encoder) == (0, static.name)
        assert "dense" in index.search("ask a courier to collect a parcel").passages[0].legs
