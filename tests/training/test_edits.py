"""Edits: what past changes added, asked for in the product's own prompt with the code as it was before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import PullRequest, Repository, read_pull_requests
from inhouse_training import Message, build_dataset
from inhouse_training.cut import cut_repository
from inhouse_training.documents import added_lines
from inhouse_training.edits import Edit, edit_row, read_edits
from inhouse_training.prompts import IGNORED, chat_ids, edit_question
from inhouse_training.recipe import Recipe

from .history import commit, git, handler


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, PullRequest]:
    """A change of a long file and of the file that uses it."""
    root = tmp_path_factory.mktemp("edits") / "shop"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    lines = [f"line_{number} = {number}" for number in range(300)]
    commit(root, "Start", long_py="\n".join(lines) + "\n", short_py="import long\n")
    lines[150] = "line_150 = 'one hundred and fifty'"
    commit(
        root,
        "Spell a line out",
        long_py="\n".join(lines) + "\n",
        short_py="import long\n\nprint(long.line_150)\n",
        new_py=handler("thing"),
    )
    repository = Repository.open(root)
    return repository, read_pull_requests(repository)[0]


def counter(tokenizer: Any) -> Any:
    def count(messages: Sequence[Message]) -> int:
        return len(chat_ids(tokenizer, messages, add_generation_prompt=True))

    return count


def learned(tokenizer: Any, labels: list[int]) -> str:
    return str(tokenizer.decode([label for label in labels if label != IGNORED]))


def test_an_edit_holds_the_code_as_it_was(changed: tuple[Repository, PullRequest]) -> None:
    repository, change = changed
    edits = {edit.path: edit for edit in read_edits(repository, [change])}
    assert edits["long.py"].added == "line_150 = 'one hundred and fifty'"
    (window,) = edits["long.py"].windows
    assert "line_150 = 150" in window.text and "fifty" not in window.text
    assert window.start_line < 151 < window.end_line < 200
    assert edits["long.py"].whole is not None and "fifty" not in edits["long.py"].whole.text
    assert [passage.path for passage in edits["long.py"].companions] == ["short.py"], "a new file was nothing before"
    assert edits["new.py"].whole is None and edits["new.py"].windows == ()


def test_rows_ask_as_evaluation_and_product_do_and_learn_the_answer_alone(
    changed: tuple[Repository, PullRequest], tokenizer: Any
) -> None:
    repository, change = changed
    shown = set()
    for seed in range(24):
        for edit in read_edits(repository, [change]):
            row = edit_row(tokenizer, counter(tokenizer), edit, 900, seed)
            assert row is not None and len(row.input_ids) <= 900
            text = tokenizer.decode(row.input_ids)
            assert edit_question(change.title, edit.path) in text
            assert learned(tokenizer, row.labels) == edit.added + "<|im_end|>"
            if edit.path == "long.py":
                before = "line_150 = 150" in text
                shown.add((before, "import long\n" in text, before and text.find("long.py:") < text.find("short.py:")))
    assert (False, False, False) in shown, "some are asked with nothing shown"
    assert {(True, True, True), (True, True, False)} <= shown, (
        "others with the code, and not always the right file first"
    )


def test_an_answer_that_does_not_fit_loses_its_end_and_no_end_is_learned(tokenizer: Any) -> None:
    added = "\n".join(f"value_{number} = compute({number})" for number in range(200))
    edit = Edit("c0ffee", "Add values", "values.py", added, True, None, (), ())
    row = edit_row(tokenizer, counter(tokenizer), edit, 400, seed=1)
    assert row is not None
    text = learned(tokenizer, row.labels)
    assert added.startswith(text) and text.endswith(")"), "cut between lines"
    assert 150 < row.learned_tokens <= 200 < row.answer_tokens
    assert edit_row(tokenizer, counter(tokenizer), edit, 64, seed=1) is None, "its question fills the row"


def test_a_change_whose_patch_was_cut_teaches_no_end(tmp_path: Path, tokenizer: Any) -> None:
    root = tmp_path / "large"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    commit(root, "Start", short_py="x = 1\n")
    commit(root, "Add a table", table_py="".join(f"row_{number} = {number}\n" for number in range(2000)))
    repository = Repository.open(root)
    (edit,) = read_edits(repository, read_pull_requests(repository)[:1])
    assert not edit.complete and len(edit.added) < 20_000
    row = edit_row(tokenizer, counter(tokenizer), edit, 40_000, seed=1)
    assert row is not None and learned(tokenizer, row.labels) == edit.added, "all that is there, and no end of turn"


def test_every_added_line_of_the_past_is_learned_or_accounted_for_and_none_of_the_future(
    history: Repository, tokenizer: Any, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    data = tiny_recipe.data.model_copy(update={"max_train_tokens": 0, "edit_share": 0.1, "file_share": 0.3})
    recipe = tiny_recipe.model_copy(update={"data": data})
    cut = cut_repository(history, recipe)
    dataset = build_dataset(history, tokenizer, recipe, cut, tmp_path / "dataset")
    rows = [row for row in dataset.rows if row["kind"] == "edit"]
    past = {change.commit: change for change in cut.training}
    assert {row["name"].split(":")[0] for row in rows} == set(past)
    for row in rows:
        name, path = row["name"].split(":")
        (file,) = past[name].files
        assert path == file.path
        assert json.loads(row["origin"])["sources"] == [{"place": path, "commit": name}]
        assert added_lines(file.patch).lstrip().startswith(learned(tokenizer, row["labels"])[:40].lstrip())
    account = dataset.manifest["tokens"]["edit"]
    assert account["read"] == account["trained"] + sum(account["dropped"].values()) > 0
    assert account["trained"] == sum(row["source_tokens"] for row in rows)


def test_odd_changes_are_learned_rightly_or_not_at_all(tokenizer: Any, tmp_path: Path) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    lines = [f"line_{number} = {number}" for number in range(60)]
    commit(
        root,
        "Start",
        old_py="\n".join(lines) + "\n",
        latin_py="x = 1\n",
        blank_py="x = 1\n",
        large_csv="a,b\n" * 400_000,
    )
    (root / "latin.py").write_bytes("x = 1  # d\xe9j\xe0 vu\n".encode("latin-1"))
    (root / "blank.py").write_text("x = 1\n" + " \n\t\n" * 3_000 + "y = 2\n")
    with (root / "large_csv").open("a") as file:
        file.write("c,d\n")
    git(root, "mv", "old.py", "new.py")
    lines[30] = "line_30 = 'thirty'"
    (root / "new.py").write_text("\n".join(lines) + "\n")
    git(root, "commit", "--quiet", "--all", "--message", "Change everything")
    repository = Repository.open(root)
    edits = {edit.path: edit for edit in read_edits(repository, read_pull_requests(repository))}
    assert "latin.py" not in edits, "no text, so nobody learns its broken letters"
    assert edits["new.py"].whole is not None and "line_30 = 30" in edits["new.py"].whole.text, "under its former name"
    assert "large_csv" not in edits, "larger than what is ever read"
    row = edit_row(tokenizer, counter(tokenizer), edits["blank.py"], 400, seed=1)
    assert row is None or learned(tokenizer, row.labels).strip(), "blanks alone are no answer"
