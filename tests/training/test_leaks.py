"""What copies a held-out change is not trained on, however it came into the text."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import InhouseError, Repository
from inhouse_training.cut import Cut, cut_repository
from inhouse_training.dataset import Dataset, build_dataset
from inhouse_training.leaks import HeldOutText
from inhouse_training.recipe import Recipe

from .history import commit, git, make_history

VALIDATION = '''
class CourierPlanner:
    """Plan which courier rides where, with the fewest kilometres."""

    def __init__(self, depots, horizon=14):
        self.depots = sorted(depots, key=lambda depot: depot.latitude)
        self.horizon = horizon

    def next_ride(self, parcels):
        heaviest = max(parcels, key=lambda parcel: parcel.weight * 1.2)
        for depot in reversed(self.depots):
            if depot.free_vans > 0 and heaviest.weight < depot.limit:
                depot.free_vans -= 1
                return Ride(depot, heaviest, days=self.horizon // 2)
        raise NoCourier(f"nobody rides for {heaviest}")
'''

NAMES = {
    "CourierPlanner": "PickerSchedule", "depots": "shelves", "depot": "shelf", "horizon": "window", "latitude": "row",
    "next_ride": "choose", "parcels": "orders", "parcel": "order", "weight": "size", "heaviest": "largest",
    "free_vans": "hands", "limit": "capacity", "Ride": "Task", "days": "hours", "NoCourier": "NobodyFree",
    "courier": "picker", "rides": "walks", "kilometres": "steps",
}  # fmt: skip


def renamed(text: str) -> str:
    return re.sub(r"\w+", lambda word: NAMES.get(word[0], word[0]), text)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve commits, then one that is held out and adds :data:`VALIDATION`."""
    root = tmp_path_factory.mktemp("made") / "shop"
    make_history(root, commits=12)
    commit(root, "Plan the couriers", courier_py=VALIDATION)
    return root


@pytest.fixture
def shop(made: Path, tmp_path: Path) -> Repository:
    """A copy to put pages and conversations beside."""
    return Repository.open(Path(shutil.copytree(made, tmp_path / "shop")))


@pytest.fixture
def recipe(tiny_recipe: Recipe) -> Recipe:
    return tiny_recipe.model_copy(
        update={"data": tiny_recipe.data.model_copy(update={"max_train_tokens": 0, "max_tokens": 768})}
    )


def write_page(repository: Repository, cut: Cut, name: str, text: str) -> Repository:
    """A page in a plain folder whose own time says that it is older than the snapshot."""
    folder = repository.root.parent / "pages"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    before = cut.as_of.timestamp() - 3600
    os.utime(folder / name, (before, before))
    return repository.with_wiki(["../pages"])


def write_conversation(repository: Repository, *answers: str) -> Repository:
    lines = [
        json.dumps({"messages": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": answer}]})
        for answer in answers
    ]
    (repository.root.parent / "talk.jsonl").write_text("\n".join(lines))
    return repository.with_conversations(["../talk.jsonl"])


def left_out(dataset: Dataset) -> set[tuple[str, str]]:
    listed = map(json.loads, (dataset.directory / "left_out.jsonl").read_text().splitlines())
    return {(each["kind"], each["name"]) for each in listed if each["reason"] == "near-copy of a held-out change"}


@pytest.mark.parametrize("quoted", [VALIDATION, renamed(VALIDATION)], ids=["as it is", "renamed identifiers"])
def test_validation_text_in_an_old_looking_page_is_dropped(
    shop: Repository, tokenizer: Any, recipe: Recipe, tmp_path: Path, quoted: str
) -> None:
    cut = cut_repository(shop, recipe)
    told = write_page(shop, cut, "Couriers.md", f"# Couriers\n\nThis is how we plan:\n\n```python\n{quoted}```\n")
    told = write_page(
        told, cut, "Returns.md", "# Returns\n\nA parcel that comes back is counted, weighed and priced.\n"
    )
    dataset = build_dataset(told, tokenizer, recipe, cut, tmp_path / "dataset")
    page = "../pages/Couriers.md"
    assert left_out(dataset) == {("page", page), ("conversation", page)}
    assert page not in dataset.rows["name"] and "../pages/Returns.md" in dataset.rows["name"]
    assert dataset.manifest["tokens"]["page"]["dropped"]["near-copy of a held-out change"] > 0
    assert dataset.manifest["overlap"]["leaked"] == 0


def test_conversations_that_quote_the_future_are_dropped(
    shop: Repository, tokenizer: Any, recipe: Recipe, tmp_path: Path
) -> None:
    later = git(shop.root, "show", "HEAD:courier.py")
    told = write_conversation(
        shop, f"The whole file:\n{later}", "So: " + VALIDATION[300:], renamed(VALIDATION), "We ask the depot first."
    )
    dataset = build_dataset(told, tokenizer, recipe, cut_repository(told, recipe), tmp_path / "dataset")
    assert left_out(dataset) == {("conversation", f"../talk.jsonl:{line}") for line in (1, 2, 3)}
    assert [name for name in dataset.rows["name"] if "talk" in name] == ["../talk.jsonl:4"]
    assert dataset.manifest["tokens"]["conversation"]["dropped"]["near-copy of a held-out change"] > 0


def test_scattered_lines_of_the_future_stop_the_build(
    shop: Repository, tokenizer: Any, recipe: Recipe, tmp_path: Path
) -> None:
    lines = [line for line in VALIDATION.split("\n") if len(line.strip()) >= 20]
    told = write_conversation(shop, *lines)
    cut = cut_repository(told, recipe)
    with pytest.raises(InhouseError, match=r"lines that judge the adapter .*talk\.jsonl:1") as refused:
        build_dataset(told, tokenizer, recipe, cut, tmp_path / "dataset")
    assert "data.max_overlap" in refused.value.remedy
    assert not (tmp_path / "dataset").exists()
    lenient = recipe.model_copy(update={"data": recipe.data.model_copy(update={"max_overlap": 0.9})})
    dataset = build_dataset(told, tokenizer, lenient, cut, tmp_path / "dataset")
    assert dataset.manifest["overlap"]["leaked"] == len(lines)


def test_a_change_that_was_landed_before_is_dropped(tokenizer: Any, recipe: Recipe, tmp_path: Path) -> None:
    root = tmp_path / "shop"
    make_history(root, commits=7)
    commit(root, "Plan the couriers", courier_py=VALIDATION)
    git(root, "revert", "--no-edit", "HEAD")
    for number in range(8):
        commit(root, f"Note {number}", notes_md=f"note {number}\n" * (number + 1))
    commit(root, "Plan the couriers again", courier_py=VALIDATION.replace("14", "21"))
    repository = Repository.open(root)
    cut = cut_repository(repository, recipe)
    dataset = build_dataset(repository, tokenizer, recipe, cut, tmp_path / "dataset")
    titles = {change.commit: change.title for change in cut.training}
    assert {titles[name] for _, name in left_out(dataset)} == {"Plan the couriers", 'Revert "Plan the couriers"'}


def test_what_stood_at_the_snapshot_is_the_past_s_own(shop: Repository, recipe: Recipe) -> None:
    held_out = HeldOutText(cut_repository(shop, recipe).held_out, [VALIDATION])
    assert held_out.is_near_copy(VALIDATION) and held_out.is_near_copy(renamed(VALIDATION))
    held_out.saw_past(VALIDATION)
    assert not held_out.is_near_copy(VALIDATION)
    assert held_out.note_learned(VALIDATION) == 0 and held_out.overlap == 0
    assert len(held_out.past_lines) == len(held_out.lines) > 10


def test_prose_of_the_same_subject_and_code_of_the_same_house_are_no_copies(shop: Repository, recipe: Recipe) -> None:
    held_out = HeldOutText(cut_repository(shop, recipe).held_out, [VALIDATION])
    assert not held_out.is_near_copy(
        "The planner knows every depot, and which of them has free vans. It takes the heaviest parcel first, asks the "
        "depots from north to south, and gives up when nobody rides: then a clerk calls the courier by telephone. " * 3
    )
    assert not held_out.is_near_copy(
        "class VoucherBook:\n    def __init__(self, vouchers, days=14):\n        self.vouchers = list(vouchers)\n\n"
        "    def redeem(self, code):\n        for voucher in self.vouchers:\n            if voucher.code == code:\n"
        "                self.vouchers.remove(voucher)\n                return voucher\n        raise KeyError(code)\n"
    )
