"""A refresh that is told which files changed: as right as a look at all of them, without one."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import watchfiles
from watchfiles import Change

from inhouse_retrieval import Index, InhouseError, Repository
from inhouse_retrieval.watching import _changes, _within
from tests.retrieval.killable import HashEncoder
from tests.retrieval.trees import commit_all, git, write

GIFT = 'def wrap_present():\n    """Paper and a ribbon."""\n'


@pytest.fixture
def index(repository: Repository, state: Path) -> Iterator[Index]:
    with Index.open(repository, state, HashEncoder()) as index:
        index.refresh()
        yield index


def save(root: Path) -> list[str]:
    write(root, {"shop/courier.py": GIFT})
    return ["shop/courier.py"]


def add(root: Path) -> list[str]:
    write(root, {"shop/gift/wrap.py": GIFT, "notes.txt": "a ribbon"})
    return ["shop/gift", "notes.txt"]


def remove(root: Path) -> list[str]:
    (root / "shop/courier.py").unlink()
    return ["shop/courier.py"]


def remove_a_folder(root: Path) -> list[str]:
    shutil.rmtree(root / "shop")
    return ["shop"]


def rename(root: Path) -> list[str]:
    (root / "shop").rename(root / "store")
    return ["shop", "store"]


def spoil(root: Path) -> list[str]:
    (root / "shop/courier.py").write_bytes(b"\0\xff")
    (root / "shop/basket.py").unlink()
    (root / "shop/basket.py").symlink_to("courier.py")
    return ["shop/courier.py", "shop/basket.py"]


def file_for_folder(root: Path) -> list[str]:
    shutil.rmtree(root / "shop")
    write(root, {"shop": "a ribbon\n"})
    return ["shop"]


def nothing(root: Path) -> list[str]:
    return ["shop/courier.py", ".git/HEAD", "../elsewhere.py", "no/such/file.py"]


EMBEDDED = {
    save: 1,
    add: 2,
    remove: 0,
    remove_a_folder: 0,
    rename: 2,  # a chunk's header has its path
    spoil: 0,
    file_for_folder: 1,
    nothing: 0,
}


@pytest.mark.parametrize(
    "change",
    [change if change in (save, rename) else pytest.param(change, marks=pytest.mark.long) for change in EMBEDDED],
)
def test_it_ends_where_a_look_at_everything_ends(
    change: Callable[[Path], list[str]], index: Index, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = change(root)
    with monkeypatch.context() as patched:
        patched.setattr(Repository, "work_tree", lambda self: pytest.fail("it looked at everything"))
        named = index.refresh_files(paths)
    held = index._catalog.files()
    vectors = index._mirror.opened_store().count()
    report = index.refresh()
    assert (report.changed, report.embedded) == (0, 0), "nothing was left for it"
    assert index._catalog.files() == held
    assert (named.files, named.chunks) == (report.files, report.chunks)
    assert vectors == index._mirror.opened_store().count(), "records of former texts crowd the others out"
    assert named.embedded == EMBEDDED[change]


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (["shop/courier.py", ".gitignore"], "it decides about other files"),
        pytest.param([f"shop/{number}.py" for number in range(300)], "they are many", marks=pytest.mark.long),
        pytest.param([], "none is named", marks=pytest.mark.long),
    ],
)
def test_it_looks_at_everything_where_it_must(paths: list[str], why: str, index: Index, root: Path) -> None:
    write(root, {".gitignore": "courier.py\n"})
    git(root, "rm", "--quiet", "--cached", "shop/courier.py")
    report = index.refresh_files(paths)
    assert not report.named, why
    assert "shop/courier.py" not in index._catalog.files()


def test_a_folder_with_a_wiki_of_its_own_in_it_keeps_the_pages(root: Path, state: Path) -> None:
    (root / "docs" / "wiki").mkdir(parents=True)
    git(root / "docs" / "wiki", "init", "--quiet")
    write(root, {"docs/wiki/Home.md": "# Couriers\n\nThey come at noon.\n"})
    commit_all(root / "docs" / "wiki", "home")
    repository = Repository.open(root).with_wiki(["docs/wiki"])
    with Index.open(repository, state, HashEncoder()) as index:
        index.refresh()
        assert not index.refresh_files(["docs"]).named
        assert not index.refresh_files(["shop/.git/HEAD"]).named, "shop may have become a repository of its own"
        assert "docs/wiki/Home.md" in {hit.path for hit in index.search("When do couriers come?").passages}


@pytest.mark.long
def test_what_git_ignores_stays_out(index: Index, root: Path) -> None:
    write(root, {".gitignore": "*.log\n"})
    commit_all(root, "Ignore logs")
    index.refresh()
    write(root, {"today.log": "a ribbon\n", "shop/gift.py": GIFT})
    assert index.refresh_files(["today.log", "shop/gift.py"]).changed == 1


def test_a_name_that_is_not_utf8_takes_no_other_with_it(index: Index, root: Path) -> None:
    report = index.refresh_files(["shop/\udcff.py", "shop/a\0b.py", *save(root)])
    assert (report.named, report.changed) == (True, 1)


def test_a_secret_is_listed(index: Index, root: Path) -> None:
    write(root, {"shop/key.py": f'TOKEN = "ghp_{"a1B2c3D4e5F6" * 3}"\n'})
    assert [(path, line) for path, line, _ in index.refresh_files(["shop/key.py"]).redactions] == [("shop/key.py", 1)]


@pytest.mark.long
def test_an_index_that_was_never_filled_is_filled(repository: Repository, state: Path) -> None:
    with Index.open(repository, state, HashEncoder()) as index:
        assert index.refresh_files(["shop/courier.py"]).files == 3
    with pytest.raises(InhouseError, match="closed"):
        index.refresh_files(["shop/courier.py"])


def test_what_the_watcher_names(tmp_path: Path) -> None:
    root, git_folder = tmp_path / "shop", tmp_path / "shop/.git"
    assert _within(root, git_folder, [str(root / "a/b.py"), str(root / "a/b.py")]) == {"a/b.py"}
    for path in (git_folder / "HEAD", tmp_path / "wiki/page.md", root):
        assert _within(root, git_folder, [str(root / "a.py"), str(path)]) is None


def test_a_saved_file_is_all_that_is_looked_at(index: Index, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seconds of silence after it give no reason to look at everything."""
    saved = {(Change.modified, str(root / "shop/courier.py"))}
    told: list[set[tuple[Change, str]]] = [set(), saved, set(), set(), saved, set()]
    monkeypatch.setattr(watchfiles, "watch", lambda *_, **__: iter(told))
    assert list(_changes(index, threading.Event())) == [None, {"shop/courier.py"}, {"shop/courier.py"}]
