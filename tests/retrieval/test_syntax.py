"""Definitions and depths as parsers see them, for every language that has a grammar."""

from __future__ import annotations

import pytest

from inhouse_retrieval import syntax
from inhouse_retrieval.outline import outline

SAMPLES: dict[str, tuple[str, list[tuple[str, int, int]]]] = {
    "py": (
        "@dec\nclass Basket:\n    @property\n    def add(self):\n        return 1\n\nasync def top():\n    pass\n",
        [("Basket", 0, 4), ("add", 2, 4), ("top", 6, 7)],
    ),
    "js": (
        "export default class Basket {\n  add(a) {\n    return a;\n  }\n}\n"
        "export const top = (a) => {\n  return 1;\n};\n"
        'describe("a thing", () => {\n  it("works", () => {\n  });\n});\n'
        "module.exports.g = function () {\n};\n",
        [
            ("Basket", 0, 4),
            ("add", 1, 3),
            ("top", 5, 7),
            ("a thing", 8, 11),
            ("works", 9, 10),
            ("module.exports.g", 12, 13),
        ],
    ),
    "tsx": (
        "export interface Props {\n  a: string;\n}\nexport const Page = React.memo((p: Props) => {\n"
        "  return <b>{p.a}</b>;\n});\n",
        [("Props", 0, 2), ("Page", 3, 5)],
    ),
    "ts": (
        "type A = {\n  b: string;\n};\nabstract class B {\n  private async run(): Promise<void> {\n  }\n}\n",
        [("A", 0, 2), ("B", 3, 6), ("run", 4, 5)],
    ),
    "java": (
        "@Entity\npublic class Basket {\n  @Override\n  public int add(int a) {\n    return a;\n  }\n"
        "}\nrecord R(int a) {\n}\n",
        [("Basket", 0, 6), ("add", 2, 5), ("R", 7, 8)],
    ),
    "kt": (
        "class Basket(val x: Int) {\n  fun add(a: Int): Int {\n    return a\n  }\n}\nobject Shop {\n}\n",
        [("Basket", 0, 4), ("add", 1, 3), ("Shop", 5, 6)],
    ),
    "go": (
        "package a\n\nfunc (b *Basket) Add(x int) int {\n  return 1\n}\n\ntype Basket struct {\n  A int\n}\n",
        [("Add", 2, 4), ("Basket", 6, 8)],
    ),
    "rs": (
        "impl Basket {\n    pub fn add(&self) -> i32 {\n        1\n    }\n}\nmacro_rules! x {\n"
        "  () => {}\n}\nconst A: i32 = 1;\n",
        [("Basket", 0, 4), ("add", 1, 3), ("x", 5, 7), ("A", 8, 8)],
    ),
    "c": (
        "static char *name(void)\n{\n  return 0;\n}\nstruct S {\n  int a;\n};\ntypedef struct {\n  int a;\n} T;\n",
        [("name", 0, 3), ("S", 4, 6), ("T", 7, 9)],
    ),
    "cpp": (
        "namespace n {\nclass Basket {\n  int add(int a) {\n    return a;\n  }\n};\n}\n"
        "int n::Basket::take(int a) {\n  return a;\n}\n",
        [("n", 0, 6), ("Basket", 1, 5), ("add", 2, 4), ("n::Basket::take", 7, 9)],
    ),
    "cs": (
        "public class Basket {\n  public int Add(int a) {\n    return a;\n  }\n}\npublic record R(int A);\n",
        [("Basket", 0, 4), ("Add", 1, 3), ("R", 5, 5)],
    ),
    "rb": (
        "module Shop\n  class Basket\n    def add(a)\n      a\n    end\n    def self.make\n    end\n  end\nend\n",
        [("Shop", 0, 8), ("Basket", 1, 7), ("add", 2, 4), ("make", 5, 6)],
    ),
    "php": (
        "<?php\nclass Basket {\n  public function add($a) {\n    return 1;\n  }\n}\nfunction top() {\n}\n",
        [("Basket", 1, 5), ("add", 2, 4), ("top", 6, 7)],
    ),
    "scala": (
        "object Shop {\n  def add(a: Int): Int = {\n    a\n  }\n}\ntrait T {\n}\n",
        [("Shop", 0, 4), ("add", 1, 3), ("T", 5, 6)],
    ),
    "swift": (
        "class Basket {\n  func add(a: Int) -> Int {\n    return a\n  }\n}\nprotocol P {\n}\n",
        [("Basket", 0, 4), ("add", 1, 3), ("P", 5, 6)],
    ),
    "sh": ("add() {\n  echo 1\n}\n", [("add", 0, 2)]),
    "sql": ("CREATE TABLE shop.basket (\n  id INT\n);\n", [("shop.basket", 0, 2)]),
    "css": (".basket {\n  color: red;\n}\n", [(".basket", 0, 2)]),
    "toml": ('[project]\nname = "a"\n[tool.x]\ny = 1\n', [("project", 0, 1), ("tool.x", 2, 3)]),
    "yaml": (
        "jobs:\n  test:\n    steps:\n      - run: a\non: push\n",
        [("jobs", 0, 3), ("test", 1, 3), ("steps", 2, 3)],
    ),
    "json": ('{\n  "scripts": {\n    "a": "b"\n  }\n}\n', [("scripts", 1, 3)]),
    "html": ("<html>\n<body>\n<p>a\n</p>\n</body>\n</html>\n", []),
    "md": (
        "# Title\n\ntext\n\n## A part\n\n```sh\n# not a heading\n```\n\n## Another\nx\n",
        [("Title", 0, 11), ("A part", 4, 9), ("Another", 10, 11)],
    ),
    "lua": ("local function add(a)\n  return a\nend\n", [("add", 0, 2)]),
    "ex": ("defmodule Shop.Basket do\n  def add(a) do\n    a\n  end\nend\n", [("Shop.Basket", 0, 4), ("add", 1, 3)]),
}


@pytest.mark.parametrize("suffix", SAMPLES)
def test_definitions_are_found_with_all_their_rows(suffix: str) -> None:
    text, expected = SAMPLES[suffix]
    found = syntax.parse(f"a.{suffix}", text)
    assert found is not None
    assert [(each.name, each.first, each.last) for each in found.definitions] == expected
    assert len(found.depths) == text.count("\n") + 1
    assert found.depths[0] == found.depths[-1] == 0
    # A cut before a definition that lies in nothing goes through nothing; one inside of it goes through it.
    for name, first, last in expected:
        if not any(other != name and start < first <= end for other, start, end in expected):
            assert found.depths[first] <= min(found.depths[first + 1 : last + 1], default=99), name


def test_every_grammar_is_there() -> None:
    for suffix in syntax._GRAMMARS:
        assert syntax.parse(f"a.{suffix}", "") is not None, suffix
        assert syntax.has_grammar(f"b/A.{suffix.upper()}")


def test_a_file_that_is_being_edited_is_read_as_far_as_it_makes_sense() -> None:
    found = syntax.parse("a.py", "def one():\n    return (\n\ndef two():\n    return 2\n")
    assert found is not None and "two" in [each.name for each in found.definitions]
    assert syntax.parse("a.py", "\x00\ud7ff ((((" * 50) is not None


def test_without_a_grammar_indentation_and_headings_do() -> None:
    assert not syntax.has_grammar("a.vue") and syntax.parse("a.vue", "x") is None
    built = outline("a.kts2", ["class Basket {", "  fun add() {", "    1", "  }", "}"])
    assert built.definitions == {0: "Basket", 1: "add"}
    assert built.enclosing[2] == ("Basket", "add")
    assert built.depths[0] < built.depths[1] < built.depths[2]


def test_rows_know_what_encloses_them() -> None:
    built = outline("a.py", SAMPLES["py"][0].split("\n")[:-1])
    assert built.enclosing[0] == () and built.enclosing[1] == ("Basket",)
    assert built.enclosing[4] == ("Basket", "add")
    assert built.enclosing[6] == () and built.enclosing[7] == ("top",)
