"""Completions: a scope of the snapshot, asked for as the evaluation asks, with what other files define of its names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import Repository, read_pull_requests
from inhouse_training.completions import ScopeCompletion, completion_row, read_completions
from inhouse_training.cut import cut_repository
from inhouse_training.dataset import build_dataset
from inhouse_training.measures.completion import SCOPE, file_completions
from inhouse_training.recipe import Recipe

from .history import commit, git, handler, make_history
from .test_edits import counter, learned
from .test_leaks import VALIDATION

MONEY = '''"""Amounts of money."""


def round_to_cents(amount):
    """House rule: half a cent goes to the customer."""
    return int(amount * 100 + 0.5) / 100


def twin_of_many(amount):
    return amount
'''
INVOICE = """from money import round_to_cents, twin_of_many

LIMITS = {
    "lowest": round_to_cents(1),
    "highest": round_to_cents(99),
    "usual": round_to_cents(10),
}


def total_of(lines):
    total = sum(line.price for line in lines)
    if twin_of_many(total) > 0:
        total = round_to_cents(total)
    return total
"""
STAND_INS = "def amount_of_test(cents):\n    return cents\n\n\ndef twin_of_many(cents):\n    return cents\n"
USES_STAND_IN = "def weigh(parcel):\n    a = amount_of_test(parcel)\n    b = a + 1\n    return b\n"
KEPT = "class Shelf:\n    depth = 3\n    width = 4\n    height = 5\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    root = tmp_path_factory.mktemp("completions") / "shop"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    commit(root, "Start", money_py=MONEY, tests__stand_ins_py=STAND_INS, notes_md="# A\n\nb\n\nc\n\nd\n")
    commit(root, "Add up invoices", invoice_py=INVOICE, weigh_py=USES_STAND_IN, shelf_py=KEPT)
    return Repository.open(root)


def read(repository: Repository, seed: int = 1, without: str = "") -> dict[str, ScopeCompletion]:
    head = repository.head()
    paths = {file.path for file in repository.snapshot(head).files} - {without}
    changes = read_pull_requests(repository)
    return {item.path: item for item in read_completions(repository, head, paths, changes, seed)}


def test_a_body_is_asked_for_with_what_other_files_define_of_its_names(shop: Repository) -> None:
    item = read(shop)["invoice.py"]
    assert item.wanted == INVOICE[INVOICE.index("    total = ") :].rstrip("\n")
    assert item.before.text.endswith("def total_of(lines):")
    assert item.question == "Add up invoices\n\nWrite the rest of `total_of` in invoice.py, and nothing else."
    [passage] = item.context
    assert (passage.path, passage.start_line) == ("money.py", 4) and "House rule" in passage.text
    assert item.name == "invoice.py:11-14"


def test_the_evaluation_asks_for_the_same_lines_in_the_same_words(shop: Repository) -> None:
    item = read(shop)["invoice.py"]
    added = range(9, INVOICE.count("\n") + 1)
    [asked] = [each for each in file_completions("Add up invoices", "invoice.py", INVOICE, added) if each.kind == SCOPE]
    assert (asked.question, asked.before, asked.wanted) == (item.question, item.before, item.wanted)


def test_no_stand_in_and_no_file_that_may_not_be_read_is_shown(shop: Repository) -> None:
    assert read(shop)["weigh.py"].context == (), "only tests use what tests define"
    items = read(shop, without="money.py")
    assert "money.py" not in items and items["invoice.py"].context == ()
    shown = [passage.text for item in read(shop).values() for passage in item.context]
    assert not any("twin_of_many" in text for text in shown), "it has two homes"


def test_values_prose_and_structures_without_context_are_not_asked_for(shop: Repository) -> None:
    assert read(shop).keys() == {"invoice.py", "weigh.py"}
    assert {
        item.question for seed in range(8) for item in read(shop, seed).values() if "LIMITS" in item.question
    } == set()


def test_what_holds_a_secret_or_data_is_not_asked_for(tmp_path: Path) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    secret = "def connect():\n    key = 'AKIA" + "Z7QX3MPLK2VBN5RT'\n    ask(key)\n    return key\n"
    data = "def drawn():\n    path = '" + "M1.5 7.25" * 40 + "'\n    draw(path)\n    return path\n"
    commit(root, "Start", secret_py=secret, data_py=data, good_py=handler("thing"))
    repository = Repository.open(root)
    assert read(repository).keys() == {"good.py"}


def test_rows_learn_the_lines_alone_and_some_are_asked_without_context(shop: Repository, tokenizer: Any) -> None:
    shown = set()
    for seed in range(16):
        item = read(shop, seed)["invoice.py"]
        row = completion_row(tokenizer, counter(tokenizer), item, 600, seed)
        assert row is not None and len(row.input_ids) <= 600
        assert learned(tokenizer, row.labels) == item.wanted.lstrip() + "<|im_end|>"
        prompt = row.messages[1].content
        assert prompt.endswith(f"Selected code:\n\ninvoice.py:1-10\n```\n{item.before.text}\n```\n\n{item.question}")
        places = [source["place"] for source in json.loads(row.origin)["sources"]]
        assert places == ["invoice.py:11-14", *(["money.py:4-6"] if "House rule" in prompt else [])]
        shown.add("House rule" in prompt)
    assert shown == {True, False}
    assert completion_row(tokenizer, counter(tokenizer), item, 128, 1) is None, "no room for it"


def test_completions_come_from_the_snapshot_alone_and_every_token_is_accounted_for(
    tokenizer: Any, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    repository = make_history(tmp_path / "shop", commits=4)
    commit(repository.root, "Add up invoices", money_py=MONEY, invoice_py=INVOICE)
    for number in range(6):
        commit(repository.root, f"Take {number}", **{f"more__area{number}_py": handler(f"parcel{number}")})
    commit(repository.root, "Plan the couriers", courier_py=VALIDATION)
    recipe = tiny_recipe.model_copy(
        update={"data": tiny_recipe.data.model_copy(update={"max_train_tokens": 0, "max_tokens": 512})}
    )
    cut = cut_repository(repository, recipe)
    assert "completion" not in build_dataset(repository, tokenizer, recipe, cut, tmp_path / "off").rows["kind"]
    data = recipe.data.model_copy(update={"completion_share": 0.2, "file_share": 0.2})
    recipe = recipe.model_copy(update={"data": data})
    datasets = [build_dataset(repository, tokenizer, recipe, cut, tmp_path / name) for name in ("one", "two")]
    assert datasets[0].manifest["rows_sha256"] == datasets[1].manifest["rows_sha256"]
    rows = [row for row in datasets[0].rows if row["kind"] == "completion"]
    later = {file.path for change in cut.held_out for file in change.files}
    known = {file.path for file in repository.snapshot(cut.snapshot).files}
    assert {row["name"].rpartition(":")[0] for row in rows} <= known and later - known
    assert any(row["name"].startswith("invoice.py:") for row in rows)
    assert not any("CourierPlanner" in tokenizer.decode(row["input_ids"]) for row in rows)
    figures = datasets[0].manifest["tokens"]["completion"]
    assert figures["read"] == figures["trained"] + sum(figures["dropped"].values())
    assert figures["trained"] == sum(row["source_tokens"] for row in rows) > 0 == figures["held_out"]
