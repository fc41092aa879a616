"""The real encoder, loaded once, and small real git repositories."""

from __future__ import annotations

from pathlib import Path

import pytest

from inhouse_retrieval import Encoder, Repository, load_encoder
from inhouse_retrieval.encoders.model_folder import find_model
from tests.retrieval.trees import commit_all, git, write

BASKET = '''"""The basket."""


class Basket:
    """What a customer is about to buy."""

    def add_voucher(self, code: str) -> None:
        """Apply a voucher; a second one replaces the first."""
        self.voucher = code

    def total_in_pennies(self) -> int:
        return sum(line.price for line in self.lines)
'''
COURIER = '''"""Couriers."""


def book_courier(parcel: str) -> str:
    """Ask a courier to collect a parcel before noon."""
    return f"courier for {parcel}"
'''


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """all-MiniLM-L6-v2 from its wheel."""
    return load_encoder()


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one layer that gives one score, as sentence-transformers saves it."""
    from sentence_transformers import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, set_seed

    plain = tmp_path_factory.mktemp("bert")
    tokenizer = find_model("all-MiniLM-L6-v2", None).path / "tokenizer.json"
    PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), pad_token="[PAD]").save_pretrained(plain)
    set_seed(3407)
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.5,
        num_labels=1,
    )
    BertForSequenceClassification(config).save_pretrained(plain)
    folder = tmp_path_factory.mktemp("cross-encoder")
    CrossEncoder(str(plain), device="cpu", max_length=128).save_pretrained(str(folder))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two Python files and a page, committed."""
    root = tmp_path / "shop"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    write(
        root,
        {
            "shop/basket.py": BASKET,
            "shop/courier.py": COURIER,
            "docs/returns.md": "# Returns\n\nWithin 30 days.\n",
        },
    )
    commit_all(root, "Open the shop")
    return root


@pytest.fixture
def repository(root: Path) -> Repository:
    return Repository.open(root)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"
