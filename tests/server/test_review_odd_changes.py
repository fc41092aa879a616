"""Changes as they come: moved, huge, of other kinds, in every script; each is read where it can be, or listed with its
reason."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from inhouse_retrieval import InhouseError, Repository
from inhouse_server.language_server.editor_lines import EditorLines
from inhouse_server.review.change import Change, ReviewedFile
from inhouse_server.review.companions import History
from inhouse_server.review.conventions import Conventions
from inhouse_server.review.diff import read_change
from inhouse_server.review.finding import Finding
from inhouse_server.review.proof import find_quotation, prove
from inhouse_server.review.renderers import render
from inhouse_server.review.reviewer import House, review
from inhouse_server.review.trees import MAX_FILES
from tests.server.command_line import inhouse
from tests.server.conftest import git
from tests.server.test_review_renderers import review as reviewed

TEXT = "".join(f"value_{number} = compute({number})\n" for number in range(40))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    (tmp_path / "old.py").write_text(TEXT)
    (tmp_path / "run.sh").write_text("echo one\n")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "Begin")
    git(tmp_path, "checkout", "--quiet", "-b", "change")
    return tmp_path


def files_of(root: Path) -> dict[str, ReviewedFile]:
    git(root, "commit", "--quiet", "--message", "Change")
    return {file.path: file for file in read_change(Repository.open(root), "HEAD").files}


def test_a_file_that_is_moved_and_edited_is_read_under_its_new_name(root: Path) -> None:
    git(root, "mv", "old.py", "new.py")
    (root / "new.py").write_text(TEXT.replace("compute(20)", "compute_all(20)"))
    git(root, "add", "--all")
    [file] = files_of(root).values()
    assert (file.path, file.former, file.status) == ("new.py", "old.py", "renamed")
    assert file.added_lines() == [(21, "value_20 = compute_all(20)")]
    assert find_quotation("value_20 = compute_all(20)", file, file.hunks[0]) == (21, 21)


def test_a_mode_and_a_text_that_change_together(root: Path) -> None:
    (root / "run.sh").write_text("echo two\n")
    (root / "run.sh").chmod(0o755)
    git(root, "add", "--all")
    assert files_of(root)["run.sh"].added_lines() == [(1, "echo two")]


def test_a_submodule_is_listed_when_it_comes_moves_and_goes(root: Path) -> None:
    for commit in ("1" * 40, "2" * 40):
        git(root, "update-index", "--add", "--cacheinfo", f"160000,{commit},lib/sub")
        assert {path: file.unread for path, file in files_of(root).items()} == {"lib/sub": "submodule"}
    git(root, "rm", "--quiet", "--cached", "lib/sub")
    assert files_of(root)["lib/sub"].unread == "submodule"


def test_a_hunk_of_a_megabyte_is_listed_and_the_rest_is_read(root: Path) -> None:
    (root / "huge.py").write_text("x = 'a rather long line of text that goes on and on for a while'\n" * 14_000)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "Huge")
    (root / "huge.py").write_text("y = 'a rather long line of text that goes on and on for a while'\n" * 14_000)
    (root / "old.py").write_text(TEXT + "z = 1\n")
    git(root, "add", "--all")
    files = files_of(root)
    assert files["huge.py"].unread == "a patch larger than 1 MB" and files["huge.py"].hunks == ()
    assert files["old.py"].added_lines() == [(41, "z = 1")]


@pytest.mark.long
def test_of_a_change_of_three_thousand_files_each_is_read_or_listed(root: Path) -> None:
    blob = git(root, "hash-object", "-w", "old.py").strip()
    listing = "".join(f"100644 {blob}\tmany/{number}.py\n" for number in range(MAX_FILES + 20))
    subprocess.run(["git", "update-index", "--index-info"], cwd=root, input=listing, text=True, check=True)
    git(root, "commit", "--quiet", "--message", "Many")
    began = time.monotonic()
    change = read_change(Repository.open(root), "HEAD")
    found = review(change, House(History((), lambda path: True), Conventions(())), 5)
    assert found.coverage.files == MAX_FILES and found.coverage.lines == MAX_FILES * 40
    assert set(found.coverage.unread.values()) == {f"more than {MAX_FILES:,} files changed"}
    assert len(found.coverage.unread) == 20
    assert time.monotonic() - began < 120


WIDE = ["\ttotal = 1", "\t価格 = 総額('🙂')", "é = 2"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "end"])
def test_columns_and_lines_with_tabs_wide_characters_and_any_line_end(root: Path, end: str, last: str) -> None:
    """rdjson counts bytes. The language server and the forges are told whole lines, so that no unit matters."""
    (root / "wide.py").write_bytes((end.join(WIDE) + (end if last else "")).encode())
    git(root, "add", "--all")
    file = files_of(root)["wide.py"]
    assert [text for _, text in file.added_lines()] == WIDE
    assert find_quotation("価格 = 総額('🙂')", file, file.hunks[0]) == (2, 2)
    replacement, refused = prove(file, 2, 2, "\t価格 = 総額('🙂🙂')")
    assert (replacement, refused) == (f"\t価格 = 総額('🙂🙂'){end}", None)
    finding = Finding("wide.py", 2, 3, "info", "reading", "m", file.shown(2, 3), "a\n")
    change = Change("main", "topic", "b" * 40, "a" * 40, "", "", (file,))
    told = json.loads(render("rdjsonl", reviewed(finding), change, root).splitlines()[0])
    assert told["location"]["range"] == {
        "start": {"line": 2, "column": 1}, "end": {"line": 3, "column": len(WIDE[2].encode()) + 1}
    }  # fmt: skip
    shown = EditorLines(file.new_text).range(2, 3)
    assert (shown.start.line, shown.start.character, shown.end.line, shown.end.character) == (1, 0, 3, 0)


# -- patches -------------------------------------------------------------------------------------------------

NO_DATA = """diff --git a/x y.png b/x y.png
new file mode 100644
index 0000000..f76dd23
Binary files /dev/null and b/x y.png differ
"""


def test_binary_files_of_a_patch_are_listed_and_the_rest_is_read(root: Path) -> None:
    (root / "logo.png").write_bytes(b"\x89PNG\0\0")
    (root / "old.py").write_text(TEXT + "z = 1\n")
    git(root, "add", "--all")
    for binary in ((), ("--binary",)):
        patch = git(root, "diff", "--cached", *binary).encode()
        files = {file.path: file for file in read_change(Repository.open(root), patch=patch).files}
        assert {path: file.unread for path, file in files.items()} == {"old.py": "", "logo.png": "binary"}
        assert files["old.py"].added_lines() == [(41, "z = 1")] and files["logo.png"].status == "added"
    [file] = read_change(Repository.open(root), patch=NO_DATA.encode()).files
    assert (file.path, file.status, file.unread) == ("x y.png", "added", "binary")


@pytest.mark.parametrize(
    ("patch", "problem", "remedy"),
    [
        (b"garbage\n", "There is no patch in what was given.", "as `git diff` writes it"),
        (bytes(range(256)) * 9, "There is no patch in what was given.", "as `git diff` writes it"),
        (b"--- a/old.py\n+++ b/old.py\n@@ -1,9 +1 @@\n-no\n", "The patch is damaged", "as `git diff` writes it"),
        (b"--- a/old.py\n+++ b/old.py\n@@ -1 +1 @@\n-no\n+yes\n", "does not apply to HEAD", "made against"),
        (b"--- a/none.py\n+++ b/none.py\n@@ -1 +1 @@\n-no\n+yes\n", "none.py", "top of the repository"),
        (
            b"--- a/../x\n+++ b/../x\n@@ -0,0 +1 @@\n+hi\n",
            "The patch is refused: invalid path",
            "inside of the repository",
        ),
    ],
)
def test_what_is_no_patch_for_here_is_told_with_its_own_remedy(
    root: Path, patch: bytes, problem: str, remedy: str
) -> None:
    with pytest.raises(InhouseError) as refused:
        read_change(Repository.open(root), patch=patch)
    assert problem in refused.value.problem and remedy in (refused.value.remedy or "")
    assert "git apply" not in refused.value.problem


def test_an_empty_patch_is_a_review_that_finds_nothing_and_says_why(root: Path, tmp_path: Path) -> None:
    change = read_change(Repository.open(root), patch=b"\n")
    found = review(change, House(History((), lambda path: True), Conventions(())), 5)
    assert (change.files, found.findings, found.notes) == ((), (), ("The patch is empty.",))


@pytest.mark.parametrize("asked", [(), ("--staged",), ("HEAD",), ("main..topic",), ("--diff", "{patch}")])
def test_a_repository_without_a_commit_is_said_to_be_one(tmp_path: Path, asked: tuple[str, ...]) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    (tmp_path / "a.patch").write_text(NO_DATA)
    (tmp_path / "inhouse.toml").write_text("")
    done = inhouse("review", "--repo", str(tmp_path), *(part.format(patch=tmp_path / "a.patch") for part in asked))
    assert done.returncode == 1 and "This repository has no commit yet." in done.stderr, done.stderr
