"""Pull requests read from real histories."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from inhouse_retrieval import Repository, read_pull_requests
from inhouse_retrieval.pull_requests.git_history import MAX_PATCH_CHARACTERS
from tests.retrieval.trees import commit_all, git, write


def merge(root: Path, branch: str, message: str) -> None:
    git(root, "checkout", "--quiet", "main")
    git(root, "merge", "--quiet", "--no-ff", "--message", message, branch, date="2025-03-05T12:00:00Z")


def test_merges_squashes_and_what_is_neither(root: Path) -> None:
    git(root, "remote", "add", "origin", "https://bot:s3cr3t@git.example.org/acme/shop.git")
    git(root, "checkout", "--quiet", "-b", "vouchers")
    write(root, {"shop/voucher.py": "RATE = 10\n"})
    commit_all(root, "wip", date="2025-03-02T12:00:00Z")
    write(root, {"shop/voucher.py": "RATE = 15\n"})
    commit_all(root, "more", date="2025-03-03T12:00:00Z")
    merge(root, "vouchers", "Merge pull request #7 from acme/vouchers\n\nOffer vouchers\n\nCustomers asked.")
    write(root, {"shop/basket.py": "class Basket:\n    pass\n"})
    commit_all(root, "Simplify the basket (#9)\n\nLess is more.", date="2025-03-06T12:00:00Z")
    write(root, {"notes.txt": "x\n"})
    commit_all(root, "Take notes", date="2025-03-07T12:00:00Z")

    squash, merged = read_pull_requests(Repository.open(root), minimum=2)
    assert (squash.number, squash.title, squash.description) == (9, "Simplify the basket", "Less is more.")
    assert [(file.path, file.status) for file in squash.files] == [("shop/basket.py", "modified")]
    assert squash.files[0].patch.startswith("@@ -1,")
    assert (merged.number, merged.title, merged.description) == (7, "Offer vouchers", "Customers asked.")
    assert merged.url == "https://git.example.org/acme/shop/pull/7"
    assert merged.created_at == datetime(2025, 3, 2, 12, tzinfo=UTC)
    assert merged.merged_at == datetime(2025, 3, 5, 12, tzinfo=UTC)
    assert merged.files[0].patch == "@@ -0,0 +1 @@\n+RATE = 15"
    assert squash.parent == merged.commit

    with_plain = read_pull_requests(Repository.open(root))
    assert [item.title for item in with_plain] == ["Take notes", "Simplify the basket", "Offer vouchers"]
    assert with_plain[0].number is None
    assert [item.title for item in read_pull_requests(Repository.open(root), limit=1)] == ["Take notes"]
    assert [item.number for item in read_pull_requests(Repository.open(root), until=merged.commit)] == [7]


def test_a_merge_may_carry_the_title_of_its_pull_request(root: Path) -> None:
    for number, subject in enumerate(("Offer vouchers (#7)", "Merge branch 'main' into fixes (#4)")):
        git(root, "checkout", "--quiet", "-b", f"topic-{number}")
        write(root, {f"v{number}.py": "x = 1\n"})
        commit_all(root, "wip")
        merge(root, f"topic-{number}", f"{subject}\n\nCustomers asked.")
    (merged,) = read_pull_requests(Repository.open(root))
    assert (merged.number, merged.title, merged.description) == (7, "Offer vouchers", "Customers asked.")


def test_merges_without_a_number_are_changes_where_there_are_no_others(root: Path) -> None:
    for name, message in (
        ("vouchers", "Merge branch 'vouchers'"),
        ("couriers", "Merge branch 'couriers' into main\n\nCouriers come at noon\n\nThey were late."),
        ("main-menu", "Merge branch 'main-menu'"),
        ("baskets", "Baskets have handles"),
        ("main-again", "Merge branch 'main' of https://git.example.org/acme/shop"),
        ("main", "Merge remote-tracking branch 'origin/main' into main"),
    ):
        git(root, "checkout", "--quiet", "-b", f"topic-{name}")
        write(root, {f"{name}.py": "x = 1\n"})
        commit_all(root, f"Begin {name}")
        write(root, {f"{name}.py": "x = 2\n"})
        commit_all(root, f"Offer {name}")
        merge(root, f"topic-{name}", message)
    changes = read_pull_requests(Repository.open(root))
    assert [(each.number, each.title, each.description) for each in changes] == [
        (None, "Baskets have handles", ""),
        (None, "Offer main-menu", ""),
        (None, "Couriers come at noon", "They were late."),
        (None, "Offer vouchers", ""),
    ]
    assert [commit.subject for commit in changes[-1].commits] == ["Begin vouchers", "Offer vouchers"]
    assert [file.path for file in changes[-1].files] == ["vouchers.py"]


def test_a_commit_without_a_message_is_a_change_like_others(root: Path) -> None:
    git(root, "checkout", "--quiet", "-b", "silent")
    git(root, "commit", "--quiet", "--allow-empty", "--allow-empty-message", "--message", "")
    merge(root, "silent", "Merge pull request #7 from acme/silent\n\nSay nothing")
    (merged,) = read_pull_requests(Repository.open(root), minimum=1)
    assert (merged.number, [commit.subject for commit in merged.commits]) == (7, [""])


def test_gitlab_merges(root: Path) -> None:
    git(root, "remote", "add", "origin", "git@gitlab.example.org:acme/tools/shop.git")
    git(root, "checkout", "--quiet", "-b", "vouchers")
    write(root, {"v.py": "x = 1\n"})
    commit_all(root, "wip")
    merge(
        root,
        "vouchers",
        "Merge branch 'vouchers' into 'main'\n\nOffer vouchers\n\nSee merge request acme/tools/shop!12",
    )
    (merged,) = read_pull_requests(Repository.open(root))
    assert (merged.number, merged.title, merged.description) == (12, "Offer vouchers", "")
    assert merged.url == "https://gitlab.example.org/acme/tools/shop/-/merge_requests/12"


def test_every_kind_of_file_change(root: Path) -> None:
    write(root, {"old.py": "".join(f"line {n}\n" for n in range(30)), "kind.py": "x = 1\n", "run.sh": "true\n"})
    commit_all(root, "Before")
    git(root, "mv", "old.py", "new name.py")
    (root / "shop/courier.py").unlink()
    (root / "kind.py").unlink()
    (root / "kind.py").symlink_to("run.sh")
    (root / "run.sh").chmod(0o755)
    write(
        root,
        {
            'quo"te\n.py': "x = 1\n",
            "binary.bin": b"\0\1",
            "yarn.lock": "x\n",
            "long.py": "".join(f"value_{n} = {n}\n" for n in range(5000)),
            "key.py": 'k = "AKIA' + "QWERTYUIOPASDFGH" + '"\n',
        },
    )
    commit_all(root, "Everything (#3)")
    change = read_pull_requests(Repository.open(root))[0]
    files = {file.path: file for file in change.files}
    assert {path: file.status for path, file in files.items()} == {
        "new name.py": "renamed",
        "shop/courier.py": "removed",
        "kind.py": "modified",
        "run.sh": "modified",
        'quo"te\n.py': "added",
        "binary.bin": "added",
        "yarn.lock": "added",
        "long.py": "added",
        "key.py": "added",
    }
    empty = {path for path, file in files.items() if not file.patch}
    assert empty == {"new name.py", "kind.py", "run.sh", "binary.bin", "yarn.lock"}
    assert files['quo"te\n.py'].patch == "@@ -0,0 +1 @@\n+x = 1"
    assert "-def book_courier" in files["shop/courier.py"].patch
    assert "REDACTED AWS" in files["key.py"].patch
    long = files["long.py"]
    assert len(long.patch) <= MAX_PATCH_CHARACTERS
    assert long.patch.count("\n") + long.omitted_lines == 5000


def test_the_edge_of_a_shallow_clone_is_no_change(root: Path, tmp_path: Path) -> None:
    for number in range(3):
        write(root, {"a.py": f"x = {number}\n"})
        commit_all(root, f"Change {number} (#{number})")
    git(tmp_path, "clone", "--quiet", "--depth=2", root.as_uri(), "clone")
    assert [item.number for item in read_pull_requests(Repository.open(tmp_path / "clone"))] == [2]
