"""What is seen of an index from beside the process that holds it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from inhouse_retrieval import (
    Encoder,
    Index,
    InhouseError,
    Repository,
    open_beside,
    readable_beside,
    status_beside,
)
from tests.retrieval.trees import commit_all, git, write


def test_words_find_while_vectors_are_still_computed(
    root: Path, repository: Repository, state: Path, encoder: Encoder, tmp_path: Path
) -> None:
    assert not readable_beside(state)
    nothing = status_beside(repository, state)
    assert (nothing.commit, nothing.files, nothing.unembedded) == ("", 0, 0) and nothing.pending > 0
    assert not state.exists(), "looking makes nothing"
    looked: list[str] = []

    def look(stage: str, done: int, total: int | None) -> None:
        if stage == "embedding" and not looked:
            looked.append(stage)
            assert readable_beside(state)
            status = status_beside(repository, state)
            assert status.unembedded == status.chunks > 0 and status.pending == 0
            copy = tmp_path / "copy"
            copy.mkdir()
            with open_beside(repository, state, copy, encoder) as beside:
                found = beside.search("who books a courier for a parcel", 1)
                assert found.passages[0].path.endswith("courier.py")
                assert "dense" not in found.passages[0].legs
                assert found.unembedded == status.chunks
            assert not (copy / "vectors").exists() and not (state / "vectors").exists(), "no Chroma was opened"

    with Index.open(repository, state, encoder) as index:
        report = index.refresh(look)
    assert looked and report.embedded == report.chunks, "the one that indexes was not disturbed"


def test_the_copy_stays_as_it_was_and_compares_hits_with_the_work_tree(
    root: Path, repository: Repository, state: Path, encoder: Encoder, tmp_path: Path
) -> None:
    with Index.open(repository, state, encoder) as index:
        index.refresh()
        before = [(state / name).read_bytes() for name in ("catalog.sqlite", "catalog.sqlite-wal")]
        with open_beside(repository, state, tmp_path, encoder) as beside:
            write(root, {"shop/courier.py": "\n\n\ndef book_courier(parcel):\n    return 'walrus'\n"})
            [hit] = beside.search("book_courier", 1).passages
            assert "walrus" in hit.text and beside.search("book_courier", 1).pending == 1
        assert status_beside(repository, state).pending == 1
        assert [(state / name).read_bytes() for name in ("catalog.sqlite", "catalog.sqlite-wal")] == before
        assert "walrus" in index.search("book_courier", 1).passages[0].text


def test_pull_requests_are_left_to_whoever_holds_the_index(
    root: Path, repository: Repository, state: Path, encoder: Encoder, tmp_path: Path
) -> None:
    git(root, "checkout", "--quiet", "-b", "zebra")
    write(root, {"zebra.py": "ZEBRA = 1\n"})
    commit_all(root, "Stripes")
    git(root, "checkout", "--quiet", "main")
    git(root, "merge", "--quiet", "--no-ff", "zebra", "-m", "Merge pull request #7 from a/zebra\n\nAdd the zebra")
    with Index.open(repository, state, encoder) as index:
        index.refresh()
        assert any(passage.source == "pull_request" for passage in index.search("what did #7 do").passages)
        with open_beside(repository, state, tmp_path, encoder) as beside:
            found = beside.search("what did #7 do with the zebra").passages
            assert index.reads_pull_requests() and not beside.reads_pull_requests(), "so none is called unknown there"
    assert {passage.source for passage in found} == {"code"}


def test_an_index_that_cannot_be_read_is_said(
    repository: Repository, state: Path, encoder: Encoder, tmp_path: Path
) -> None:
    state.mkdir()
    (state / "catalog.sqlite").write_bytes(b"no database at all" * 100)
    assert not readable_beside(state)
    with pytest.raises(InhouseError, match="cannot be read"):
        status_beside(repository, state)
    (state / "catalog.sqlite").unlink()
    with sqlite3.connect(state / "catalog.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(InhouseError, match="newer inhouse"):
        open_beside(repository, state, tmp_path, encoder)
