"""Repositories of unusual size and shape: memory and disk stay bounded, and progress is told."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import inhouse_retrieval.catalog
from inhouse_retrieval import Index, Repository
from tests.retrieval.killable import HashEncoder, measured
from tests.retrieval.trees import commit_all, git, write


def in_a_process(root: Path, state: Path, query: str) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as elsewhere:
        return elsewhere.submit(measured, root, state, query).result()


def size(folder: Path) -> float:
    """MiB of the files below ``folder``."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_files(root: Path, state: Path, record_property: Any) -> None:
    for folder in range(100):
        (root / f"part{folder}").mkdir()
        for number in range(1000):
            text = f"def number_{folder}_{number}():\n    return {number}\n"
            (root / f"part{folder}" / f"file{number}.py").write_text(text)
    commit_all(root, "Everything")
    told = in_a_process(root, state, "number_42_17")
    disk = size(state)
    for name in ("mib", "again_s"):
        record_property(name, round(told[name]))
    record_property("disk", round(disk))
    assert (told["first"].files, told["first"].embedded) == (100_003, told["first"].chunks)
    assert (told["again"].changed, told["again"].embedded) == (0, 0)
    assert told["found"][0] == "part42/file17.py"
    assert told["mib"] < 900
    assert disk < 600
    done = {name: [at for stage, at, _ in told["steps"] if stage == name] for name in ("reading", "embedding")}
    assert all(len(steps) > 1000 and steps == sorted(steps) for steps in done.values())
    assert {total for stage, _, total in told["steps"] if stage == "embedding"} == {told["first"].chunks}


@pytest.mark.long
def test_a_generated_file_of_200_megabytes(root: Path, state: Path, record_property: Any) -> None:
    block = os.urandom(2**19).hex()
    for change in range(2):
        with (root / "generated.json").open("w") as file:
            for number in range(200):
                file.write(f'{{"{change}": "{number}{block}"}}\n')
        commit_all(root, f"Generate (#{change + 1})")
    told = in_a_process(root, state, "voucher")
    record_property("mib", round(told["mib"]))
    (skipped,) = told["first"].skipped
    assert (skipped.path, "larger than" in skipped.reason or "MB" in skipped.reason) == ("generated.json", True)
    assert told["first"].files == 3
    assert told["found"][0] == "shop/basket.py"
    assert told["mib"] < 150
    assert size(state) < 20


def test_a_history_that_was_rewritten(root: Path, repository: Repository, state: Path) -> None:
    with Index.open(repository, state, HashEncoder()) as index:
        for number in range(3):
            write(root, {"shop/gift.py": f"RIBBONS = {number}\n"})
            commit_all(root, f"Ribbons (#{number + 1})")
        index.refresh()
        old = index.commit()
        git(root, "checkout", "--quiet", "--orphan", "anew")
        commit_all(root, "Everything, anew (#9)")
        git(root, "branch", "--quiet", "-D", "main")
        git(root, "reflog", "expire", "--expire=now", "--all")
        git(root, "gc", "--quiet", "--prune=now")
        report = index.refresh()
        assert report.commit == index.commit() != old
        assert (report.changed, report.embedded) == (0, 0)
        assert [change.title for change in index._catalog.history.changes()] == []
        assert [path.name for path in (state / "pull-requests").glob("*.md")] == []
        assert index.search("ribbons").passages[0].path == "shop/gift.py"


@pytest.mark.long
def test_ten_thousand_branches(
    root: Path, repository: Repository, state: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    monkeypatch.setattr(inhouse_retrieval.catalog, "_SPARE_VECTORS", 50)
    head = git(root, "rev-parse", "HEAD")
    names = "".join(f"create refs/heads/team/{number} {head}\n" for number in range(10_000))
    subprocess.run(["git", "-C", str(root), "update-ref", "--stdin"], input=names, text=True, check=True)
    with Index.open(repository, state, HashEncoder()) as index:
        began = index.refresh()
        assert began.embedded == began.chunks == 3
        sizes = []
        for number in range(60):
            git(root, "checkout", "--quiet", f"team/{number}")
            write(root, {f"only/here{n}.py": f"def here_{number}_{n}():\n    return {n}\n" for n in range(10)})
            commit_all(root, f"Only here {number}")
            index.refresh()
            sizes.append(size(state))
            assert index.search(f"here_{number}_3").passages[0].path == "only/here3.py"
        held = int(str(index._catalog._rows("SELECT count(*) FROM vectors")[0][0]))
        assert held <= 50 + 13 + 60 + 1, "in use, spare, and those of the titles"
        assert index._mirror.opened_store().count() == 13
    record_property("disk", [round(each, 1) for each in sizes[::20]])
    assert sizes[-1] < 2 * sizes[10] + 1


@pytest.mark.long
def test_two_names_that_a_case_folding_file_system_takes_for_one(
    root: Path, repository: Repository, state: Path
) -> None:
    """Emulated by a hard link: both tracked names lead to one file, as they do there."""
    os.link(root / "shop/basket.py", root / "shop/Basket.py")
    commit_all(root, "The same name")
    git(root, "config", "core.ignorecase", "true")  # as git sets it there
    with Index.open(repository, state, HashEncoder()) as index:
        assert index.refresh().files == 4
        (root / "shop/basket.py").write_text("RIBBONS = 1\n")
        found = {passage.path for passage in index.search("ribbons", 10).passages if "RIBBONS" in passage.text}
        assert found <= {"shop/basket.py", "shop/Basket.py"}
        index.refresh_files(["shop/BASKET.py", "shop/basket.py"])
        assert index.refresh().changed <= 1
        found = {passage.path for passage in index.search("ribbons", 10).passages if "RIBBONS" in passage.text}
        assert found == {"shop/basket.py", "shop/Basket.py"}
        (root / "shop/Basket.py").unlink()
        (root / "shop/basket.py").unlink()
        assert not any("RIBBONS" in passage.text for passage in index.search("ribbons", 10).passages)
        assert index.refresh().files == 2
