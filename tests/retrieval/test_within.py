"""Searching a part of a repository."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

import inhouse_retrieval.index
import inhouse_retrieval.mirror
from inhouse_retrieval import Encoder, Index, Repository, Within
from inhouse_retrieval.catalog import Catalog
from tests.retrieval.killable import HashEncoder


@pytest.mark.parametrize("exact_at_most", [0, 5_000])
def test_a_part_of_the_repository(
    exact_at_most: int,
    root: Path,
    repository: Repository,
    state: Path,
    encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ranked by every leg as if nothing else were there, however large the part is."""
    monkeypatch.setattr(inhouse_retrieval.mirror, "_EXACT_AT_MOST", exact_at_most)
    monkeypatch.setattr(inhouse_retrieval.index, "leg_depth", lambda limit: 1)  # the nearest one lies elsewhere
    question = 'where does "collect a parcel" call book_courier for a shipping company?'
    with Index.open(repository, state, encoder) as index:
        index.refresh()
        assert index.search(question, 10).passages[0].path == "shop/courier.py"
        part = Within.of(["docs", "shop/basket.py"])
        passages = index.search(question, 10, within=part).passages
        assert {passage.path for passage in passages} <= {"docs/returns.md", "shop/basket.py"}
        assert "dense" in passages[0].legs
        unsaved = {"shop/courier.py": "def book_courier():\n    'collect a parcel'\n"}
        again = index.search(question, 10, unsaved, within=part).passages
        assert [passage.path for passage in again] == [passage.path for passage in passages]
        assert index.search(question, 10, within=Within.of(["shop/bask"])).passages == ()


def test_many_paths(repository: Repository, state: Path) -> None:
    """Of which SQLite must not make one deep expression; nor is the catalog given up for an error that is ours."""
    many = Within.of(["shop/basket.py", "docs", *(f"team{number}" for number in range(5_000))])
    with Index.open(repository, state, HashEncoder()) as index:
        index.refresh()
        assert {passage.path for passage in index.search("voucher parcel days", within=many).passages} == {
            "shop/basket.py",
            "docs/returns.md",
        }
        with pytest.raises(sqlite3.OperationalError, match="depth"):
            index._catalog._rows(f"SELECT {' OR '.join(['0'] * 2_000)}")
    assert not (state / "catalog.sqlite.corrupt").exists()


def test_a_part_is_no_loop_over_its_chunks(tmp_path: Path) -> None:
    """FTS5 searches once for each chunk that SQLite hands it by number; a large part then takes seconds."""
    catalog = Catalog(tmp_path / "catalog.sqlite")
    asked: list[str] = []
    catalog._file._db.set_trace_callback(asked.append)
    part = Within.of(["shop"])
    catalog.match('"voucher"', 10, part)
    catalog.match_paths('"voucher"', 10, part)
    catalog.containing("voucher", 10, part)
    catalog._file._db.set_trace_callback(None)
    ours = [sql for sql in asked if " MATCH " in sql and not sql.startswith("--")]  # the others are FTS5's own
    for sql in ours:
        plan = [str(row[3]) for row in catalog._file._db.execute(f"EXPLAIN QUERY PLAN {sql}")]
        (search,) = (step for step in plan if "VIRTUAL TABLE" in step and "json_each" not in step)
        assert "=" not in search.partition("INDEX")[2], f"{sql}: {plan}"
    assert len(ours) == 3
    catalog.close()
