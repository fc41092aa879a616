"""The index on real git, SQLite, Chroma and MiniLM: incremental, fresh, unharmed by what happens to it."""

from __future__ import annotations

import json
import os
import queue
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from inhouse_retrieval import (
    Busy,
    Cancelled,
    Encoder,
    Index,
    IndexReport,
    Repository,
    SearchResult,
    watch,
)
from inhouse_retrieval.catalog import Vectors
from inhouse_retrieval.index import LONGEST_QUERY
from tests.retrieval.killable import HashEncoder
from tests.retrieval.trees import commit_all, git, write


def paths(result: SearchResult) -> list[str]:
    return [passage.path for passage in result.passages]


def vectors_held(state: Path) -> int:
    with sqlite3.connect(state / "catalog.sqlite") as db:
        return int(db.execute("SELECT count(*) FROM vectors").fetchone()[0])


def test_cold_again_and_after_an_edit(root: Path, repository: Repository, state: Path, encoder: Encoder) -> None:
    stages: list[str] = []
    with Index.open(repository, state, encoder) as index:
        cold = index.refresh(lambda stage, done, total: stages.append(stage))
        assert list(dict.fromkeys(stages)) == [
            "reading",
            "reading the history",
            "embedding",
            "storing vectors",
        ]
        assert (cold.files, cold.embedded, cold.reused) == (3, cold.chunks, 0)
        assert cold.commit == git(root, "rev-parse", "HEAD")
        again = index.refresh()
        assert (again.embedded, again.reused) == (0, cold.chunks)
        write(root, {"shop/courier.py": 'def call_drone():\n    """Send a drone."""\n'})
        assert index.status().pending == 1
        edited = index.refresh()
        assert edited.embedded == 1
        assert index.status().pending == 0
        assert paths(index.search("call a drone"))[0] == "shop/courier.py"
        assert (state / ".gitignore").read_text() == "*\n"
        assert (state / "vectors").is_dir()


def test_switching_back_to_a_branch_embeds_nothing(
    root: Path, repository: Repository, state: Path, encoder: Encoder
) -> None:
    with Index.open(repository, state, encoder) as index:
        index.refresh()
        git(root, "checkout", "--quiet", "-b", "drones")
        write(root, {"shop/drone.py": "def call_drone(): ...\n"})
        commit_all(root, "Drones")
        assert index.refresh().embedded == 1
        git(root, "checkout", "--quiet", "main")
        assert index.refresh().embedded == 0
        assert "shop/drone.py" not in paths(index.search("drone"))
        git(root, "checkout", "--quiet", "drones")
        assert index.refresh().embedded == 0
        assert paths(index.search("call drone"))[0] == "shop/drone.py"


def test_passages_say_where_they_are_and_what_found_them(repository: Repository, state: Path, encoder: Encoder) -> None:
    with Index.open(repository, state, encoder) as index:
        index.refresh()
        result = index.search("apply a voucher code to the basket", limit=2)
        best = result.passages[0]
        assert (best.path, best.start_line, best.source) == ("shop/basket.py", 1, "code")
        assert best.text.split("\n")[0] == '"""The basket."""'
        assert best.legs == ("dense", "lexical", "path")
        assert best.commit == result.index_commit == repository.head()
        assert best.blob_id == repository.current_blob("shop/basket.py")
        assert len(result.passages) == 2
        # Only its meaning leads there: none of these words is in the file.
        assert paths(index.search("shipping company pickup"))[0] == "shop/courier.py"
        assert index.search("?!").passages == ()
        assert index.search("voucher", limit=0).passages == ()


def test_words_find_before_there_are_vectors(repository: Repository, state: Path, encoder: Encoder) -> None:
    with Index.open(repository, state, encoder) as index:
        report = index.refresh(embed=False)
        assert (report.embedded, report.reused) == (0, 0)
        assert index.status().unembedded == report.chunks
        result = index.search("addVoucher")
        assert paths(result)[0] == "shop/basket.py"
        assert result.passages[0].legs == ("lexical",)


def test_a_query_without_end_is_read_in_part(repository: Repository, state: Path) -> None:
    asked: list[int] = []

    class Recording(HashEncoder):
        def encode_query(self, text: str) -> Vectors:
            asked.append(len(text))
            return super().encode_query(text)

    with Index.open(repository, state, Recording()) as index:
        index.refresh()
        asked.clear()
        began = time.thread_time()
        found = index.search("Where is the courier booked? " + "parcel " * 500_000)
        assert time.thread_time() - began < 2
    assert found.passages and asked == [LONGEST_QUERY]


def test_stale_and_deleted_files_are_never_returned(
    root: Path, repository: Repository, state: Path, encoder: Encoder
) -> None:
    with Index.open(repository, state, encoder) as index:
        index.refresh()
        write(root, {"shop/basket.py": "\n\ndef add_voucher(code):\n    return spend(code)\n"})
        (root / "shop/courier.py").unlink()
        result = index.search("add voucher")
        passage = result.passages[0]
        assert (passage.path, passage.text.strip().split("\n")[0]) == (
            "shop/basket.py",
            "def add_voucher(code):",
        )
        assert passage.legs == ("dense", "lexical")
        assert passage.blob_id == repository.current_blob("shop/basket.py")
        assert "shop/courier.py" not in paths(index.search("book courier parcel"))
        (root / "shop/basket.py").write_bytes(b"\0binary now")
        assert "shop/basket.py" not in paths(index.search("add voucher"))


def test_unsaved_text_stands_for_the_file(root: Path, repository: Repository, state: Path, encoder: Encoder) -> None:
    buffers = {
        "shop/basket.py": "# moved to checkout\n",
        "shop/unsaved.py": "def hire_pigeon(letter):\n    return letter\n",
        ".env": "PIGEON=1\n",
    }
    with Index.open(repository, state, encoder) as index:
        index.refresh()
        result = index.search("hire a pigeon", open_documents=buffers)
        assert result.passages[0].path == "shop/unsaved.py"
        assert result.passages[0].legs == ("dense", "lexical")
        assert ".env" not in paths(result)
        voucher = index.search("add voucher", open_documents=buffers)
        assert all("add_voucher" not in passage.text for passage in voucher.passages)
        # Nothing of it is kept.
        assert "shop/unsaved.py" not in paths(index.search("hire a pigeon"))
        assert index.refresh().embedded == 0


def test_what_is_not_indexed_is_listed(root: Path, repository: Repository, state: Path, encoder: Encoder) -> None:
    write(root, {"photo.bin": b"\0\1", "yarn.lock": "x\n", "key.py": 'k = "AKIA' + "QWERTYUIOPASDFGH" + '"\n'})
    with Index.open(repository, state, encoder) as index:
        report = index.refresh()
        assert report.redactions == (("key.py", 1, "AWS access key"),)
        for listed in (report.skipped, index.refresh().skipped):
            assert [(item.path, item.reason) for item in listed] == [
                ("photo.bin", "binary"),
                ("yarn.lock", "lock file"),
            ]
        assert all("QWERTY" not in passage.text for passage in index.search("key").passages)


def test_what_one_thread_opened_another_lets_go(repository: Repository, state: Path, encoder: Encoder) -> None:
    opened: list[Index] = []
    opener = threading.Thread(target=lambda: opened.append(Index.open(repository, state, encoder)))
    opener.start()
    opener.join()
    opened[0].close()
    Index.open(repository, state, encoder).close()


def test_two_holders(repository: Repository, state: Path, encoder: Encoder) -> None:
    with Index.open(repository, state, encoder), pytest.raises(Busy, match=f"process {os.getpid()}"):
        Index.open(repository, state, encoder)
    with Index.open(repository, state, encoder):
        pass


def test_cancelling_keeps_what_was_done(repository: Repository, state: Path, encoder: Encoder) -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "embedding" and done:
            raise Cancelled("Stopped.")

    with Index.open(repository, state, encoder) as index:
        with pytest.raises(Cancelled):
            index.refresh(stop)
        report = index.refresh()
        assert report.embedded == 0
        assert report.reused == report.chunks


def test_closing_stops_a_refresh_in_another_thread(
    root: Path, repository: Repository, state: Path, encoder: Encoder
) -> None:
    write(root, {f"many/file{n}.py": f"def number_{n}(): return {n}\n" for n in range(80)})
    index = Index.open(repository, state, encoder)
    begun = threading.Event()
    ended: list[BaseException] = []

    def refresh() -> None:
        try:
            index.refresh(lambda stage, done, total: begun.set() if stage == "embedding" else None)
        except Cancelled as error:
            ended.append(error)

    thread = threading.Thread(target=refresh)
    thread.start()
    assert begun.wait(60)
    # Searching goes on meanwhile.
    assert paths(index.search("number 7"))
    index.close()
    thread.join()
    assert ended
    with pytest.raises(Cancelled, match="closed"):
        index.search("x")


# -- damage --------------------------------------------------------------------------------------------------


def test_a_corrupt_catalog_is_rebuilt(
    repository: Repository, state: Path, encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    with Index.open(repository, state, encoder) as index:
        index.refresh()
    (state / "catalog.sqlite").write_bytes(b"not a database" * 1000)
    with Index.open(repository, state, encoder) as index:
        report = index.refresh()
        assert report.embedded == report.chunks
        assert paths(index.search("voucher"))[0] == "shop/basket.py"
    assert "corrupt" in caplog.text
    assert (state / "catalog.sqlite.corrupt").exists()


@pytest.mark.parametrize("look", ["search", "status"])
def test_damaged_pages_that_a_look_comes_upon(look: str, repository: Repository, state: Path, encoder: Encoder) -> None:
    with Index.open(repository, state, encoder) as index:
        index.refresh()
    file = state / "catalog.sqlite"
    with closing(sqlite3.connect(file)) as database:
        damaged = "SELECT rootpage FROM sqlite_master WHERE name IN ('files', 'chunks', 'full_text_data')"
        pages = [page for (page,) in database.execute(damaged)]
    with file.open("r+b") as stream:
        for page in pages:  # what opening reads stays whole
            stream.seek((page - 1) * 4096)
            stream.write(os.urandom(4096))
    with Index.open(repository, state, encoder) as index:
        if look == "status":
            assert index.status().files == 3
        assert paths(index.search("voucher"))[0] == "shop/basket.py"
        assert index.refresh().files == 3


DAMAGES = {
    "gone": lambda folder: shutil.rmtree(folder),
    "database garbage": lambda folder: (folder / "chroma.sqlite3").write_bytes(b"garbage" * 999),
    "database empty": lambda folder: (folder / "chroma.sqlite3").write_bytes(b""),
    "opening crashed": lambda folder: (folder.parent / "opening").write_text(folder.name),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_corrupt_vector_store_is_rebuilt_from_cached_vectors(
    damage: str, repository: Repository, state: Path, encoder: Encoder
) -> None:
    with Index.open(repository, state, encoder) as index:
        index.refresh()
    (folder,) = (item for item in (state / "vectors").iterdir() if item.is_dir())
    DAMAGES[damage](folder)
    with Index.open(repository, state, encoder) as index:
        assert paths(index.search("shipping company pickup"))[0] == "shop/courier.py"
        report = index.refresh()
        assert (report.embedded, report.reused) == (0, report.chunks)


def test_a_newer_catalog_is_refused(repository: Repository, state: Path, encoder: Encoder) -> None:
    Index.open(repository, state, encoder).close()
    with sqlite3.connect(state / "catalog.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(Exception, match="newer inhouse"):
        Index.open(repository, state, encoder)


# -- in a process of its own ---------------------------------------------------------------------------------

CHILD = """
import json, os, resource, sys
from contextlib import closing
from pathlib import Path
from inhouse_retrieval import Index, InhouseError, Repository

root, state, limit, stop_at, unprivileged = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]
repository = Repository.open(root)
if unprivileged and os.geteuid() == 0:
    os.setuid(65534)  # nobody: root may write anywhere
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

def tell(stage, done, total):
    print(json.dumps([stage, done, total]), flush=True)
    if done and stage == stop_at:
        sys.stdin.readline()

try:
    with Index.open(repository, state) as index:
        report = index.refresh(tell)
        print(json.dumps({"embedded": report.embedded, "reused": report.reused,
                          "loaded": [m for m in ("torch", "chromadb") if m in sys.modules]}))
except InhouseError as error:
    print(json.dumps({"error": type(error).__name__, "said": str(error)}))
"""


def child(
    root: Path, state: Path, limit: int = 0, stop_at: str = "", unprivileged: bool = False
) -> subprocess.Popen[str]:
    arguments = [str(root), str(state), str(limit), stop_at, "yes" if unprivileged else ""]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def outcome(process: subprocess.Popen[str]) -> dict[str, object]:
    told, _ = process.communicate(timeout=120)
    last: dict[str, object] = json.loads(told.strip().split("\n")[-1])
    return last


def many(root: Path, count: int = 40) -> None:
    write(
        root,
        {f"many/file{n}.py": f'def number_{n}():\n    """Number {n}."""\n    return {n}\n' for n in range(count)},
    )


@pytest.mark.parametrize("stage", ["reading", "embedding", "storing vectors"])
def test_killed_then_continued(stage: str, root: Path, repository: Repository, state: Path, encoder: Encoder) -> None:
    many(root)
    process = child(root, state, stop_at=stage)
    assert process.stdout is not None
    for line in process.stdout:
        told = json.loads(line)
        if told[0] == stage and told[1]:
            break
    process.kill()
    process.wait()
    paid = vectors_held(state)
    with Index.open(repository, state, encoder) as index:
        report = index.refresh()
        assert (report.files, report.chunks) == (43, 43)
        assert (report.embedded, report.reused) == (43 - paid, paid)
        status = index.status()
        assert (status.pending, status.unembedded) == (0, 0)
        assert paths(index.search("number_17"))[0] == "many/file17.py"
        assert index.search("shipping company pickup").passages[0].path == "shop/courier.py"
    assert paid == {"reading": 0, "embedding": 32, "storing vectors": 43}[stage]


def test_nothing_changed_loads_neither_torch_nor_chroma(
    root: Path, repository: Repository, state: Path, encoder: Encoder
) -> None:
    with Index.open(repository, state, encoder) as index:
        index.refresh()
    assert outcome(child(root, state)) == {"embedded": 0, "reused": 3, "loaded": []}


@pytest.mark.parametrize("limit", [40_000, 160_000])
def test_a_full_disk_is_said_and_nothing_is_lost(
    limit: int, root: Path, repository: Repository, state: Path, encoder: Encoder
) -> None:
    many(root)
    told = outcome(child(root, state, limit=limit))
    assert told["error"] == "StateUnwritable", told
    with Index.open(repository, state, encoder) as index:
        paid = vectors_held(state)
        report = index.refresh()
        assert (report.chunks, report.embedded) == (43, 43 - paid)
        assert paths(index.search("number_17"))[0] == "many/file17.py"


def test_a_read_only_state_folder(root: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        told = outcome(child(root, Path(folder), unprivileged=True))
        assert told["error"] == "StateUnwritable", told
        assert f"{folder} cannot be written" in str(told["said"])


def test_watching(root: Path, repository: Repository, state: Path, encoder: Encoder) -> None:
    reports: queue.Queue[IndexReport] = queue.Queue()
    stop = threading.Event()
    with Index.open(repository, state, encoder) as index:
        watcher = threading.Thread(target=watch, args=(index, stop, reports.put))
        watcher.start()
        try:
            assert reports.get(timeout=60).files == 3
            write(root, {"shop/new.py": "def fresh_paint(): ...\n"})
            assert reports.get(timeout=60).files == 4
            assert paths(index.search("fresh paint"))[0] == "shop/new.py"
            commit = commit_all(root, "Paint")
            assert reports.get(timeout=60).commit == commit
            # Its name is not UTF-8, at which the watch of the file system breaks off.
            Path(os.fsdecode(os.fsencode(root / "shop") + b"/\xff.py")).write_text("x = 1\n")
            write(root, {"shop/old.py": "def faded_paint(): ...\n"})
            assert reports.get(timeout=60).files == 5
        finally:
            stop.set()
            watcher.join(60)
        assert not watcher.is_alive()


def test_what_is_excluded_later_leaves_the_index(
    root: Path, repository: Repository, state: Path, encoder: Encoder
) -> None:
    with Index.open(repository, state, encoder) as index:
        index.refresh()
        assert "shop/courier.py" in paths(index.search("book a courier"))
    with Index.open(repository.excluding(["courier.py"]), state, encoder) as index:
        assert index.status().pending == 1
        report = index.refresh()
        assert [(item.path, item.reason) for item in report.skipped] == [
            ("shop/courier.py", "excluded by the settings")
        ]
        buffer = {"shop/courier.py": "def book_courier(): ..."}
        assert "shop/courier.py" not in paths(index.search("book a courier", open_documents=buffer))
