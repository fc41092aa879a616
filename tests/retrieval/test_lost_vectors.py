"""Every record of the vector store is found by its own vector, or put again, or all of them are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import inhouse_retrieval.mirror
from inhouse_retrieval import Index, Repository
from inhouse_retrieval.errors import Cancelled, StateUnwritable, VectorsUnreachable
from inhouse_retrieval.vector_client import OwnVectorServer
from inhouse_retrieval.vector_store import MirrorLost, VectorFolder, VectorPlace, Vectors, VectorStore
from tests.retrieval.killable import HashEncoder
from tests.retrieval.trees import write

PLACES: dict[str, Callable[[Path], VectorPlace]] = {
    "folder": lambda state: VectorFolder(state / "vectors"),
    "server": OwnVectorServer,
}


def touch(root: Path) -> None:
    """A change after which the records are asked for again."""
    write(root, {"shop/ribbon.py": f"def tie_{len(list(root.rglob('*')))}():\n    return 1\n"})


def held(index: Index) -> dict[str, Vectors]:
    catalog = index._catalog
    return catalog.vectors(catalog.mirrored_after("", 1000))


def lose(store: VectorStore, key: str) -> None:
    """Chroma forgets a record without a word, and holds as many as before."""
    stranger = np.ones((1, HashEncoder.dimension), np.float32)
    store.remove([key])
    store.add(["stranger"], stranger)


def generations(state: Path) -> list[str]:
    return [str(path) for path in (state / "vectors").iterdir() if path.is_dir()]


@pytest.fixture(params=list(PLACES))
def index(request: pytest.FixtureRequest, repository: Repository, state: Path) -> Iterator[Index]:
    with Index.open(repository, state, HashEncoder(), PLACES[request.param](state)) as opened:
        opened.refresh()
        yield opened


def test_a_record_that_is_gone_is_put_again(index: Index, root: Path) -> None:
    store = index._mirror.opened_store()
    key, vector = next(iter(held(index).items()))
    lose(store, key)
    assert store.lost(held(index)) == [key] and store.nearest(vector, 1)[0][0] != key
    touch(root)
    report = index.refresh()
    assert index._mirror.opened_store() is store and store.lost(held(index)) == [], "the same store"
    assert report.embedded == 1, "only what is new"


@contextmanager
def unfindable(place: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """One store finds one record never, as a graph that does not lead to it."""
    real = VectorStore.lost
    asked: list[str] = []

    def lost(self: VectorStore, vectors: Mapping[str, Vectors]) -> list[str]:
        first = min(vectors, default="")
        if self._place != place and place:
            return real(self, vectors)
        asked.append(first)
        return [first] if first else []

    with monkeypatch.context() as patched:
        patched.setattr(VectorStore, "lost", lost)
        yield asked


@pytest.mark.parametrize("index", ["folder"], indirect=True)
def test_a_store_that_does_not_find_is_built_again_while_it_answers(
    index: Index, root: Path, state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inhouse_retrieval.mirror, "_MIRROR_A_STEP", 1)
    former = index._mirror.opened_store()
    beside: list[list[str]] = []

    def search(stage: str, done: int, total: int | None) -> None:
        if stage == "storing vectors":
            found = index.search("voucher")
            assert index._mirror.opened_store() is former and found.unembedded == 0
            beside.append([passage.path for passage in found.passages])

    touch(root)
    with unfindable(former._place, monkeypatch) as asked, caplog.at_level(logging.WARNING):
        report = index.refresh(search)
    assert asked and "they are put into a new one" in caplog.text
    store = index._mirror.opened_store()
    assert store is not former and store.lost(held(index)) == [] and store.count() == len(held(index)) > 2
    assert report.embedded == 1, "nothing is paid for again"
    assert len(beside) > 2 and all("shop/basket.py" in paths for paths in beside)
    assert generations(state) == [store._place], "the former one is gone"
    caplog.clear()
    index.refresh()
    assert index._mirror.opened_store() is store and not caplog.text
    index.close()
    with Index.open(index.repository, state, HashEncoder()) as again:
        assert again.refresh().embedded == 0
        assert again._mirror.opened_store().lost(held(again)) == []


@pytest.mark.parametrize("index", ["folder"], indirect=True)
def test_a_new_store_that_does_not_find_either_is_kept(
    index: Index, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with unfindable("", monkeypatch), caplog.at_level(logging.WARNING):
        touch(root)
        index.refresh()
        store = index._mirror.opened_store()
        touch(root)
        index.refresh()
        assert index._mirror.opened_store() is store, "it is not built again and again"
    assert caplog.text.count("they are put into a new one") == 1
    assert "words find them" in caplog.text


@pytest.mark.parametrize("index", ["folder"], indirect=True)
def test_one_that_was_stopped_halfway_is_built_at_the_next_refresh(
    index: Index, root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = index._mirror.opened_store()
    seen: list[str] = []

    def stop(stage: str, done: int, total: int | None) -> None:
        seen.append(stage)
        if stage == "storing vectors" and seen.count(stage) == 2:  # the first stores what is new
            raise Cancelled("Enough.")

    touch(root)
    with unfindable(former._place, monkeypatch):
        with pytest.raises(Cancelled):
            index.refresh(stop)
        assert index._mirror.opened_store() is former and former.count() == len(held(index))
        assert generations(state) == [former._place], "what was begun is gone"
        index.refresh()
        assert index._mirror.opened_store() is not former, "nothing changed, and it is made up for"
    index.close()
    with Index.open(index.repository, state, HashEncoder()) as again:
        assert again.refresh().embedded == 0
        assert again._mirror.opened_store().count() == len(held(again))
        assert generations(state) == [again._mirror.opened_store()._place]


@pytest.mark.parametrize("index", list(PLACES), indirect=True)
@pytest.mark.parametrize("what", ["gives up", "reopens"])
def test_a_search_that_does_so_meanwhile_keeps_its_store(
    index: Index, root: Path, state: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(inhouse_retrieval.mirror, "_MIRROR_A_STEP", 1)
    monkeypatch.setattr(inhouse_retrieval.mirror, "_APART_S", 0.0)
    former = index._mirror.opened_store()
    generation = index._mirror._generation()
    searched: list[int] = []

    def search(stage: str, done: int, total: int | None) -> None:
        if stage == "storing vectors" and index._mirror._beside is not None and done == 1:
            with monkeypatch.context() as patched:
                broken = MirrorLost("torn") if what == "gives up" else VectorsUnreachable("Slow.", "Wait.")

                def nearest(self: VectorStore, vector: Vectors, limit: int) -> list[tuple[str, float]]:
                    if self is former:
                        raise broken
                    return real(self, vector, limit)

                real = VectorStore.nearest
                patched.setattr(VectorStore, "nearest", nearest)
                index.search("voucher")
            assert index.search("voucher").passages[0].path == "shop/basket.py"
            searched.append(done)

    touch(root)
    write(root, {f"shop/part{number}.py": f"def part_{number}(): ...\n" for number in range(4)})
    real_lost = VectorStore.lost

    def lost(self: VectorStore, vectors: Mapping[str, Vectors]) -> list[str]:
        if index._mirror._generation() == generation and index._mirror._beside is None:
            return [min(vectors)] if vectors else []
        return real_lost(self, vectors)

    monkeypatch.setattr(VectorStore, "lost", lost)
    report = index.refresh(search)
    assert searched == [1] and report.embedded == 5
    for _ in range(3):
        index.refresh()
    store = index._mirror.opened_store()
    assert store.count() >= len(held(index)) == report.chunks and real_lost(store, held(index)) == []
    assert index._mirror._generation() == generation + (2 if what == "gives up" else 1)
    if isinstance(index._mirror._place, VectorFolder):
        assert generations(state) == [store._place]


@pytest.mark.parametrize("index", ["folder"], indirect=True)
def test_a_store_that_cannot_be_built_leaves_the_first_one(
    index: Index, root: Path, state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    former = index._mirror.opened_store()
    real = VectorStore.add

    def add(self: VectorStore, keys: Sequence[str], vectors: Vectors) -> None:
        if self._place != former._place:
            raise StateUnwritable("The disk is full.", "Free some.")
        real(self, keys, vectors)

    touch(root)
    with unfindable(former._place, monkeypatch), monkeypatch.context() as patched:
        patched.setattr(VectorStore, "add", add)
        assert index.refresh().embedded == 1
        assert index._mirror.opened_store() is former and "cannot be had: The disk is full." in caplog.text
        assert index.search("voucher").passages[0].path == "shop/basket.py"
    assert generations(state) == [former._place]


@pytest.mark.parametrize("index", ["folder"], indirect=True)
@pytest.mark.parametrize("count", [7, 8, 9, 10, 11, 12, 13, 18])
def test_a_large_store_is_asked_in_turns_that_end(
    index: Index, root: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inhouse_retrieval.mirror, "_PROBED_A_STEP", 2)
    monkeypatch.setattr(inhouse_retrieval.mirror, "_PROBED_A_REFRESH", 4)
    write(root, {f"shop/part{number}.py": f"def part_{number}(): ...\n" for number in range(count - 3)})
    index.refresh()
    keys = sorted(held(index))
    assert len(keys) == count
    store = index._mirror.opened_store()
    lose(store, keys[-1])
    index.refresh()
    assert count <= 12 or store.lost(held(index)) == [keys[-1]], "its turn has not come"
    for _ in range(count // 4):
        index.refresh()
    assert store.lost(held(index)) == []
    asked: list[str] = []
    monkeypatch.setattr(VectorStore, "lost", lambda self, vectors: asked.extend(vectors) or [])
    for _ in range(3):
        index.refresh()
    assert not asked, "all were found since the last change"


@pytest.mark.parametrize("index", ["folder"], indirect=True)
def test_what_changes_during_a_turn_makes_another_one(
    index: Index, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inhouse_retrieval.mirror, "_PROBED_A_STEP", 2)
    monkeypatch.setattr(inhouse_retrieval.mirror, "_PROBED_A_REFRESH", 4)
    write(root, {f"shop/part{number}.py": f"def part_{number}(): ...\n" for number in range(10)})
    index.refresh()
    keys = sorted(held(index))
    touch(root)
    asked: list[str] = []
    real = VectorStore.lost

    def lost(self: VectorStore, vectors: Mapping[str, Vectors]) -> list[str]:
        asked.extend(vectors)
        return real(self, vectors)

    monkeypatch.setattr(VectorStore, "lost", lost)
    for _ in range(9):
        index.refresh()
    assert Counter(asked)[keys[0]] == 1, "once more, though its turn was over when the change came"
    assert Counter(asked)[keys[-1]] == 2


@pytest.mark.long
def test_thirty_thousand_vectors_find_themselves(tmp_path: Path) -> None:
    """They do not without being put again: this is what the probe is for."""
    vectors = np.random.default_rng(2).standard_normal((30_000, 384), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    by_key = {f"{number:05}": vector for number, vector in enumerate(vectors)}
    store = VectorFolder(tmp_path).open(1)
    store.add(list(by_key), vectors)
    lost = store.lost(by_key)
    assert 0 < len(lost) < 100
    for _ in range(10):
        if not lost:
            break
        store.add(lost, np.stack([by_key[key] for key in lost]))
        lost = store.lost(by_key)
    store.close()
    assert not lost
