"""What copies a held-out change is not trained on, however it came into the text."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import ChangedFile, InhouseError, Repository
from inhouse_training.cut import Cut, cut_repository
from inhouse_training.dataset import Dataset, build_dataset
from inhouse_training.leaks import _TOKEN, HeldOutText
from inhouse_training.recipe import Recipe
from inhouse_training.reviews import _SUGGESTION
from inhouse_training.synthesis.sources import read_sections

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


DESCRIPTION = """\
Until now every courier of the northern depot had to telephone the dispatcher before leaving, because nobody knew which
van was still free. From today the planner keeps a list of free vans, takes the heaviest parcel first and asks the
depots from north to south. Operations measured eleven percent fewer kilometres in the pilot of Bremen. The telephone
list is kept for thirty days and then archived by the nightly job."""

PILOT = """\
PILOT_DEPOT = "Bremen-Hemelingen"
PILOT_KILOMETRES_SAVED = 0.1137
DISPATCH_DESK = "+49 421 5550199"
ARCHIVE_AFTER_DAYS = 30
"""
"""A whole file of a few words."""

DESKS = "\n".join(f"desk_{name} = open_desk('{name}', clerks={number})" for number, name in enumerate("abcdefgh"))
"""A file beside a longer one, so that the gate does not score it; as part of a later pull request it is scored."""

LICENCE = "# Copyright of the shop, all rights reserved: copy nothing of it without asking the counsel first.\n"
IMPORT = "from couriers.planning import CourierPlanner\n"
REVIEWED = "Reviewed-by: The counsel of the shop <counsel@example.org>"


def numbered(form: str, text: str) -> str:
    """As a terminal, a diff or a review shows it."""
    return "\n".join(form.format(number, line) for number, line in enumerate(text.strip("\n").split("\n"), start=1))


PASTED = {
    "description": DESCRIPTION,
    "short description": "The telephone list of the northern depot is archived every night from now on.",
    "short file": PILOT,
    "short file as a listing": numbered("{:>3}\t{}", PILOT),
    "listing": numbered("{:>4} | {}", VALIDATION),
    "renamed listing": numbered("{:>4} | {}", renamed(VALIDATION)),
    "search": numbered("{}: {}", VALIDATION),
    "search in files": numbered("src/courier.py:{}:{}", VALIDATION),
    "numbered diff": numbered("+{} {}", VALIDATION),
    "diff with two columns": numbered("  7 {:>3} + {}", VALIDATION),
}
"""What later changes brought, as people paste it."""


def make_pilot(root: Path) -> Repository:
    """What stands at the snapshot of :func:`make_history`, and later changes with descriptions and short files."""
    make_history(root, commits=8)
    commit(root, f"Open the desks\n\n{REVIEWED}", desks__licence_py=LICENCE)
    for number in range(8):
        commit(root, f"Note {number}", notes_md=f"note {number}\n" * (number + 1))
    commit(root, f"Plan the couriers\n\n{DESCRIPTION}\n\n{REVIEWED}", courier_py=VALIDATION, desks__all_py=DESKS)
    commit(root, f"Try it\n\n{PASTED['short description']}", pilot_py=PILOT)
    commit(root, "Make it a package", couriers____init___py=IMPORT, couriers__licence_py=LICENCE)
    return Repository.open(root)


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


@pytest.fixture(scope="module")
def made_pilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pilot(tmp_path_factory.mktemp("pilot") / "shop").root


@pytest.fixture
def pilot(made_pilot: Path, tmp_path: Path) -> Repository:
    """A copy of :func:`make_pilot`'s."""
    return Repository.open(Path(shutil.copytree(made_pilot, tmp_path / "shop")))


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
    assert left_out(dataset) == {("written", f"../talk.jsonl:{line}") for line in (1, 2, 3)}
    assert [name for name in dataset.rows["name"] if "talk" in name] == ["../talk.jsonl:4"]
    assert dataset.manifest["tokens"]["written"]["dropped"]["near-copy of a held-out change"] > 0


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
    held_out = HeldOutText(cut_repository(shop, recipe).held_out)
    assert held_out.is_near_copy(VALIDATION) and held_out.is_near_copy(renamed(VALIDATION))
    held_out.saw_past(VALIDATION)
    assert not held_out.is_near_copy(VALIDATION)
    assert held_out.note_learned(VALIDATION) == 0 and held_out.overlap == 0
    assert held_out.past_lines == {line for each in VALIDATION.split("\n") if len(line := each.strip()) >= 20}


def test_prose_of_the_same_subject_and_code_of_the_same_house_are_no_copies(shop: Repository, recipe: Recipe) -> None:
    held_out = HeldOutText(cut_repository(shop, recipe).held_out)
    assert not held_out.is_near_copy(
        "The planner knows every depot, and which of them has free vans. It takes the heaviest parcel first, asks the "
        "depots from north to south, and gives up when nobody rides: then a clerk calls the courier by telephone. " * 3
    )
    assert not held_out.is_near_copy(
        "class VoucherBook:\n    def __init__(self, vouchers, days=14):\n        self.vouchers = list(vouchers)\n\n"
        "    def redeem(self, code):\n        for voucher in self.vouchers:\n            if voucher.code == code:\n"
        "                self.vouchers.remove(voucher)\n                return voucher\n        raise KeyError(code)\n"
    )


@pytest.mark.parametrize("what", PASTED)
def test_whatever_later_changes_bring_is_dropped_however_it_is_pasted(
    pilot: Repository, tokenizer: Any, recipe: Recipe, tmp_path: Path, what: str
) -> None:
    cut = cut_repository(pilot, recipe)
    told = write_page(
        pilot, cut, "Couriers.md", f"# Couriers\n\nThis is how we plan:\n\n{PASTED[what]}\n\nMore later.\n"
    )
    told = write_page(told, cut, "Returns.md", "# Returns\n\nA parcel that comes back is counted and priced.\n")
    told = write_conversation(told, f"Like so:\n\n{PASTED[what]}", "We ask the depot first.")
    cut = cut_repository(told, recipe)
    dataset = build_dataset(told, tokenizer, recipe, cut, tmp_path / "dataset")
    page = "../pages/Couriers.md"
    assert left_out(dataset) == {("page", page), ("conversation", page), ("written", "../talk.jsonl:1")}
    assert {"../pages/Returns.md", "../talk.jsonl:2"} <= set(dataset.rows["name"])
    assert dataset.manifest["overlap"]["leaked"] == 0
    assert {section.path for section in read_sections(told, cut)} & {page} == set(), "a model is not shown it either"


def test_single_lines_of_every_later_file_are_counted(
    pilot: Repository, tokenizer: Any, recipe: Recipe, tmp_path: Path
) -> None:
    lines = DESKS.split("\n")
    told = write_conversation(
        pilot, *lines[:3], f"  17 | {lines[3]}", f"5: {lines[4]}", f"+6 {lines[5]}", "> " + lines[6]
    )
    cut = cut_repository(told, recipe)
    with pytest.raises(InhouseError, match=r"lines that judge the adapter .*talk\.jsonl"):
        build_dataset(told, tokenizer, recipe, cut, tmp_path / "dataset")
    lenient = recipe.model_copy(update={"data": recipe.data.model_copy(update={"max_overlap": 0.9})})
    dataset = build_dataset(told, tokenizer, lenient, cut, tmp_path / "dataset")
    assert dataset.manifest["overlap"]["leaked"] == 7


def test_what_the_past_says_as_well_and_trivial_files_refuse_no_build(
    pilot: Repository, tokenizer: Any, recipe: Recipe, tmp_path: Path
) -> None:
    pasted = f"{LICENCE}\n{IMPORT}\n{REVIEWED}\n"
    cut = cut_repository(pilot, recipe)
    told = write_page(pilot, cut, "Couriers.md", f"# Couriers\n\nEach file begins so:\n\n{pasted}")
    told = write_conversation(told, pasted, numbered("{:>3} | {}", pasted))
    dataset = build_dataset(told, tokenizer, recipe, cut_repository(told, recipe), tmp_path / "dataset")
    assert left_out(dataset) == set()
    assert {"../pages/Couriers.md", "../talk.jsonl:1", "../talk.jsonl:2"} <= set(dataset.rows["name"])
    assert dataset.manifest["overlap"]["leaked"] == 1, "the import, and neither the licence nor the trailer"


def test_many_files_beside_those_that_the_gate_scores_hide_no_leak(shop: Repository, recipe: Recipe) -> None:
    change = cut_repository(shop, recipe).held_out[0]
    lines = "".join(f"+{number} tulips and {number + 1} lilies\n" for number in range(9))
    beside = [
        ChangedFile(f"{name}.txt", "added", f"@@ -0,0 +1,9 @@\n{lines}".replace("tulips", f"{name}-tulips"))
        for name in "abcdefgh"
    ]
    held_out = HeldOutText([replace(change, files=(*change.files, *beside))])
    leaked = held_out.note_learned("\n".join(VALIDATION.split("\n")[:9]))
    scored = HeldOutText([change])
    assert held_out.overlap == leaked / len(scored.lines) > leaked / len(held_out.lines) and leaked == 6


def test_numbers_that_begin_lines_of_their_own_are_no_listing(pilot: Repository, recipe: Recipe) -> None:
    held_out = HeldOutText(cut_repository(pilot, recipe).held_out)
    steps = "1. Weigh the parcel.\n2. Ask the depots from north to south.\n3. Tell the courier which van is free.\n" * 5
    table = "\n".join(f"{number} vans of depot {number} rode {number * 7} kilometres" for number in range(40))
    for text in (steps, table, numbered("{:>4} | {}", steps)):
        assert not held_out.is_near_copy(text) and held_out.note_learned(text) == 0


@pytest.mark.timeout(20)
def test_quotation_marks_that_do_not_pair_up_take_no_time() -> None:
    assert len(_TOKEN.findall('{\\"name\\":\\"value\\",' * 20_000)) > 20_000
    assert _SUGGESTION.search("```suggestion\n" * 20_000) is None
