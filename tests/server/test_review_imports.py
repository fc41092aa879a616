"""Imports that the house spells another way, language by language: the module, the name given to it, the form."""

from __future__ import annotations

import pytest

from inhouse_server.review.change import Change, Hunk, ReviewedFile
from inhouse_server.review.conventions import Conventions
from inhouse_server.review.finding import Finding
from inhouse_server.review.house import spelling_findings
from inhouse_server.review.imports import imports

Files = list[tuple[str, str]]


def remarks(path: str, house: Files, text: str) -> list[Finding]:
    """What is said about a new file beside those of the house."""
    count = text.count("\n")
    hunk = Hunk(1, count, tuple(range(1, count + 1)), ())
    file = ReviewedFile(path, path, "added", (hunk,), text)
    return spelling_findings(Change("", "", "", "", "", "", (file,)), Conventions(house))[0]


def files(path: str, text: str, count: int = 6) -> Files:
    return [(path.format(number), text) for number in range(count)]


GO = files("p{}/a.go", 'package a\n\nimport (\n\t"fmt"\n\tlog "example.com/logrus"\n\t. "example.com/gomega/v2"\n)\n')
PHP = files("src/A{}.php", "<?php\nnamespace A;\n\nuse Psr\\Log\\Logger;\nuse House\\Bar;\n")
C_SHARP = files("src/A{}.cs", "using System;\nusing Json = House.Json.Node;\n")
C = [
    ("src/net/log.h", "int a;\n"),
    ("include/api.h", "int b;\n"),
    ("lib/time.h", "int c;\n"),
    *files("src/util/a{}.cc", '#include "net/log.h"\n#include <gtest/gtest.h>\n#include <api.h>\n#include <time.h>\n'),
    *files("src/net/a{}.c", '#include "log.h"\n'),
]
RUBY = [
    ("lib/house/http.rb", "a = 1\n"),
    ("spec/spec_helper.rb", "a = 1\n"),
    *files("lib/house/a{}/b.rb", "require_relative '../http'\n"),
    *files("spec/a{}_spec.rb", 'require("spec_helper")\n'),
]
SWIFT = [
    *files("Tests/A{}Tests.swift", "import XCTest\n@testable import House\nimport struct Kit.Price\n"),
    *files("Sources/A{}.swift", "import House\n"),
]


@pytest.mark.parametrize(
    ("path", "house", "text", "said"),
    [
        # From another module than here.
        ("q/b.go", GO, 'package b\n\nimport "log"\n', [(3, "from `log` in this", 'import log "example.com/logrus"\n')]),
        ("q/b.go", GO, 'package b\n\nimport log "l/x"\n', [(3, "from `l/x`", 'import log "example.com/logrus"\n')]),
        ("src/B.php", PHP, "<?php\nuse Mono\\Logger;\n", [(2, "from `Mono`", "use Psr\\Log\\Logger;\n")]),
        ("src/B.php", PHP, "<?php\nuse Mono\\{Logger, X};\n", [(2, "from `Mono`", None)]),
        ("B.cs", C_SHARP, "using Json = J.Node;\n", [(1, "from `J.Node`", "using Json = House.Json.Node;\n")]),
        ("Tests/BTests.swift", SWIFT, "import struct Shop.Price\n", [(1, "from `Shop`", "import struct Kit.Price\n")]),
        # Under another name, which the rest of the file would have to follow.
        ("q/b.go", GO, 'package b\n\nimport f "fmt"\n', [(3, "by its own name in 6 of 6 places", None)]),
        ("q/b.go", GO, 'package b\n\nimport "example.com/logrus"\n', [(3, "as `log` in 6 of 6", None)]),
        ("q/b.go", GO, 'package b\n\nimport "example.com/gomega/v2"\n', [(3, "with a dot in 6 of 6", None)]),
        ("src/B.php", PHP, "<?php\nuse House\\Bar as Baz;\n", [(2, "`Bar` is imported by its own name", None)]),
        ("B.cs", C_SHARP, "using J = House.Json.Node;\n", [(1, "as `Json` in 6 of 6 places here, and as `J`", None)]),
        ("b.rs", files("a{}.rs", "use a::{B, C};\n"), "use a::{B as X, C};\n", [(1, "and as `X`", None)]),
        ("B.kt", files("A{}.java", "import a.B;\n"), "import a.B as X\n", [(1, "and as `X`", None)]),
        ("B.scala", files("A{}.scala", "import a.B\n"), "import a.B as X\n", [(1, "and as `X`", None)]),
        # In another form.
        ("src/util/b.cc", C, '#include "../net/log.h"\n', [(1, "by a path relative", '#include "net/log.h"\n')]),
        ("src/util/b.cc", C, '#include "gtest/gtest.h"\n', [(1, "as `<gtest/gtest.h>`", "#include <gtest/gtest.h>\n")]),
        ("src/util/b.cc", C, '#include "api.h"\n', [(1, "`include/api.h` is included", "#include <api.h>\n")]),
        ("src/net/b.c", C, '#include "net/log.h"\n', [(1, "by a path relative to the file", '#include "log.h"\n')]),
        (
            "src/net/b.h",
            C,
            '#ifndef B\n#define B\n#ifdef X\n#else\n#include "net/log.h"\n#endif\nint b();\n#endif\n',
            [(5, "by a path relative to the file", '#include "log.h"\n')],
        ),
        ("lib/b.rb", RUBY, "require 'house/http'\n", [(1, "by `require_relative`", "require_relative 'house/http'\n")]),
        (
            "spec/x/b_spec.rb",
            RUBY,
            "require_relative '../spec_helper'\n",
            [(1, "by `require`", 'require("spec_helper")\n')],
        ),
        ("Tests/BTests.swift", SWIFT, "import House\n", [(1, "without `@testable`", "@testable import House\n")]),
        (
            "src/B.php",
            PHP,
            "<?php\nnamespace A;\nuse House\\Bar as B;\nnew \\House\\Bar();\n\\Psr\\Log\\Logger::make();\n",
            [(3, "as `B`", None), (4, "written out", "new B();\n"), (5, "`Psr\\Log\\Logger` is", None)],
        ),
    ],
)  # fmt: skip
def test_what_the_house_spells_another_way_is_told_with_its_own_spelling(
    path: str, house: Files, text: str, said: list[tuple[int, str, str | None]]
) -> None:
    found = remarks(path, house, text)
    assert [(each.start_line, each.replacement) for each in found] == [(line, instead) for line, _, instead in said]
    for each, (_, part, _) in zip(found, said, strict=True):
        assert part in each.message and each.rule == "import-spelling" and each.precedents


@pytest.mark.parametrize(
    ("path", "house", "text"),
    [
        # As the house spells it, or as no house could.
        ("q/b.go", GO, 'package b\n\nimport (\n\t"fmt"\n\t_ "example.com/logrus"\n\tfmt "fmt"\n)\n'),
        ("src/B.php", PHP, "<?php\nnamespace A;\nuse House\\Bar;\n\\House\\Bar\\f();\n$a = \\House\\Bar;\n"),
        ("src/B.php", PHP, "<?php\nreturn [\\House\\Bar::class];\n"),
        ("src/net/b.c", C, '#include "log.h"\n#include "time.h"\n#include LOG\n// #include "net/log.h"\n'),
        ("lib/house/b.rb", RUBY, "require 'json'\nload.require 'house/http'\nrequire \"house/#{name}\"\n"),
        ("Sources/B.swift", SWIFT, "import House\n"),
        # Where that name means something else in the file, an alias or the whole name is needed.
        ("q/b.go", GO, 'package b\n\nimport f "fmt"\n\nfunc show(fmt string) {}\n'),
        ("src/B.php", PHP, "<?php\nuse House\\Bar as Y;\nclass Bar {}\n"),
        ("src/B.php", PHP, "<?php\nnamespace A;\nuse X\\Thing as Bar;\nnew \\House\\Bar();\n"),
        ("b.rs", files("a{}.rs", "use std::io::Write;\n"), "use std::io::Write as _;\n"),
        # A package of Go that wraps another one of its name.
        ("log/b.go", files("p{}/a.go", 'package a\n\nimport "example.com/log"\n'), 'package log\n\nimport "log"\n'),
        # Not unanimous, too few, or in another part of the repository.
        ("q/b.go", [*GO[:5], ("r/a.go", 'package a\n\nimport f "fmt"\n')], 'package b\n\nimport f "fmt"\n'),
        ("q/b.go", GO[:4], 'package b\n\nimport "log"\n'),
        ("bench/b.rb", RUBY, "require 'house/http'\n"),
        ("tests/b.cc", C, '#include "gtest/gtest.h"\n'),
    ],
)
def test_what_is_usual_needed_or_no_habit_is_not_remarked_on(path: str, house: Files, text: str) -> None:
    assert remarks(path, house, text) == []


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        (
            "a/b.go",
            '// import "no"\npackage b\n\nimport "x/y"\n'
            'import (\n\tz "a/b"\n\t_ "c"\n\t. "d"\n\t"h/go-k/v2"\n\t`r/s.v3`\n)\n',
            [("y", "x/y", ""), ("z", "a/b", "z"), ("", "d", "."), ("k", "h/go-k/v2", ""), ("s", "r/s.v3", "")],
        ),
        (
            "a.php",
            "<?php\nnamespace N;\n// use No\\Comment;\nuse A\\B\\C;\nuse \\D\\E as F, G\\H;\nuse function I\\j;\n"
            "use K\\{L, M as O};\nuse Exception;\nclass P { use Q\\R; }\n",
            [("C", "A\\B", ""), ("E", "\\D", "F"), ("H", "G", ""), ("j", "I", ""), ("L", "K", ""), ("M", "K", "O")],
        ),
        (
            "A.cs",
            "using A.B;\nusing X = A.B.C;\nglobal using static A.D;\nusing Y = List<int>;\n",
            [("X", "A.B.C", "X")],
        ),
        ("A.swift", "import A\nimport struct B.C\n@testable import D\nimport E.F\n", [("C", "B", "")]),
        ("A.scala", "import a.{B, C => D}\nimport a.E as F\n", [("B", "a", ""), ("C", "a", "D"), ("E", "a", "F")]),
        ("a.rs", "use a::{B as C, d};\nuse e::F as G;\n", [("B", "a", "C"), ("d", "a", ""), ("F", "e", "G")]),
        ("A.kt", "import a.B as C\nimport a.D\n", [("B", "a", "C"), ("D", "a", "")]),
        ("a.py", "from a import b as c, d\n", [("b", "a", "c"), ("d", "a", "")]),
        (
            "a.ts",
            'import { a as b, c } from "m";\nexport { d as e } from "n";\n',
            [("a", "m", "b"), ("c", "m", ""), ("d", "n", "")],
        ),
        ("a.vue", '<script>\nimport { a as b, c } from "m";\n</script>\n', [("a", "m", "b"), ("c", "m", "")]),
    ],
)  # fmt: skip
def test_imports_are_read_with_the_name_that_they_are_given(
    path: str, text: str, found: list[tuple[str, str, str]]
) -> None:
    read = list(imports(path, text))
    assert [(each.name, each.module, each.alias) for each in read] == found
    assert all(text[each.at :].startswith(each.module) for each in read)
