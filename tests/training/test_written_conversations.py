"""Hand-made conversations: read, learned, refused when malformed, and the same again after an export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import InhouseError, Repository
from inhouse_training import SYSTEM, BaseModel, chat_row, export_conversations, open_run, read_rows
from inhouse_training.dataset import build_dataset
from inhouse_training.recipe import Recipe
from inhouse_training.written_conversations import read_conversations


def line(*turns: tuple[str, str]) -> str:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]})


SHORT = line(("user", "Who signs off a refund?"), ("assistant", "A clerk of the same tenant."))
LONG = line(
    ("system", "You speak as a pirate."),
    ("user", "Ahoy?"), ("assistant", "Ahoy, matey."), ("user", "And then?"), ("assistant", "Then we sail."),
)  # fmt: skip


def test_files_are_read_in_order_redacted_and_named_by_line(tmp_path: Path) -> None:
    root = tmp_path / "shop"
    (root / "talks").mkdir(parents=True)
    (root / "talks" / "b.jsonl").write_text(f"\n{LONG}\n")
    (root / "talks" / "a.jsonl").write_text(SHORT.replace("clerk", "AKIA" + "Z7QX3MPLK2VBN5RT"))
    (tmp_path / "else.jsonl").write_text(SHORT)
    found = read_conversations(root, ["talks/*.jsonl", "talks/a.jsonl", "../else.jsonl"])
    assert [each.name for each in found] == ["../else.jsonl:1", "talks/a.jsonl:1", "talks/b.jsonl:2"]
    assert "AKIA" not in found[1].messages[1].content and "[REDACTED" in found[1].messages[1].content
    assert [turn.role for turn in found[2].messages] == ["system", "user", "assistant", "user", "assistant"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "line 2: it is not valid JSON"),
        ("[" * 100_000, "line 2: it is not valid JSON"),
        ('{"text": "x"}', "line 2: it is not an object with a list called 'messages'"),
        ('{"messages": [{"role": "user"}]}', "line 2: message 1 does not have a role and a content"),
        (line(("user", "x"), ("assistant", " ")), "line 2: the content of message 2"),
        (line(("user", "x"), ("assistant", "\ud800")), "line 2: the content of message 2"),
        (line(("user", "x")), "line 2: after a system turn"),
        (line(("assistant", "x"), ("user", "y")), "line 2: after a system turn"),
        (line(("system", "x")), "line 2: after a system turn"),
        (line(("tool", "x"), ("assistant", "y")), "line 2: after a system turn"),
        ('{"messages": [{"role": [], "content": "x"}]}', "line 2: after a system turn"),
    ],
)
def test_a_malformed_line_is_refused_with_its_place(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "talk.jsonl").write_text(f"{SHORT}\n{content}\n")
    with pytest.raises(InhouseError) as refused:
        read_conversations(tmp_path, ["talk.jsonl"])
    assert refused.value.problem.startswith(f"talk.jsonl, {problem}")


def test_files_that_are_not_there_or_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InhouseError, match=r"names 'talks/\*.jsonl', and there is no such file"):
        read_conversations(tmp_path, ["talks/*.jsonl"])
    (tmp_path / "latin.jsonl").write_bytes("déjà".encode("latin-1"))
    with pytest.raises(InhouseError, match=r"latin\.jsonl cannot be read"):
        read_conversations(tmp_path, ["latin.jsonl"])


def test_conversations_become_rows_and_an_export_gives_the_same_rows_again(
    history: Repository, tokenizer: Any, tiny_recipe: Recipe, tiny_base: BaseModel, tmp_path: Path
) -> None:
    data = {"max_train_tokens": 0, "file_share": 0.0, "change_share": 0.0, "edit_share": 0.3, "changes": 16}
    recipe = tiny_recipe.model_copy(update={"data": tiny_recipe.data.model_copy(update=data)})
    talk = tmp_path / "talk.jsonl"
    talk.write_text("\n".join([SHORT, LONG, line(("user", "Long?"), ("assistant", "very " * 200))]))
    told = history.with_conversations([str(talk)])
    run = open_run(told, tmp_path / "state", recipe, tiny_base)
    assert "conversations" not in open_run(history, tmp_path / "state", recipe, tiny_base).inputs
    dataset = build_dataset(told, tokenizer, recipe, run.cut, run.dataset)

    rows = {row.name.rpartition(":")[2]: row for row in read_rows(dataset, tokenizer, "written", "*talk*", 9)}
    assert set(rows) == {"1", "2"}
    assert SYSTEM in rows["1"].text and SYSTEM not in rows["2"].text and "You speak as a pirate." in rows["2"].text
    learned = [rows["2"].text[begin:end] for begin, end in rows["2"].learned]
    assert learned == ["Ahoy, matey.<|im_end|>", "Then we sail.<|im_end|>"]
    assert dataset.manifest["tokens"]["written"]["dropped"]["longer than a row"] > 200

    written = export_conversations(dataset, tmp_path / "rows.jsonl", ("written",))
    again = [chat_row(tokenizer, each.messages) for each in read_conversations(tmp_path, ["rows.jsonl"])]
    rows_of_the_kind = [row for row in dataset.rows if row["kind"] == "written"]
    assert again == [(row["input_ids"], row["labels"]) for row in rows_of_the_kind]
    assert written == {"written": len(again)}
    both = export_conversations(dataset, tmp_path / "rows.jsonl", ("written", "edit", "replay"))
    assert both == {"written": len(again), "edit": dataset.rows["kind"][:].count("edit")} and both["edit"] > 2
    with pytest.raises(InhouseError, match="cannot be written"):
        export_conversations(dataset, tmp_path / "nowhere" / "rows.jsonl", ("edit",))

    # Another word in the file is another input.
    talk.write_text(talk.read_text().replace("A clerk", "The owner"))
    assert open_run(told, tmp_path / "state", recipe, tiny_base).directory != run.directory
