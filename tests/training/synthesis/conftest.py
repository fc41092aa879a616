"""A repository to write about, its sections, and a server that writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import Repository
from inhouse_training import (
    build_dataset,
    read_sections,
    stored_replies,
)
from inhouse_training.cut import Cut, cut_repository
from inhouse_training.dataset import Dataset
from inhouse_training.recipe import Recipe, parse_recipe
from inhouse_training.synthesis.sources import Section

from ..history import commit, handler, make_history
from ..test_leaks import DESCRIPTION, PILOT, VALIDATION
from .chat_server import ChatServer
from .written import DESK, GUIDE, with_data


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository with a wiki page and files that use each other; its newest commit adds :data:`VALIDATION` and
    :data:`PILOT`, and has a description."""
    root = tmp_path_factory.mktemp("written") / "shop"
    make_history(root, commits=6)
    commit(root, "Write the guide", docs__refunds_md=GUIDE, desk_py=DESK)
    for number in range(6):
        commit(root, f"Take {number}", **{f"more__area{number}_py": handler(f"parcel{number}")})
    commit(root, f"Plan the couriers\n\n{DESCRIPTION}", courier_py=VALIDATION, pilot_py=PILOT)
    return Repository.open(root).with_wiki(["docs"])


@pytest.fixture(scope="session")
def cut(shop: Repository) -> Cut:
    content = 'base_model = "x"\n[optimizer]\nlearning_rate = 1e-3\n'
    return cut_repository(shop, parse_recipe(content, "any", "any.toml"))


@pytest.fixture(scope="session")
def sections(shop: Repository, cut: Cut) -> list[Section]:
    return read_sections(shop, cut)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer().running() as running:
        yield running


@pytest.fixture
def recipe(tiny_recipe: Recipe) -> Recipe:
    return with_data(tiny_recipe, max_train_tokens=0, max_tokens=1024)


@pytest.fixture
def build(shop: Repository, cut: Cut, tokenizer: Any, tmp_path: Path) -> Callable[..., Dataset]:
    def built(recipe: Recipe, name: str = "dataset") -> Dataset:
        generated = partial(stored_replies, tmp_path)
        return build_dataset(shop, tokenizer, recipe, cut, tmp_path / name, generated=generated)

    return built
