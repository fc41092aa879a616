"""The project's own check: what it may do in its sandbox, whose command it is, and what counts as worse."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inhouse_retrieval import InhouseError, Repository
from inhouse_server.review import sandbox as sandboxes
from inhouse_server.review.check import NOT_RUN, WORSE, Check, is_worse, open_check, trusted_check
from inhouse_server.review.diff import read_change
from inhouse_server.review.finding import Finding
from inhouse_server.review.sandbox import Ran, Sandbox, find_sandbox
from inhouse_server.settings import ReviewSettings, load_settings
from tests.server.command_line import inhouse
from tests.server.conftest import git
from tests.server.test_review import commit

SETTINGS = '[review]\ncheck = "{}"\n'


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return find_sandbox(10, 64 * 2**20)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository whose check looks for a word, and a branch to change things in."""
    root = tmp_path / "shop"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    commit(root, "Begin", pay_py="rate = 19\n", inhouse_toml=SETTINGS.format("grep -q rate pay.py"))
    git(root, "checkout", "--quiet", "-b", "change")
    return root


def trusted(root: Path) -> tuple[str | None, str]:
    found = trusted_check(Repository.open(root), load_settings(root).review)
    return found.settings.check if found.settings else None, found.warning


# -- the sandbox ---------------------------------------------------------------------------------------------


@pytest.mark.editors  # needs a machine that allows user namespaces
def test_nothing_outside_can_be_written_read_or_reached(sandbox: Sandbox, tmp_path: Path) -> None:
    given, changed = tmp_path / "given", tmp_path / "changed"
    for folder, text in ((given, "before"), (changed, "after")):
        folder.mkdir()
        (folder / "a b.txt").write_text(text)
    (given / "link").symlink_to("/etc/shadow")
    hidden = tmp_path / "secret"
    hidden.write_text("x")
    command = (
        "cat 'a b.txt'; echo; pwd; touch here && echo wrote;"
        f" for f in /usr/x /x /given/x /changed/x /dev/../x {tmp_path}/x; do"
        " (: > $f) 2>/dev/null && echo escaped; done;"
        f" cat {hidden} link /root/.* /home/*/.* 2>/dev/null && echo read;"
        " mount -o remount,rw,bind /usr 2>/dev/null && echo mounted;"
        " unshare --user --map-root-user true 2>/dev/null && echo nested;"
        " tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; grep CapEff /proc/self/status | cut -f2; env | sort"
    )
    ran = sandbox.run(command, given, changed)
    said = ran.output.split("\n")
    assert said[:3] == ["after", "/check", "wrote"], ran
    assert not {"escaped", "read", "mounted"} & set(said)
    assert [name for name in said if name in ("lo", "eth0", "ens3", "enp0s3")] == ["lo"]
    assert "0" * 16 in said, "no capabilities"
    assert not any(line.startswith(("INHOUSE", "OPENAI", "PYTHON")) for line in said)
    assert (given / "a b.txt").read_text() == "before" and sorted(path.name for path in given.iterdir()) == [
        "a b.txt", "link"
    ]  # fmt: skip


@pytest.mark.long
@pytest.mark.editors  # needs a machine that allows user namespaces
def test_the_network_is_not_there(sandbox: Sandbox, tmp_path: Path) -> None:
    """Not even what listens on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        program = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        ran = sandbox.run(f'python3 -c "{program}" 2>&1 | tail -1', tmp_path, tmp_path)
    assert "refused" in ran.output or "unreachable" in ran.output, ran


@pytest.mark.editors  # needs a machine that allows user namespaces
def test_time_memory_and_output_are_limited(sandbox: Sandbox, tmp_path: Path) -> None:
    began = time.monotonic()
    quick = Sandbox(sandbox.kind, 0.5, sandbox.memory)
    assert quick.run("sleep 60 & sleep 60", tmp_path, tmp_path).why == "it took longer than 0.5 s"
    assert time.monotonic() - began < 5
    assert sandbox.run("yes", tmp_path, tmp_path).why == "it said more than 1,000,000 bytes"
    assert sandbox.run("head -c 100000000 /dev/zero > big", tmp_path, tmp_path).code in (1, 153)
    held = sandbox.run("python3 -c 'x = bytearray(100_000_000)' 2>&1 | tail -1", tmp_path, tmp_path)
    assert "MemoryError" in held.output, held
    assert sandbox.run("exit 125", tmp_path, tmp_path) == Ran(125, "")


@pytest.mark.long
@pytest.mark.editors  # needs a machine that allows user namespaces
def test_what_may_be_read_lies_where_it_is_expected(sandbox: Sandbox, tmp_path: Path) -> None:
    given, packages = tmp_path / "given", tmp_path / "node_modules"
    given.mkdir()
    packages.mkdir()
    (packages / "tool").write_text("1")
    reads = ((packages, "/check/node_modules"), (packages, str(packages)))
    ran = Sandbox(sandbox.kind, 10, sandbox.memory, reads).run(
        f"cat node_modules/tool {packages}/tool; touch node_modules/x", given, given
    )
    assert ran.output.startswith("11") and ran.code != 0 and not (packages / "x").exists()


def test_without_a_sandbox_nothing_is_run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    monkeypatch.setattr(sandboxes, "_PATH", str(tmp_path))
    with pytest.raises(InhouseError) as caught:
        open_check(Repository.open(root), ReviewSettings(check=f"touch {ran}"), root)
    assert "bwrap is not installed" in caught.value.problem and "Install bubblewrap" in caught.value.remedy
    assert not ran.exists()


@pytest.mark.long
@pytest.mark.editors  # needs a machine that allows user namespaces
def test_where_the_machine_forbids_namespaces_the_command_is_refused(root: Path, sandbox: Sandbox) -> None:
    """In a namespace in which no further one may be made, as on a machine that forbids them to users."""
    command = f"{sys.executable} -m inhouse_server.cli review --repo '{root}'"
    script = f"echo 0 > /proc/sys/user/max_user_namespaces && {command}"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "it needs a sandbox, and none can be made here" in done.stderr, done.stderr
    assert "Install bubblewrap" in done.stderr and "Traceback" not in done.stderr


# -- whose command it is -------------------------------------------------------------------------------------


def test_the_command_is_the_main_branch_s_whatever_the_change_brings(root: Path) -> None:
    assert trusted(root) == ("grep -q rate pay.py", "")
    (root / "inhouse.toml").write_text(SETTINGS.format("touch /tmp/evil"))  # not committed
    assert trusted(root)[0] == "grep -q rate pay.py"
    commit(root, "Evil", inhouse_toml=SETTINGS.format("touch /tmp/evil"))  # the pull request is checked out
    command, warning = trusted(root)
    assert command == "grep -q rate pay.py" and "is not that of main; that of the branch is run" in warning
    git(root, "rm", "--quiet", "--cached", "inhouse.toml")  # it pretends not to be known
    assert trusted(root)[0] == "grep -q rate pay.py"
    git(root, "commit", "--quiet", "--message", "Gone")
    assert trusted(root)[0] == "grep -q rate pay.py"
    git(root, "update-ref", "refs/pull/7/head", "HEAD")
    git(root, "checkout", "--quiet", "--force", "main")
    assert trusted(root) == ("grep -q rate pay.py", "")


def test_a_change_cannot_bring_the_first_check(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    commit(tmp_path, "Begin", pay_py="rate = 19\n")
    (tmp_path / "inhouse.toml").write_text(SETTINGS.format("true"))
    assert trusted(tmp_path) == ("true", ""), "git does not know it: it is the owner's own"
    git(tmp_path, "checkout", "--quiet", "-b", "change")
    git(tmp_path, "add", "inhouse.toml")
    assert trusted(tmp_path) == (None, "The check of inhouse.toml is not run: main has none.")
    git(tmp_path, "commit", "--quiet", "--message", "Evil")
    assert trusted(tmp_path)[0] is None
    git(tmp_path, "branch", "--quiet", "--delete", "--force", "main")
    assert "there is no main branch" in trusted(tmp_path)[1]


def test_it_is_off_by_default(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    commit(tmp_path, "Begin", pay_py="rate = 19\n")
    assert ReviewSettings().check is None and trusted(tmp_path) == (None, "")


# -- what counts as worse ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        ((0, ""), (0, "warning"), False),
        ((0, ""), (1, ""), True),
        ((1, "a.py:3 unused"), (0, ""), False),
        ((1, "a.py:3 unused\nb.py:9 long"), (1, "a.py:7 unused\nb.py:12 long"), False),
        ((1, "a.py:3 unused"), (1, "a.py:3 unused\na.py:9 unused"), True),
        ((1, "a.py:3 unused"), (1, "a.py:3 undefined"), True),
        ((1, "a.py:3 unused"), (2, "a.py:3 unused"), True),
        ((1, "a.py:3 unused\n1 problem in 0.31 s"), (1, "a.py:3 unused\n1 problem in 2.07 s"), False),
        ((1, "x"), (None, "x"), True),
    ],
)
def test_worse(before: tuple[int, str], after: tuple[int | None, str], worse: bool) -> None:
    assert is_worse(Ran(*before), Ran(*after)) is worse


@pytest.mark.editors  # needs a machine that allows user namespaces
def test_a_replacement_is_tried_on_the_change_s_own_tree(root: Path, sandbox: Sandbox, tmp_path: Path) -> None:
    (root / "pay.py").write_text("rate = 19\ntotal = rate * 2\n")
    (root / "new.py").write_text("untracked = 1\n")
    tree = tmp_path / "tree"
    tree.mkdir()
    change = read_change(Repository.open(root), copy_to=tree)
    assert (tree / "new.py").exists() and (tree / "pay.py").read_text() == (root / "pay.py").read_text()
    file = next(file for file in change.files if file.path == "pay.py")

    def refusal(command: str, replacement: str) -> str:
        finding = Finding("pay.py", 2, 2, "info", "reading", "m", "a", replacement)
        return Check(command, sandbox, tree).refusal(file, finding)

    assert refusal("test -f new.py && python3 pay.py", "total = rate * 3\n") == ""
    assert refusal("python3 pay.py", "total = rates * 3\n") == WORSE
    assert refusal("grep -q 'rate [*] 3' pay.py", "total = rate * 3\n") == "", "it failed, and passes now"
    assert refusal("yes", "total = rate * 3\n") == NOT_RUN
    # What the check does to its copy is gone for the next one, and never seen from outside.
    assert refusal("test ! -e left && ln -sf /etc/passwd pay.py && touch left", "total = rate * 3\n") == ""
    assert not (tree / "pay.py").is_symlink() and not (tree / "left").exists()


@pytest.mark.long
@pytest.mark.editors  # needs a machine that allows user namespaces
def test_the_command_line_withholds_what_the_check_refuses(tmp_path: Path, sandbox: Sandbox) -> None:
    root = tmp_path / "shop"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    files = {f"c{number}_py": "from house.http import get_json\n" for number in range(6)}
    commit(root, "Begin", inhouse_toml=SETTINGS.format("grep -q requests new.py"), **files)
    git(root, "checkout", "--quiet", "-b", "change")
    commit(root, "More", new_py="from requests import get_json\n", inhouse_toml=SETTINGS.format("true"))
    told = json.loads(inhouse("review", "--repo", str(root), "--json").stdout)
    [finding] = [each for each in told["findings"] if each["rule"] == "import-spelling"]
    assert finding["replacement"] is None and told["dropped"] == {WORSE: 1}
