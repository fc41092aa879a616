"""What becomes of what a model wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from inhouse_retrieval import Cancelled, Repository, no_progress
from inhouse_training import (
    BaseModel,
    open_run,
    plan_tasks,
    read_sections,
    retrain_on_everything,
)
from inhouse_training.cut import Cut, cut_repository
from inhouse_training.dataset import Dataset
from inhouse_training.documents import Kind
from inhouse_training.measures.abstention import names_to_ask
from inhouse_training.plan import count_planned
from inhouse_training.prompts import NOT_HERE, SYSTEM
from inhouse_training.recipe import Recipe
from inhouse_training.synthesis import grounding, raft
from inhouse_training.synthesis.absent import absent_names
from inhouse_training.synthesis.sources import Section

from ..history import git
from ..test_leaks import DESCRIPTION, PASTED, PILOT, VALIDATION, make_pilot, numbered, renamed, write_page
from .chat_server import KEY, ChatServer, honest
from .written import GUIDE, KINDS, rows_of, run, tasks_of, with_data, with_shares


def test_each_kind_becomes_rows_that_say_where_they_come_from(
    sections: list[Section], recipe: Recipe, server: ChatServer, tmp_path: Path, build: Callable[..., Dataset]
) -> None:
    run(tasks_of(sections), server, tmp_path)
    dataset = build(with_shares(recipe))
    [(origin, messages)] = rows_of(dataset, "qa")
    assert origin["generator"] == "writer" and origin["split"] == "training"
    assert [source["place"] for source in origin["sources"]] == ["docs/refunds.md:1-7"]
    assert [turn["role"] for turn in messages] == ["system", "user", "assistant"]
    assert messages[0]["content"] == SYSTEM and messages[1]["content"].startswith("What is the longest line of")
    questions = {messages[1]["content"] for _, messages in rows_of(dataset, "relation")}
    assert "How do `desk.py` and `handlers/area0.py` work together?" in questions
    account = dataset.manifest["synthesis"]
    assert account["generator"] == "writer" and account["rows"].keys() == set(KINDS)
    for figures in dataset.manifest["tokens"].values():
        assert figures["read"] == figures["trained"] + figures["held_out"] + sum(figures["dropped"].values())
    again = build(with_shares(recipe), name="again")
    assert again.manifest["rows_sha256"] == dataset.manifest["rows_sha256"]


def test_passages_come_in_the_prompt_of_the_product_with_the_true_one_in_most(
    sections: list[Section], recipe: Recipe, server: ChatServer, tmp_path: Path, build: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run(tasks_of(sections, "raft"), server, tmp_path)
    monkeypatch.setattr(raft, "WITHOUT_TRUE_PASSAGE", 0.4)
    rows = rows_of(build(with_shares(recipe)), "raft")
    answers = 0
    for origin, (system, user, assistant) in rows:
        assert system["content"] == SYSTEM and user["content"].startswith("Passages of the repository:\n\n")
        assert user["content"].rstrip().endswith("?")
        [path] = {source["place"].rpartition(":")[0] for source in origin["sources"]}
        if assistant["content"] == NOT_HERE:
            continue
        answers += 1
        place, quote, *_ = assistant["content"].split("\n")
        assert place.startswith(f"{path}:") and f"{place}\n```" in user["content"] and quote.startswith("> ")
        assert quote.removeprefix("> ") in user["content"], "what is quoted was shown"
    assert 0 < answers < len(rows)
    assert any(user["content"].count("\n```\n") >= 4 for _, (_, user, _) in rows), "distractors stand beside it"


def test_a_row_of_a_held_out_file_is_refused(
    shop: Repository,
    cut: Cut,
    sections: list[Section],
    recipe: Recipe,
    server: ChatServer,
    tmp_path: Path,
    build: Callable[..., Dataset],
) -> None:
    later = Cut(shop.head(), cut.as_of, cut.training, ())
    leaked = plan_tasks(read_sections(shop, later), KINDS, "shop")
    assert any(section.path == "courier.py" for task in leaked for section in task.sections)
    run(leaked, server, tmp_path)
    dataset = build(with_shares(recipe))
    assert "courier.py" not in " ".join(dataset.rows["origin"]) and dataset.rows.num_rows > 10
    assert "CourierPlanner" not in " ".join(dataset.rows["messages"])
    ours = {task.key("writer") for task in tasks_of(sections)}
    theirs = {task.key("writer") for task in leaked}
    assert dataset.manifest["synthesis"]["unused_replies"] == len(theirs - ours) > 0


@pytest.mark.parametrize(
    "told",
    [VALIDATION, renamed(VALIDATION), numbered("{:>4} | {}", VALIDATION), DESCRIPTION, PILOT],
    ids=["as it is", "renamed identifiers", "listing", "description", "short file"],
)
def test_a_model_that_tells_of_a_held_out_change_is_not_learned(
    sections: list[Section], recipe: Recipe, server: ChatServer, tmp_path: Path, build: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch, told: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(grounding, "_NAME", grounding.re.compile(r"(?!)()()"))  # else its names give it away
    server.write = lambda number, prompt: json.dumps(
        {"items": [{"question": "How?", "quote": "A refund is signed off by a clerk", "answer": told}]}
    )
    run(tasks_of(sections, "qa"), server, tmp_path)
    dataset = build(with_shares(recipe))
    assert dataset.manifest["synthesis"]["dropped"]["qa"] == {"near-copy of a held-out change": 1}
    assert "qa" not in dataset.rows["kind"] and dataset.manifest["overlap"]["leaked"] == 0


def test_a_page_that_tells_of_later_changes_is_not_sent_to_a_model(
    server: ChatServer, recipe: Recipe, tmp_path: Path
) -> None:
    told = make_pilot(tmp_path / "shop")
    cut = cut_repository(told, recipe)
    for number, text in enumerate(PASTED.values()):
        told = write_page(told, cut, f"Couriers{number}.md", f"# Couriers\n\nHow we plan them:\n\n{text}\n")
    told = write_page(told, cut, "Refunds.md", GUIDE)
    run(tasks_of(read_sections(told, cut)), server, tmp_path)
    prompts = [asked.prompt for asked in server.asked]
    assert any("A refund is signed off by a clerk" in prompt for prompt in prompts)
    assert not any("ouriers" in prompt for prompt in prompts)


def test_what_a_model_says_is_redacted_before_it_is_kept(
    sections: list[Section], server: ChatServer, tmp_path: Path
) -> None:
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2
    server.write = lambda number, prompt: honest(prompt).replace("belongs", f"belongs, with {secret},")
    run(tasks_of(sections, "explanation"), server, tmp_path)
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("synthesis.sqlite*"))
    assert b"[REDACTED GitHub token]" in kept and secret.encode() not in kept and KEY.encode() not in kept


def test_a_kind_takes_no_more_than_its_share_of_the_learned_tokens(
    sections: list[Section], recipe: Recipe, server: ChatServer, tmp_path: Path, build: Callable[..., Dataset]
) -> None:
    run(tasks_of(sections, "explanation"), server, tmp_path)
    small = with_data(recipe, file_share=0.3, explanation_share=0.02)
    dataset = build(small)
    trained = {kind: figures["trained"] for kind, figures in dataset.manifest["tokens"].items()}
    assert 0 < trained["explanation"] <= 0.02 * sum(trained.values())
    assert "over its share of the learned tokens" in dataset.manifest["tokens"]["explanation"]["dropped"]


def test_a_share_for_which_nothing_was_written_costs_nothing(recipe: Recipe, build: Callable[..., Dataset]) -> None:
    without = build(with_data(recipe, file_share=0.3), name="without")
    dataset = build(with_data(recipe, file_share=0.3, qa_share=0.1), name="with")
    assert dataset.manifest["rows_sha256"] == without.manifest["rows_sha256"]
    assert dataset.manifest["synthesis"]["dropped"]["qa"] == {"not generated yet": 1}


def test_new_replies_make_another_run_only_where_the_recipe_uses_them(
    shop: Repository, sections: list[Section], recipe: Recipe, server: ChatServer, tmp_path: Path
) -> None:
    base = BaseModel("tiny", Path(), "0" * 64, "")
    run(tasks_of(sections, "qa"), server, tmp_path)

    def told(*kinds: Kind) -> object:
        shares = {f"{kind}_share": 0.1 for kind in kinds}
        return open_run(shop, tmp_path, with_data(recipe, file_share=0.2, **shares), base).inputs.get("synthesis")

    assert told() is None and told("explanation", "absent") is None
    before = told("qa")
    run(tasks_of(sections, "raft"), server, tmp_path)
    assert before and told("qa") != before


def test_a_forecast_and_training_on_everything_have_what_a_model_wrote(
    shop: Repository,
    cut: Cut,
    sections: list[Section],
    recipe: Recipe,
    server: ChatServer,
    base_model: BaseModel,
    tiny_base: BaseModel,
    tmp_path: Path,
) -> None:
    asked = with_data(recipe, file_share=0.2, qa_share=0.3)
    run(tasks_of(sections, "qa"), server, tmp_path)
    state, nothing = tmp_path, tmp_path / "nothing"

    def counted(state_dir: Path) -> int:
        rows = count_planned(tmp_path / "none", cut, shop, state_dir, asked, base_model, no_progress)
        assert rows is not None
        return rows.rows

    def enough(stage: str, done: int, total: int | None) -> None:
        if stage == "loading the model":  # the dataset is built by then
            raise Cancelled("Enough.")

    assert counted(state) > counted(nothing) and not nothing.exists()
    with pytest.raises(Cancelled):
        retrain_on_everything(shop, state, asked, tiny_base, enough)
    (dataset,) = state.glob("runs/*/dataset")
    assert rows_of(Dataset(dataset), "qa")


def test_names_that_there_are_not_stand_in_no_file(shop: Repository, cut: Cut, sections: list[Section]) -> None:
    made = absent_names(shop, cut.snapshot, sections, 1)
    assert len(made) >= 4 and made == absent_names(shop, cut.snapshot, sections, 1)
    everything = git(shop.root, "grep", "-h", "", cut.snapshot).lower()
    for absent in made:
        assert absent.name.lower() not in everything and absent.real.lower() in everything
        assert absent.name in absent.question
    # One that exists in a file which is never read is found out, too.
    taken = made[0].name
    commit_with = git(shop.root, "commit-tree", "-p", cut.snapshot, "-m", "vendored", tree_with(shop, cut, taken))
    names = {absent.name for absent in absent_names(shop, commit_with, sections, 1)}
    assert taken not in names and len(names) == len(made) - 1


def test_names_that_are_asked_about_are_never_trained_on(shop: Repository, cut: Cut, sections: list[Section]) -> None:
    trained: set[str] = set()
    for seed in range(20):
        trained |= {each.name.lower() for each in absent_names(shop, cut.snapshot, sections, seed)}
    for seed in range(20):
        asked = {each.name.lower() for each in names_to_ask(shop, cut, 300, seed)}
        assert asked and not asked & trained


def tree_with(shop: Repository, cut: Cut, name: str) -> str:
    """The snapshot's tree, and a vendored file that uses ``name``."""
    blob = shop.git("hash-object", "-w", "--stdin", given=f"var x = {name.upper()}2;".encode()).decode().strip()
    folder = shop.git("mktree", given=f"100644 blob {blob}\tx.min.js\n".encode()).decode().strip()
    listed = shop.git("ls-tree", cut.snapshot) + f"040000 tree {folder}\tnode_modules\n".encode()
    return shop.git("mktree", given=listed).decode().strip()


def test_names_that_there_are_not_are_denied_with_what_the_search_finds(
    recipe: Recipe, build: Callable[..., Dataset]
) -> None:
    rows = rows_of(build(with_shares(recipe)), "absent")
    assert len(rows) >= 2
    for origin, (_, user, assistant) in rows:
        assert origin["generator"] == "no model"
        assert user["content"].startswith("Passages of the repository:") and assistant["content"].startswith(NOT_HERE)
    assert any("has a similar name" in assistant["content"] for _, (_, _, assistant) in rows)
