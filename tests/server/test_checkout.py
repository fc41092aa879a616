"""Between an editor's addresses and paths of the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from inhouse_retrieval import InhouseError
from inhouse_server.answer_files import answer_name, write_answer
from inhouse_server.elsewhere import CHECKOUT_OPTION, Elsewhere, checkout_here
from inhouse_server.language_server.checkout import Checkout

MINE = Elsewhere("file:///c%3A/Users/me/my%20shop", "file:///c%3A/state", "a" * 40)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///c%3A/Users/me/my%20shop/src/gr%C3%B6%C3%9Fe.py", "src/größe.py"),
        ("file:///c:/Users/me/my shop/a.py", "a.py"),
        ("file:///c%3A/Users/me/my%20shop", None),
        ("file:///c%3A/Users/me/my%20shopping/a.py", None),
        ("file:///c%3A/Users/me/my%20shop/../secret.txt", None),
        ("file:///c%3A/Users/me/my%20shop/%2e%2e/secret.txt", None),
        ("file:///c%3A/Users/me/my%20shop//etc/passwd", None),
        ("file:///c%3A/Users/me/my%20shop/a%00b", None),
        ("untitled:Untitled-1", None),
    ],
)
def test_only_files_of_the_checkout_elsewhere_are_paths_of_the_repository(uri: str, path: str | None) -> None:
    assert Checkout(Path("/srv/shop"), MINE).path_of(uri) == path


def test_a_path_comes_back_as_the_editors_address() -> None:
    checkout = Checkout(Path("/srv/shop"), MINE)
    uri = checkout.uri_of("src/größe #1.py")
    assert uri == "file:///c%3A/Users/me/my%20shop/src/gr%C3%B6%C3%9Fe%20%231.py"
    assert checkout.path_of(uri) == "src/größe #1.py"
    assert Checkout(Path("/srv/shop")).uri_of("a.py") == "file:///srv/shop/a.py"


def test_a_root_behind_a_link_is_called_as_the_editor_calls_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    here = checkout_here(tmp_path / "real", tmp_path, f"{link.as_uri()}/")
    assert Checkout(Path("/srv/shop"), here).path_of(f"{link.as_uri()}/a.py") == "a.py"
    assert checkout_here(tmp_path / "real", tmp_path, tmp_path.as_uri()).root_uri == (tmp_path / "real").as_uri()


def test_an_answer_tells_of_another_commit() -> None:
    checkout = Checkout(Path("/srv/shop"), MINE)
    assert "your checkout was at aaaaaaaaaaaa" in checkout.note("b" * 40)
    assert "your checkout" not in checkout.note("a" * 40)
    assert checkout.note(None) == Checkout(Path("/srv/shop")).note("b" * 40) == ""


def test_what_is_no_checkout_is_refused() -> None:
    assert Elsewhere.from_options(None) is Elsewhere.from_options({"theme": "dark"}) is None
    assert Elsewhere.from_options({CHECKOUT_OPTION: MINE.to_json()}) == MINE
    with pytest.raises(ValueError, match="rootUri"):
        Elsewhere.from_options({CHECKOUT_OPTION: {"rootUri": 3}})


@pytest.mark.parametrize("name", ["../x.md", "/etc/x.md", "a.md", "20200101-000000-x.md/../../y.md", ""])
def test_a_server_names_answers_and_nothing_else(tmp_path: Path, name: str) -> None:
    assert write_answer(tmp_path / "answers", answer_name("Why /etc?"), "text").read_text() == "text"
    with pytest.raises(InhouseError):
        write_answer(tmp_path / "answers", name, "text")
    assert len(list(tmp_path.rglob("*.md"))) == 1
