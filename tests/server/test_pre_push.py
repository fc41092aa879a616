"""The pre-push hook: a real push, with an inhouse that finds something, nothing, fails, hangs or is not there."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from inhouse_retrieval import InhouseError, Repository
from inhouse_server.review.pre_push import CHAINED, install, pushed_ranges, script, uninstall
from tests.server.command_line import inhouse
from tests.server.conftest import git
from tests.server.test_review import commit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A clone with a branch that was not pushed yet."""
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    git(tmp_path, "clone", "--quiet", "origin.git", "a shop")
    root = tmp_path / "a shop"
    git(root, "checkout", "--quiet", "-B", "main")
    commit(root, "Begin", a_py="a = 1\n")
    git(root, "push", "--quiet", "origin", "main")
    git(root, "checkout", "--quiet", "-b", "change")
    commit(root, "More", b_py="b = 2\n")
    return root


def program(root: Path, text: str) -> Path:
    """What stands for inhouse: a shell script."""
    path = root.parent / "an inhouse"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def install_for(root: Path, text: str, fail_on: str | None = "warning", seconds: int = 20, chain: bool = False) -> Path:
    return install(Repository.open(root), script(program(root, text), fail_on, seconds), chain).path


def push(root: Path, branch: str = "change") -> tuple[bool, str]:
    done = subprocess.run(["git", "push", "origin", branch], cwd=root, capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stderr + done.stdout


def test_only_a_finding_blocks_a_push(root: Path) -> None:
    install_for(root, 'cat > "$0.told"; echo "$@"; exit 4')
    pushed, said = push(root)
    assert not pushed and "review pre-push --fail-on warning" in said and "--no-verify" in said
    head = git(root, "rev-parse", "HEAD").strip()
    told = Path(f"{root.parent}/an inhouse.told").read_text().split()
    assert told == ["refs/heads/change", head, "refs/heads/change", "0" * 40]
    for number, (text, note) in enumerate(
        (("exit 0", ""), ("exit 1", "could not review"), ("kill -9 $$", ""), ("exit 2", "could not review"))
    ):
        install_for(root, text)
        git(root, "checkout", "--quiet", "-b", f"other{number}")
        pushed, said = push(root, f"other{number}")
        assert pushed and note in said, said


def test_a_slow_or_missing_inhouse_blocks_nothing(root: Path) -> None:
    install_for(root, "exec sleep 60", seconds=1)
    began = time.monotonic()
    pushed, said = push(root)
    assert pushed and "took longer than 1 s" in said and time.monotonic() - began < 20
    install_for(root, "exit 0")
    (root.parent / "an inhouse").unlink()
    git(root, "checkout", "--quiet", "-b", "other")
    path = "/usr/bin:/bin"
    done = subprocess.run(
        ["git", "push", "origin", "other"], cwd=root, capture_output=True, text=True, env={"PATH": path, "HOME": "/"}
    )
    assert done.returncode == 0 and "inhouse is not there" in done.stderr


def test_a_hook_that_is_there_is_kept(root: Path) -> None:
    hook = root / ".git/hooks/pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text('#!/bin/sh\ncat > "$0.told"\n[ ! -e "$0.fail" ]\n')
    hook.chmod(0o755)
    with pytest.raises(InhouseError) as caught:
        install_for(root, "exit 0")
    assert "a pre-push hook already" in caught.value.problem and "--chain" in caught.value.remedy
    install_for(root, 'cat > "$0.told"', chain=True)
    install_for(root, 'cat > "$0.told"')  # again, to change an option
    assert push(root)[0]
    before = hook.with_name(f"{CHAINED}.told").read_text()
    assert before.startswith("refs/heads/change ") and before == (root.parent / "an inhouse.told").read_text()
    assert push(root)[0] and hook.with_name(f"{CHAINED}.told").read_text() == "", "git said nothing: all is there"
    hook.with_name(f"{CHAINED}.fail").write_text("")
    git(root, "checkout", "--quiet", "-b", "other")
    assert not push(root, "other")[0], "the other hook may block"
    removed = uninstall(Repository.open(root))
    assert removed.before is not None and "told" in hook.read_text() and not hook.with_name(CHAINED).exists()
    with pytest.raises(InhouseError, match="no pre-push hook of inhouse"):
        uninstall(Repository.open(root))


def test_it_lies_where_git_looks_for_it(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(root, "worktree", "add", "--quiet", "-b", "beside", str(tmp_path / "beside"))
    assert install_for(tmp_path / "beside", "exit 0") == root / ".git/hooks/pre-push"
    uninstall(Repository.open(root))
    git(root, "config", "core.hooksPath", "own hooks")
    assert install_for(root, "exit 4") == root / "own hooks/pre-push"
    assert not push(root)[0]
    git(root, "add", "own hooks")
    with pytest.raises(InhouseError, match="are committed with the repository"):
        install_for(root, "exit 0")
    git(root, "config", "--unset", "core.hooksPath")
    settings = tmp_path / "gitconfig"
    settings.write_text(f"[core]\n\thooksPath = {tmp_path}/shared\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    with pytest.raises(InhouseError) as caught:
        install_for(root, "exit 0")
    assert "of your global settings" in caught.value.problem and "inhouse review pre-push" in caught.value.remedy
    assert not (tmp_path / "shared").exists()


def test_what_a_push_brings(root: Path) -> None:
    repository = Repository.open(root)
    head, main = (git(root, "rev-parse", name).strip() for name in ("HEAD", "main"))
    none, unknown = "0" * 40, "1" * 40
    lines = {
        f"refs/heads/change {head} refs/heads/change {none}": [f"origin/main...{head}"],
        f"refs/heads/change {head} refs/heads/change {main}": [f"{main}...{head}"],
        f"refs/heads/change {head} refs/heads/change {unknown}": [f"origin/main...{head}"],
        f"(delete) {none} refs/heads/old {main}": [],
        "": [],
    }
    for line, wanted in lines.items():
        assert pushed_ranges(repository, [line]) == wanted, line
    assert len(pushed_ranges(repository, lines)) == 2


@pytest.mark.long
def test_an_inhouse_that_does_not_end_is_ended_and_what_it_left_holds_nothing(root: Path) -> None:
    install_for(root, "echo so far; trap '' TERM; sleep 60 & wait; sleep 60", seconds=1)
    began = time.monotonic()
    pushed, said = push(root)
    assert pushed and "so far" in said and "took longer than 1 s" in said and time.monotonic() - began < 20


@pytest.mark.long
def test_the_command_installs_a_hook_that_reviews(root: Path) -> None:
    for number in range(6):
        commit(root, f"More {number}", **{f"c{number}_py": "from house.http import get_json\n"})
    git(root, "push", "--quiet", "origin", "change:main")
    git(root, "fetch", "--quiet")
    done = inhouse("review", "install-hook", "--fail-on", "warning", "--seconds", "120", "--repo", str(root))
    assert done.returncode == 0 and "Installed" in done.stdout, done.stderr
    commit(root, "Elsewhere", new_py="from requests import get_json\n")
    pushed, said = push(root)
    assert not pushed and "is imported from `house.http`" in said.replace("\n", " "), said
    commit(root, "As the house does", new_py="from house.http import get_json\n")
    pushed, said = push(root)
    assert pushed, said
    assert inhouse("review", "uninstall-hook", "--repo", str(root)).stdout.startswith("Removed")
    assert inhouse("review", "pre-push", "--fail-on", "no", "--repo", str(root)).returncode == 2
