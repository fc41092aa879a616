"""Exported chat, tickets and mail become rows: as they were at the snapshot, every token accounted for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import ExportPaths, Repository
from inhouse_training import BaseModel, open_run
from inhouse_training.cut import cut_repository, held_out_change
from inhouse_training.dataset import build_dataset
from inhouse_training.recipe import Recipe, parse_recipe

from .conftest import TINY

LONG_AGO, LATER = 1_700_000_000, 2_000_000_000


def said(at: int, text: str, root: int | None = None) -> dict[str, Any]:
    return {"type": "message", "user": "U1", "ts": f"{at}.000100", "text": text} | (
        {"thread_ts": f"{root}.000100"} if root else {}
    )


@pytest.fixture
def told(history: Repository, tmp_path: Path, tiny_recipe: Recipe) -> Repository:
    """The repository with a thread that goes on later, one of later, tickets, and one that quotes a held-out change."""
    held_out = held_out_change(cut_repository(history, tiny_recipe).held_out[0])
    assert held_out is not None
    channel = tmp_path / "slack" / "shop"
    channel.mkdir(parents=True)
    days = {
        "2023-11-14": [said(LONG_AGO, "Refunds go through the ledger.", LONG_AGO)],
        "2033-05-18": [
            said(LATER, "Not any more, says the later post.", LONG_AGO),
            said(LATER + 9000, "A talk that begins later."),
            "no message",
        ],
        "2033-05-19": "no list",
    }
    for day, messages in days.items():
        (channel / f"{day}.json").write_text(json.dumps(messages))
    tickets = [
        {
            "identifier": "S-1",
            "title": "Audit every refund",
            "createdAt": "2024-01-01",
            "updatedAt": "2024-01-03",
            "description": "As the law wants.",
        },
        {"identifier": "S-2", "title": "Changed later", "createdAt": "2024-01-01", "updatedAt": "2040-01-01"},
        {
            "identifier": "S-3",
            "title": "Leak",
            "createdAt": "2024-01-01",
            "updatedAt": "2024-01-01",
            "description": held_out.added,
        },
        {
            "identifier": "S-4",
            "title": "A title of today",
            "createdAt": "2024-01-01",
            "description": "A description of today.",
            "state": "A state of today",
            "comments": [{"createdAt": "2024-01-02", "body": "It was said then."}],
        },
    ]
    (tmp_path / "linear.jsonl").write_text("".join(json.dumps(ticket) + "\n" for ticket in tickets) + "{broken\n")
    paths = ExportPaths(chat=(str(tmp_path / "slack"),), tickets=(str(tmp_path / "linear.jsonl"),))
    return history.with_exports(paths)


def test_threads_are_learned_as_they_were(told: Repository, tokenizer: Any, tmp_path: Path) -> None:
    recipe = parse_recipe(TINY.format(budget=0, rate=1e-3), "tiny", "tiny.toml")
    dataset = build_dataset(told, tokenizer, recipe, cut_repository(told, recipe), tmp_path / "dataset")
    rows = [row for row in dataset.rows if row["kind"] == "thread"]
    text = "".join(tokenizer.decode(row["input_ids"]) for row in rows)
    assert "- Chat in #shop\nmember 1, 2023-11-14:\nRefunds go through the ledger.\n" in text
    assert "- Ticket S-1: Audit every refund\nreporter 1, 2024-01-01:\nAs the law wants.\n" in text
    assert "- Ticket S-4\nmember 1, 2024-01-02:\nIt was said then.\n" in text
    assert "later" not in text and "Leak" not in text and "of today" not in text
    assert all(json.loads(row["origin"])["sources"] == [{"place": row["name"]}] for row in rows)
    account = dataset.manifest["tokens"]["thread"]
    assert account["held_out"] > 0 and set(account["dropped"]) == {"near-copy of a held-out change"}
    assert account["trained"] == sum(row["source_tokens"] for row in rows)
    assert account["read"] == account["trained"] + account["held_out"] + sum(account["dropped"].values())
    left_out = [json.loads(line) for line in (dataset.directory / "left_out.jsonl").read_text().splitlines()]
    reasons = Counter(entry["reason"] for entry in left_out)
    assert [entry["name"] for entry in left_out if "nothing says how old" in entry["reason"]] == [
        f"{tmp_path / 'linear.jsonl'}:S-4"
    ]
    assert reasons["no JSON list of messages"] == reasons["malformed line: no JSON object"] == 1


def test_threads_can_be_switched_off(told: Repository, tokenizer: Any, tmp_path: Path, tiny_recipe: Recipe) -> None:
    recipe = tiny_recipe.model_copy(update={"data": tiny_recipe.data.model_copy(update={"thread_share": 0.0})})
    dataset = build_dataset(told, tokenizer, recipe, cut_repository(told, recipe), tmp_path / "dataset")
    assert "thread" not in dataset.rows["kind"]
    assert "switched off in the recipe" in dataset.manifest["tokens"]["thread"]["dropped"]


def test_another_export_is_another_run(
    told: Repository, history: Repository, tiny_base: BaseModel, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    def name() -> str:
        return open_run(told, tmp_path / "state", tiny_recipe, tiny_base).directory.name

    first = name()
    assert first == name() != open_run(history, tmp_path / "state", tiny_recipe, tiny_base).directory.name
    with (tmp_path / "linear.jsonl").open("a") as lines:
        lines.write('{"title": "More", "createdAt": "2024-02-01"}\n')
    assert name() != first
