"""Hover as an editor meets it: the place of a definition, who changed it last, and nothing where there is nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import Index, InhouseError, LastChange, Place, Repository, name_at
from inhouse_retrieval.definitions import Definitions
from inhouse_server.cli.found_passage import show_passage, show_uses
from inhouse_server.elsewhere import CHECKOUT_OPTION, Elsewhere
from inhouse_server.json_contracts import passage_json
from inhouse_server.language_server.hover import markdown
from inhouse_server.markdown import harmless_markdown
from inhouse_server.workspace import Workspace
from inhouse_training.plain_text import hidden_characters
from tests.server.direct import Client
from tests.server.house import NAME, PRICES, make_repository

HIDDEN = "\u200b\u202e<!-- obey -->\U000e0041\ufe0f"
SHOP = 'from prices import price_with_tax\n\n# price_with_tax\nprint("price_with_tax", "🦓", price_with_tax(1))\n'


def git(root: Path, *arguments: str, author: str = "Test") -> None:
    identity = ["-c", f"user.name={author}", "-c", "user.email=test@example.com"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its one function was changed on a branch by Ada, whose pull request Grace merged."""
    root = make_repository(tmp_path_factory.mktemp("shop") / "a shop")
    main = Repository.open(root).head()
    (root / "prices.ts").write_text("export function price_with_tax(amount: number) {\n\treturn amount;\n}\n")
    (root / "shop.py").write_text(SHOP, encoding="utf-8")
    (root / "keys.py").write_text('def open_door(key="AKIAIOSFODNN7EXAMPL3"):\n    def knock():\n        pass\n')
    git(root, "add", "-A")
    git(root, "commit", "-qm", "Sell things (#6)")
    git(root, "checkout", "-qb", "tax", main)
    (root / NAME).write_text(PRICES.replace("1.19", "1.20"), encoding="utf-8")
    git(root, "commit", "-qam", "Twenty percent", author="Ada [x](y)")
    git(root, "checkout", "-q", "-")
    title = f"Raise the *tax* <b>now</b> [here](http://evil.example){HIDDEN}"
    message = f"Merge pull request #7 from shop/tax\n\n{title}"
    git(root, "merge", "-q", "--no-ff", "-m", message, "tax", author="Grace")
    return root


@pytest.fixture(scope="module")
def house(root: Path) -> Iterator[Workspace]:
    with Workspace.open(root, "test") as house:
        house.index.refresh(embed=False)
        yield house


async def test_it_says_where_who_when_and_why(house: Workspace, root: Path) -> None:
    connected = Client(house)
    uri = (root / "shop.py").as_uri()
    connected.open(uri, SHOP)
    shown = await connected.hover(uri, 3, 34)
    text = shown["contents"]["value"]
    assert text.startswith("```py\ndef price_with_tax(amount):\n```")
    assert f"{NAME}:1]({(root / NAME).as_uri()}#L1)" in text
    assert r"Last changed by Ada \[x\](y), " in text, "who wrote it, not who merged it"
    assert r"#7 Raise the \*tax\* \<b\>now\</b\> \[here\](http://evil.example)" in text
    assert text.index(NAME) < text.index("Also [prices.ts:1]"), "the same language first"
    assert hidden_characters(text) == 0 and "obey" not in text and "\ufe0f" not in text
    unformatted = Client(house, capabilities={"textDocument": {"hover": {"contentFormat": ["plaintext"]}}})
    unformatted.open(uri, SHOP)
    told = (await unformatted.hover(uri, 3, 34))["contents"]["value"]
    assert "#7 Raise the *tax* <b>now</b> [here](http://evil.example)" in told
    assert hidden_characters(told) == 0 and "obey" not in told and "\ufe0f" not in told
    assert shown["range"] == {"start": {"line": 3, "character": 30}, "end": {"line": 3, "character": 44}}

    assert await connected.hover(uri, 2, 5) is None, "a comment"
    assert await connected.hover(uri, 3, 10) is None, "a string"
    assert await connected.hover(uri, 0, 1) is None, "a keyword"
    assert await connected.hover(uri, 3, 1) is None, "not defined here"
    assert await connected.hover(uri, 99, 0) is None
    assert await connected.hover("file:///etc/passwd", 0, 0) is None


async def test_it_reads_the_unsaved_buffer(house: Workspace, root: Path) -> None:
    connected = Client(house)
    uri = (root / NAME).as_uri()
    connected.open(uri, "# one more line\n" + PRICES.replace("1.19", "1.21") + "def zebra():\n    zebra()\n")
    text = (await connected.hover(uri, 1, 6))["contents"]["value"]
    assert f"{NAME}:2]" in text
    assert r"Edited and not committed yet; the rest was last changed by Test" in text
    assert "def zebra():" in (await connected.hover(uri, 5, 5))["contents"]["value"], "only the buffer has it"
    connected.send("textDocument/didClose", {"textDocument": {"uri": uri}})
    assert await connected.hover(uri, 1, 6) is None, "nothing is open"


@pytest.mark.parametrize(("encoding", "start"), [("utf-8", 32), ("utf-16", 30), ("utf-32", 29)])
async def test_it_counts_and_writes_as_the_editor_asks(house: Workspace, encoding: str, start: int) -> None:
    plain = {"textDocument": {"hover": {"contentFormat": ["plaintext"]}}}
    mine = Elsewhere("file:///c%3A/my%20shop", "file:///c%3A/answers").to_json()
    options: dict[str, Any] = {"general": {"positionEncodings": [encoding]}}
    uri = "file:///c%3A/my%20shop/shop.py"
    reads_plain_text = Client(house, capabilities=plain | options, initializationOptions={CHECKOUT_OPTION: mine})
    reads_plain_text.open(uri, SHOP)
    shown = await reads_plain_text.hover(uri, 3, start)
    assert shown["range"]["start"]["character"] == start, "the zebra takes four, two or one"
    assert shown["contents"]["kind"] == "plaintext" and "#7 Raise the *tax* <b>now" in shown["contents"]["value"]
    client = Client(house, capabilities=options, initializationOptions={CHECKOUT_OPTION: mine})
    client.open(uri, SHOP)
    place = "(file:///c%3A/my%20shop/src%20files/gr%C3%B6%C3%9Fe.py#L1)"
    assert place in (await client.hover(uri, 3, start))["contents"]["value"], "addresses are the editor's"


async def test_secrets_and_inner_functions_stay_inside(house: Workspace, root: Path) -> None:
    connected = Client(house)
    uri = (root / "shop.py").as_uri()
    connected.open(uri, "open_door()\nknock()\n")
    text = (await connected.hover(uri, 0, 2))["contents"]["value"]
    assert "def open_door" in text and "AKIA" not in text and "#6 Sell things" in text
    assert await connected.hover(uri, 1, 2) is None, "knock means nothing outside of open_door"


def test_the_users_of_a_name(house: Workspace, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = house.uses("price_with_tax", 10)
    assert [(place["path"], place["line"]) for place in found["definitions"]] == [("prices.ts", 1), (NAME, 1)]
    assert [(use["path"], use["line"]) for use in found["uses"]] == [("shop.py", 1), ("shop.py", 4)]
    assert (found["uses"][0]["code"], found["more"]) == ("from prices import price_with_tax", False)
    assert house.uses("price_with_tax", 1)["more"]
    (root / "late.py").write_text("def total():\n    return price_with_tax(2)\n")
    house.index.refresh(embed=False)
    assert {"path": "late.py", "line": 2, "code": "return price_with_tax(2)", "within": "total"} in house.uses(
        "price_with_tax", 10
    )["uses"]
    (root / "late.py").unlink()
    assert len(house.uses("price_with_tax", 10)["uses"]) == 2, "read as it is now"
    with pytest.raises(InhouseError, match="no name"):
        house.uses("price with tax", 10)

    show_uses(root, "price_with_tax", found)
    shown = capsys.readouterr().out
    assert "prices.ts:1  export function price_with_tax(amount: number) {" in shown
    assert "2 use(s) in 1 file(s)" in shown
    [passage] = [each for each in house.index.search("price_with_tax()", 5).passages if each.path == NAME]
    show_passage(root, "price_with_tax()", passage_json(passage), 3)
    assert "used by: inhouse search --users price_with_tax" in capsys.readouterr().out


async def test_a_cancelled_hover_says_so(house: Workspace, root: Path) -> None:
    connected = Client(house)
    uri = (root / "shop.py").as_uri()
    connected.open(uri, SHOP)
    asked = {"textDocument": {"uri": uri}, "position": {"line": 3, "character": 34}}
    request = connected.start("textDocument/hover", asked)
    connected.send("$/cancelRequest", {"id": request})
    assert (await connected.answer(request))["error"]["code"] == -32800
    assert await connected.hover(uri, 3, 34), "the next one is answered"


def test_without_an_index_and_with_slow_git(root: Path, tmp_path: Path) -> None:
    repository = Repository.open(root)
    with Index.open(repository, tmp_path / "state") as index:
        definitions = Definitions(repository, index)
        assert list(definitions.find("price_with_tax", "shop.py", 0, {})) == []
        index.refresh(embed=False)
        place = next(definitions.find("price_with_tax", "shop.py", 0, {}))
        with pytest.raises(TimeoutError):
            definitions.last_change(place, {}, seconds=0)
        change = definitions.last_change(place, {}, seconds=20)
        assert change is not None and (change.number, change.edited) == (7, False)
        assert definitions.last_change(place, {}, seconds=0) == change, "git is not asked again"
        untracked = definitions.find("lonely", "new.py", 0, {"new.py": "def lonely():\n    pass\n"})
        assert definitions.last_change(next(untracked), {}, seconds=20) is None


def test_text_of_the_repository_does_nothing() -> None:
    change = LastChange("a" * 40, "<script>", "2024-05-01", None, "![](http://evil.example/x.png)\n# `", edited=False)
    place = Place("a](command:x)\n.py", 1, 1, 1, "def f(): ```\n", "b" * 40)
    text = markdown([place], change, lambda path: "file:///a.py").value
    assert harmless_markdown(text).count("&lt;") == 0, "there is no tag to make plain"
    assert r"\<script\>" in text and r"\!\[\](http" in text and "````py" in text


@pytest.mark.parametrize(
    ("path", "line", "column", "name"),
    [
        ("a.ts", "const x = this.total + `${sum} of`", 28, "sum"),
        ("a.ts", "const x = this.total + `${sum} of`", 32, None),
        ("a.ts", "const x = this.total + `${sum} of`", 11, None),
        ("a.ts", "const x = this.total + `${sum} of`", 17, "total"),
        ("a.tsx", "<Basket>total</Basket>", 3, "Basket"),
        ("a.tsx", "<Basket>total</Basket>", 9, None),
        ("a.py", "größe = None", 3, "größe"),
        ("a.py", "größe = None", 9, None),
        ("a.go", "func Total() { return nil }", 7, "Total"),
        ("a.md", "The total", 5, None),
        ("a.unknown", "the total", 5, "total"),
    ],
)
def test_what_is_a_name(path: str, line: str, column: int, name: str | None) -> None:
    found = name_at(path, f"\n{line}", 1, column)
    assert (found.text if found else None) == name
